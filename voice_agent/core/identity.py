"""Who calls: an identity, what it may do and how much of it."""

from enum import StrEnum
from typing import Final, NewType

import attrs

from voice_agent.core.units import HOURS

DEFAULT_TENANT: Final = "default"
"""The tenant of whoever is given none, and of callers who stay anonymous."""
EVERY_TENANT: Final = "*"
"""The tenant of those who see every other."""


Hours = NewType("Hours", float)
"""A length of time that may be 0."""


class Scope(StrEnum):
    """What an identity may do; none implies another."""

    CALL = "call"
    """Begin calls, and change or end its own."""
    OBSERVE = "observe"
    """Read sessions, settings and metrics."""
    ADMIN = "admin"
    """End anybody's session, drain the server."""


@attrs.frozen(kw_only=True)
class Quotas:
    """Limits of one identity that differ from the settings' own; None leaves the setting in force."""

    max_calls: int | None = None
    """Calls at once."""
    calls_per_minute: float | None = None
    requests_per_second: float | None = None
    """HTTP requests."""
    max_duration_seconds: float | None = None
    """How long a call may last."""
    retention_hours: Hours | None = None
    """How long a session is kept after its end; 0 for nothing at all of it, from its beginning."""

    @property
    def retention_seconds(self) -> float | None:
        """The same in seconds."""
        return None if self.retention_hours is None else self.retention_hours * HOURS

    @property
    def keeps_nothing(self) -> bool:
        """Whether no word of its calls may reach a store."""
        return self.retention_seconds == 0


@attrs.frozen(kw_only=True)
class Identity:
    """Somebody who has shown who they are.

    ``key_id`` names the key or the token's subject; it is logged and counts calls, and is no secret. ``tenant``
    bounds what its scopes reach: the calls of the same tenant, or all of them for :data:`EVERY_TENANT`.
    """

    key_id: str
    tenant: str
    scopes: frozenset[Scope]
    quotas: Quotas = attrs.field(factory=Quotas)
    expires_at: float | None = None
    """Unix time after which it begins nothing new; None for never."""

    def may(self, scope: Scope) -> bool:
        """Whether it has the scope."""
        return scope in self.scopes

    def is_same_as(self, other: "Identity") -> bool:
        """Whether it is the same key or subject of the same tenant; scopes and quotas may have changed meanwhile."""
        return (self.key_id, self.tenant) == (other.key_id, other.tenant)

    def sees(self, tenant: str) -> bool:
        """Whether it may know of the calls of a tenant."""
        return self.tenant in {tenant, EVERY_TENANT}

    @property
    def may_run_server(self) -> bool:
        """Whether its scopes reach the process itself; those of a tenant with a name of its own don't."""
        return self.tenant in {DEFAULT_TENANT, EVERY_TENANT}


ANONYMOUS: Final = Identity(key_id="anonymous", tenant=DEFAULT_TENANT, scopes=frozenset(Scope))
"""Everybody, where the operator asks nobody who they are: on loopback, or where a setting says so in clear words."""
