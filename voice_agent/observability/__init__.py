"""Logs and metrics: what an SRE sees."""
