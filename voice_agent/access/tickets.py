"""Tickets: what a browser shows instead of a key, because it can't set headers on a WebSocket.

A ticket is 256 random bits, lives for seconds, and is used up by the first handshake that shows it. So it does little
harm where addresses and subprotocols end up: in logs, histories and screens.
"""

import hashlib
import math
import secrets
from collections.abc import Callable
from typing import Final, Protocol

import attrs

from voice_agent.core.identity import Identity, Scope
from voice_agent.settings.current import CurrentSettings

TICKET_BYTES: Final = 32


@attrs.frozen(kw_only=True)
class Ticket:
    """A ticket that was given; not the text of it. ``identity`` is who asked, with what the ticket lets them do."""

    identity: Identity
    address: str
    expires_at: float


class TicketsElsewhere(Protocol):
    """The tickets that other nodes gave."""

    async def redeem(self, text: str) -> Ticket | None:
        """Use one up; None for what is no such ticket, or was used.

        Raises:
            UnavailableError: the node that gave it does not answer.
        """
        ...


class NoTicketsElsewhere:
    """There are no other nodes."""

    async def redeem(self, _text: str) -> Ticket | None:
        """Return none."""
        return None


def random_text() -> str:
    """Return the text of a ticket that is good at the process that gave it."""
    return secrets.token_urlsafe(TICKET_BYTES)


class Tickets:
    """The tickets that were given and not used yet.

    They are kept by their hash: how long a look-up takes says nothing about a ticket then, and a dump of memory holds
    none. Times are Unix time in seconds.
    """

    def __init__(self, current: CurrentSettings, new_text: Callable[[], str] = random_text) -> None:
        """``new_text`` makes the text of a ticket, which nobody may be able to guess."""
        self._current = current
        self._new_text = new_text
        self._tickets: dict[bytes, Ticket] = {}
        self._held: dict[str, dict[bytes, None]] = {}
        """The same by who asked; both in the order of asking."""

    def __len__(self) -> int:
        return len(self._tickets)

    def issue(self, identity: Identity, *, address: str, now: float) -> str:
        """Give a ticket to somebody who is known; it lets them call and nothing else.

        When there are too many, the oldest goes. One key holds half of them at most, so that nobody can push out
        everybody else's.
        """
        access = self._current.now.access
        self._drop_expired(now)
        held = self._held.get(identity.key_id, {})
        while len(held) >= max(1, access.max_tickets // 2):
            self._take(next(iter(held)))
        while len(self) >= access.max_tickets:
            self._take(next(iter(self._tickets)))
        text = self._new_text()
        hashed = _hashed(text)
        self._tickets[hashed] = Ticket(
            identity=attrs.evolve(identity, scopes=identity.scopes & {Scope.CALL}),
            address=address,
            expires_at=min(now + access.ticket_seconds, identity.expires_at or math.inf),
        )
        self._held.setdefault(identity.key_id, {})[hashed] = None
        return text

    def take(self, text: str) -> Ticket | None:
        """Use a ticket up: nobody gets it a second time, whatever the first one makes of it."""
        return self._take(_hashed(text))

    def _drop_expired(self, now: float) -> None:
        # In the order of asking, which is that of expiry but for a changed setting; what hides behind a longer-lived
        # one is refused when it is shown, and goes later.
        while self._tickets:
            oldest, ticket = next(iter(self._tickets.items()))
            if now < ticket.expires_at:
                break
            self._take(oldest)

    def _take(self, hashed: bytes) -> Ticket | None:
        ticket = self._tickets.pop(hashed, None)
        if ticket is not None:
            key_id = ticket.identity.key_id
            held = self._held[key_id]
            del held[hashed]
            if not held:
                del self._held[key_id]
        return ticket


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
