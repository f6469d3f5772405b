"""Shared nouns of the project; imports nothing of ours."""
