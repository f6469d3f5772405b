"""A real-time voice agent on Trio: each call is one nursery."""
