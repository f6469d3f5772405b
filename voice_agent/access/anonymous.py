"""Who may call without showing anything."""

import ipaddress
from typing import Final

import attrs

from voice_agent.access.tokens import takes_tokens
from voice_agent.core.identity import ANONYMOUS, Identity, Scope
from voice_agent.settings.schema import AccessSettings

_ANYBODY: Final = attrs.evolve(ANONYMOUS, scopes=frozenset({Scope.CALL}))


def is_loopback(host: str) -> bool:
    """Whether only programs of the same machine reach an address that is listened on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def asks_who(access: AccessSettings) -> bool:
    """Whether anybody has a key or a token: there is somebody to be told apart from strangers."""
    return bool(access.keys) or takes_tokens(access)


def anonymous_identity(access: AccessSettings, *, host: str) -> Identity | None:
    """Return who somebody is that shows nothing, or None where that is not enough.

    ``host`` is the address that is listened on. On loopback, with no key or token configured, it is whoever sits at
    the machine, who may do everything. As soon as one is, a proxy may stand before the server, and everybody comes
    from loopback: then, and beyond loopback, only the setting lets strangers in, and they may call and nothing else.
    """
    if is_loopback(host) and not asks_who(access):
        return ANONYMOUS
    return _ANYBODY if access.allow_anonymous_beyond_loopback else None
