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
    JWT_MALFORMED = "jwt_malformed"
    """Not a JWT in compact form, too long, of another type, or with an extension that has to be understood."""
    JWT_ALGORITHM = "jwt_algorithm"
    """Not on the allow-list; ``none`` among others."""
    JWT_KEY_UNKNOWN = "jwt_key_unknown"
    JWT_SIGNATURE = "jwt_signature"
    JWT_EXPIRED = "jwt_expired"
    JWT_FUTURE = "jwt_future"
    """Not valid yet, or issued in the future."""
    JWT_ISSUER = "jwt_issuer"
    JWT_AUDIENCE = "jwt_audience"
    JWT_CLAIM = "jwt_claim"
    """A claim is missing, or not what it has to be: ``exp``, ``sub``, ``scope``, tenant, quotas."""
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
