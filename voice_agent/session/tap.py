"""EventTap: lets others listen to what a session tells, without ever holding it up.

An event costs a session without listeners one append to a bounded ring. A listener has a bounded channel of its own;
one whose channel is full is cut off, and can come back for what it missed while the ring still holds it.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from voice_agent.core.errors import SessionClosedError
from voice_agent.core.events import SessionClosed, SessionEvent
from voice_agent.core.request_errors import EventsGoneError, TooManyListenersError

KEPT_EVENTS: Final = 128
"""What a listener can come back for: some minutes of speech without partials, or half a minute with them."""
WAITING_EVENTS: Final = 64
"""How far a listener may fall behind."""
MAX_LISTENERS: Final = 8
"""Of one session."""


class Listener:
    """One who listens; read it until :class:`trio.EndOfChannel`."""

    def __init__(self, missed: deque[SessionEvent]) -> None:
        self._missed = missed
        self._send, self._receive = trio.open_memory_channel[SessionEvent](WAITING_EVENTS)
        self.is_cut_off = False
        """It read too slowly; after what it had got, nothing follows."""

    async def receive(self) -> SessionEvent:
        """Return the next event.

        Raises:
            trio.EndOfChannel: the session has ended, or :attr:`is_cut_off`.
        """
        if self._missed:
            await trio.lowlevel.checkpoint()
            return self._missed.popleft()
        return await self._receive.receive()

    def offer(self, event: SessionEvent) -> bool:
        """Take an event now; False when there is no room, which cuts this listener off."""
        try:
            self._send.send_nowait(event)
        except trio.WouldBlock:
            self.is_cut_off = True
            self._send.close()
        return not self.is_cut_off

    def close(self) -> None:
        """Nothing more comes."""
        self._send.close()


class EventTap:
    """The listeners of one session, and its latest events."""

    def __init__(self) -> None:
        self._recent: deque[SessionEvent] = deque(maxlen=KEPT_EVENTS)
        self._listeners: list[Listener] = []
        self._is_closed = False

    @property
    def listener_count(self) -> int:
        """How many listen now."""
        return len(self._listeners)

    def put(self, event: SessionEvent) -> None:
        """Hand an event to everybody; never waits. After the first :class:`SessionClosed` nothing follows."""
        if self._is_closed:
            return
        self._recent.append(event)
        if self._listeners:
            self._listeners = [listener for listener in self._listeners if listener.offer(event)]
        if isinstance(event, SessionClosed):
            self.close()

    def close(self) -> None:
        """The session has ended: listeners read what they have, then their end. Idempotent."""
        self._is_closed = True
        for listener in self._listeners:
            listener.close()
        self._listeners = []

    def check(self, after: int | None) -> None:
        """Raise what :meth:`listening` would raise."""
        if self._is_closed:
            raise SessionClosedError("the session has ended; its events are no longer kept")
        if len(self._listeners) >= MAX_LISTENERS:
            raise TooManyListenersError(f"{MAX_LISTENERS} listen to this session already, and no more may")
        if after is None:
            return
        first, last = (self._recent[0].seq, self._recent[-1].seq) if self._recent else (1, 0)
        if not first - 1 <= after <= last:
            raise EventsGoneError(
                f"event {after} is not among those that are kept ({first} to {last}); listen without it",
                field="Last-Event-ID",
            )

    @contextmanager
    def listening(self, after: int | None) -> Iterator[Listener]:
        """Listen for as long as the block lasts: from now on, or to everything behind the event number ``after``.

        Raises:
            SessionClosedError: the session has ended.
            TooManyListenersError: as many as may listen already.
            EventsGoneError: events behind ``after`` are no longer kept, or there never was such an event.
        """
        self.check(after)
        missed = deque(event for event in self._recent if after is not None and event.seq > after)
        listener = Listener(missed)
        self._listeners.append(listener)
        try:
            yield listener
        finally:
            if listener in self._listeners:
                self._listeners.remove(listener)
