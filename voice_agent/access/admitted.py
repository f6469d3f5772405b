"""Admitted: what the door found out about a request, for those behind it; it travels in the ASGI scope."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from voice_agent.core.errors import VoiceAgentError
from voice_agent.core.identity import Identity

SCOPE_KEY: Final = "voice_agent.admitted"


@attrs.frozen(kw_only=True)
class Admitted:
    """A request that the door let in.

    ``identity`` is None when it has to show credentials in order to get further than public addresses: it showed none,
    or some that make it nobody, and then ``fault`` says why. ``address`` is the client's, behind the proxies that are
    trusted.
    """

    identity: Identity | None
    address: str
    fault: VoiceAgentError | None = attrs.field(default=None, eq=False)


def admitted(scope: Mapping[str, Any]) -> Admitted:
    """Return what the door found out; a scope that never passed it is nobody's."""
    found = scope.get(SCOPE_KEY)
    return found if isinstance(found, Admitted) else Admitted(identity=None, address="unknown")
