"""Limits by name: what metrics, notices and documents call them. A closed set, so that it can label a metric."""

from enum import StrEnum


class Limit(StrEnum):
    """A limit that somebody can hit; the settings of the section ``limits`` have the figures."""

    REQUESTS_PER_ADDRESS = "requests_per_address"
    REQUESTS_PER_KEY = "requests_per_key"
    CALLS_PER_ADDRESS = "calls_per_address"
    """New calls, as in the next one."""
    CALLS_PER_KEY = "calls_per_key"
    CALLS_AT_ONCE = "calls_at_once"
    """Open calls of one key."""
    AUTH_FAILURES = "auth_failures"
    MESSAGES = "messages"
    """Messages of one call within a second."""
    AUDIO = "audio"
    """Audio of one call against the time that has passed."""
    TRANSCRIPT = "transcript"
    """Text of one call in all."""
    DURATION = "duration"
    IDLE = "idle"
