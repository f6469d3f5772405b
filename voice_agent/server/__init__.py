"""The server: wiring, connections, drain."""
