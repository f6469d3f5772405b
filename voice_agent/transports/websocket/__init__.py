"""The WebSocket transport: a protocol that does no I/O, and the endpoint that does."""
