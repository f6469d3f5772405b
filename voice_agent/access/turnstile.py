"""Turnstile: counts who comes to the door, and says when it is too much; what counts how stands behind it."""

from typing import Protocol

import attrs

from voice_agent.access.refusal import Headers, Refusal
from voice_agent.core.identity import Identity


@attrs.frozen(kw_only=True)
class Verdict:
    """What the turnstile says about a request."""

    refusal: Refusal | None = None
    """The answer in the place of what was asked for; None lets the request on."""
    headers: Headers = ()
    """For the answer, whatever it is: the RateLimit fields."""


PASS = Verdict()
"""Nothing to say."""


class Turnstile(Protocol):
    """Asked twice about every request, HTTP or WebSocket handshake; neither waits."""

    def arrives(self, address: str) -> Verdict:
        """Somebody comes, not known yet: before credentials cost anything."""
        ...

    def enters(self, address: str, identity: Identity) -> Verdict:
        """They have shown who they are, or need not."""
        ...


class OpenTurnstile:
    """Counts nothing."""

    def arrives(self, _address: str) -> Verdict:
        """Let on."""
        return PASS

    def enters(self, _address: str, _identity: Identity) -> Verdict:
        """Let on."""
        return PASS
