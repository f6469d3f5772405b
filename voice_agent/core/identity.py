"""Who calls: an identity, what it may do and how much of it."""

from enum import StrEnum
from typing import Final

import attrs

DEFAULT_TENANT: Final = "default"
"""The tenant of whoever is given none, and of callers who stay anonymous."""
EVERY_TENANT: Final = "*"
"""The tenant of those who see every other."""


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
