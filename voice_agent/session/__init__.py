"""The session: one nursery that holds everything a call owns."""
