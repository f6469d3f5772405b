"""Authenticator: from what a request shows to who it is."""

from typing import Protocol

import attrs

from voice_agent.core.identity import Identity


@attrs.frozen(kw_only=True)
class Credentials:
    """What a request shows of itself, as it stood on the wire; all of it is secret."""

    bearer: str | None = attrs.field(default=None, repr=False)
    """``Authorization: Bearer`` (RFC 6750): an API key or a JWT."""
    api_key: str | None = attrs.field(default=None, repr=False)
    """``X-API-Key``."""
    ticket: str | None = attrs.field(default=None, repr=False)
    """A single-use ticket, from a subprotocol or the query of a WebSocket handshake."""

    @property
    def are_shown(self) -> bool:
        """Whether anything was shown at all."""
        return any(part is not None for part in (self.bearer, self.api_key, self.ticket))


class Authenticator(Protocol):
    """Finds out who shows the credentials."""

    async def identify(self, credentials: Credentials) -> Identity:
        """Return who it is.

        Raises:
            UnauthenticatedError: they are wrong, expired or used; never says which part was wrong.
        """
        ...
