"""Transports: how callers reach a session."""
