"""Who calls: an identity, what it may do and how much of it."""

from enum import StrEnum
from typing import Final

import attrs


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
    bounds what is seen: an identity finds the calls of its own tenant only, unless its scopes say more.
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


ANONYMOUS: Final = Identity(key_id="anonymous", tenant="anonymous", scopes=frozenset(Scope))
"""Everybody, where the operator asks nobody who they are: on loopback, or where a setting says so in clear words."""
