"""Outbox: events that wait for their one reader, who stamps them in the order in which they leave."""

from collections import deque
from collections.abc import Callable, Iterator

import attrs
import trio

from voice_agent.core.errors import SessionClosedError
from voice_agent.core.events import SessionEvent


def _unheard(event: SessionEvent) -> None:
    """Nobody but the reader wants to know."""


def _unmeasured(seconds: float) -> None:
    """Nobody wants to know how long an event waited."""


class Outbox:
    """One call's events. The sequence number is given on the way out, so that a cancelled writer leaves no gap.

    ``last_seq`` is the number that the first event is stamped behind. ``on_stamped`` is given each event with its number, before the reader has it; ``on_wait`` how many seconds an event
    waited for its reader.
    """

    def __init__(
        self,
        max_waiting_events: int,
        last_seq: int = 0,
        on_stamped: Callable[[SessionEvent], None] = _unheard,
        on_wait: Callable[[float], None] = _unmeasured,
    ) -> None:
        self._send, self._receive = trio.open_memory_channel[tuple[SessionEvent, float]](max_waiting_events)
        self._is_closed = False
        self._last: deque[SessionEvent] = deque()
        self._seq = last_seq
        self._stamped_last: set[int] = set()
        self._on_stamped = on_stamped
        self._on_wait = on_wait

    @property
    def is_empty(self) -> bool:
        """Whether no event waits."""
        return not self._receive.statistics().current_buffer_used

    async def put(self, event: SessionEvent) -> None:
        """Wait for room, then take the event.

        Raises:
            SessionClosedError: the outbox was closed before there was room.
        """
        try:
            await self._send.send((event, trio.current_time()))
        except trio.ClosedResourceError:
            raise SessionClosedError("the session has ended; it tells nothing more") from None

    def close(self, *last: SessionEvent) -> None:
        """No more events come; the reader ends when it has read what is there, and then ``last``.

        These need no room and no reader: a session whose events nobody reads still ends, and says how. Only the first
        close counts.
        """
        if not self._is_closed:
            self._is_closed = True
            self._last.extend(last)
            self._send.close()

    def take_rest(self) -> Iterator[SessionEvent]:
        """Take without waiting what was not read, stamped; behind everything that waited, the events of the close."""
        while True:
            try:
                event, _ = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            yield self.stamp(event)
        while self._last:
            self._stamped_last.add(self._seq + 1)
            yield self.stamp(self._last.popleft())

    def is_last(self, event: SessionEvent) -> bool:
        """Whether the event is one of the close, and was taken from the rest."""
        return event.seq in self._stamped_last

    def stamp(self, event: SessionEvent) -> SessionEvent:
        """Return the event with the next sequence number; for what leaves outside the queue, at the very end."""
        self._seq += 1
        stamped = attrs.evolve(event, seq=self._seq)
        self._on_stamped(stamped)
        return stamped

    def __aiter__(self) -> "Outbox":
        return self

    async def __anext__(self) -> SessionEvent:
        """Return the next event, stamped."""
        try:
            event, put_at = await self._receive.receive()
        except trio.EndOfChannel:
            if self._last:
                return self.stamp(self._last.popleft())
            raise StopAsyncIteration from None
        self._on_wait(trio.current_time() - put_at)
        return self.stamp(event)
