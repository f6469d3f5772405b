"""Rejection: why credentials are refused; for metrics and the audit, never for the caller."""

from enum import StrEnum


class Reason(StrEnum):
    """Every way in which authentication fails; the label of a metric, so that the list is closed."""

    SEVERAL = "several"
    """More than one kind of credentials was shown (RFC 6750, section 2, forbids it)."""
    KEY_MALFORMED = "key_malformed"
    KEY_UNKNOWN = "key_unknown"
    KEY_WRONG = "key_wrong"
    KEY_EXPIRED = "key_expired"
    TICKET_UNKNOWN = "ticket_unknown"
    """It never existed, was used, or made room for others."""
    TICKET_EXPIRED = "ticket_expired"
    TICKET_MOVED = "ticket_moved"
    """It was asked for from another address."""
    TICKET_ORPHANED = "ticket_orphaned"
    """Whoever asked for it may not call any more."""
    BLOCKED = "blocked"
    """The address has failed too often; nothing was looked at."""


class RejectedError(Exception):
    """Credentials are refused. It never leaves this room: callers are told one and the same thing."""

    def __init__(self, reason: Reason, claimed: str = "unknown") -> None:
        super().__init__(reason)
        self.reason = reason
        self.claimed = claimed
        """The id that they claim, where it is well-formed; no secret, and not to be believed."""
