"""The sections of the settings, a subject a file; ``schema.py`` puts them together."""
