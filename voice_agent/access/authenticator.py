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
        return self.count > 0

    @property
    def count(self) -> int:
        """How many kinds were shown."""
        return sum(part is not None for part in (self.bearer, self.api_key, self.ticket))


class Authenticator(Protocol):
    """Finds out who shows the credentials."""

    async def identify(self, credentials: Credentials, *, address: str) -> Identity:
        """Return who it is.

        ``address`` is the client's, behind the proxies that are trusted: failures are counted by it.

        Raises:
            UnauthenticatedError: they are wrong, expired or used; never says which part was wrong.
            TooManyFailuresError: the address has failed too often; nothing was looked at.
            UnavailableError: they can't be judged now, because the keys that they are signed with never arrived.
        """
        ...


class FailureLimiter(Protocol):
    """Counts failures by address, in bounded memory."""

    def wait_seconds(self, address: str) -> float:
        """Return how long the address has to wait before it may try again; 0 when it needn't."""
        ...

    def note_failure(self, address: str) -> None:
        """Count one."""
        ...


class NoFailureLimit:
    """Lets everybody try for ever; for tests and embedding programs."""

    def wait_seconds(self, address: str) -> float:  # noqa: ARG002 - the protocol's signature
        """Return 0."""
        return 0

    def note_failure(self, address: str) -> None:
        """Count nothing."""
