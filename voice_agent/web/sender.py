"""Sender: who sent a request, for routes that act on it and have it audited."""

import attrs
from quart import request

from voice_agent.access.admitted import admitted
from voice_agent.core.errors import UnauthenticatedError
from voice_agent.core.identity import Identity


@attrs.frozen
class Sender:
    """Who it is, and from where."""

    identity: Identity
    address: str


def sender() -> Sender:
    """Return who sent the request that is being answered.

    Raises:
        UnauthenticatedError: nobody knows; a route that needs a scope never gets so far.
    """
    found = admitted(request.scope)
    if found.identity is None:
        raise UnauthenticatedError("Show a key or a token.")
    return Sender(found.identity, found.address)
