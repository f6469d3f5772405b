"""Who may call without showing anything.

The rule is about the address that the server is bound to. A proxy on the same machine makes everybody look near; so
who comes through one, as far as that shows, may call and no more, and so may pages: of sites that are allowed, and those
that reached the loopback address under a name of their own (DNS rebinding).
"""

import ipaddress
from typing import Final, Self

import attrs

from voice_agent.access.client import Client
from voice_agent.access.origins import Standing, own_origin
from voice_agent.access.tokens import takes_tokens
from voice_agent.core.errors import UnsafeBindError
from voice_agent.core.identity import ANONYMOUS, Identity, Scope
from voice_agent.settings.schema import AccessSettings

LOOPBACK_WITHOUT_KEYS: Final = "loopback-without-keys"
LOOPBACK: Final = "loopback"
ANYBODY: Final = "anybody-from-anywhere-may-call"
"""Choices of ``access.anonymous``; the one left is ``never``."""

ANONYMOUS_CALLER: Final = attrs.evolve(ANONYMOUS, scopes=frozenset({Scope.CALL}))


def is_loopback(host: str) -> bool:
    """Whether only programs of the same machine reach an address that is listened on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def asks_who(access: AccessSettings) -> bool:
    """Whether anybody has a key or a token: there is somebody to be told apart from strangers."""
    return bool(access.keys) or takes_tokens(access)


def may_be_anonymous(access: AccessSettings) -> bool:
    """Whether strangers are served at all, somewhere."""
    return access.anonymous in {LOOPBACK, ANYBODY} or (
        access.anonymous == LOOPBACK_WITHOUT_KEYS and not asks_who(access)
    )


def check_bind(access: AccessSettings, *, host: str) -> None:
    """Refuse to listen beyond loopback while nobody is asked who they are, unless the settings say so.

    Raises:
        UnsafeBindError: anybody could call.
    """
    if not is_loopback(host) and not asks_who(access) and access.anonymous != ANYBODY:
        raise UnsafeBindError(
            f"server.host = {host!r} is reachable from other machines, but nobody is asked who they are, so anybody "
            "could call. Configure keys (voice-agent keys new prints one), or set server.host to 127.0.0.1 or ::1, or "
            f'access.anonymous to "{ANYBODY}".',
            field="server.host",
        )


@attrs.frozen(kw_only=True)
class Strangers:
    """Identities of those who show nothing; None has to show something."""

    near: Identity | None
    """Who is plainly on this machine."""
    far: Identity | None
    """Everybody else."""

    @classmethod
    def of(cls, access: AccessSettings, *, host: str) -> Self:
        """Return what they are to a server that listens on ``host``."""
        if not may_be_anonymous(access):
            return cls(near=None, far=None)
        if access.anonymous == ANYBODY:
            return cls(near=ANONYMOUS_CALLER, far=ANONYMOUS_CALLER)
        if is_loopback(host):
            return cls(near=ANONYMOUS, far=ANONYMOUS_CALLER)
        return cls(near=None, far=None)

    def identify(self, client: Client, standing: Standing) -> Identity | None:
        """Return who that is; ``standing`` is that of the page that asks, if one does."""
        server = own_origin(client)
        is_near = (
            server is not None
            and server.is_loopback
            and not client.came_by_proxy
            and standing in {Standing.NO_PAGE, Standing.OWN}
        )
        return self.near if is_near else self.far
