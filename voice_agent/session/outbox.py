"""Outbox: events that wait for their one reader, who stamps them in the order in which they leave."""

import attrs
import trio

from voice_agent.core.events import SessionEvent


class Outbox:
    """One call's events. The sequence number is given on the way out, so that a cancelled writer leaves no gap."""

    def __init__(self, max_waiting_events: int) -> None:
        self._send, self._receive = trio.open_memory_channel[SessionEvent](max_waiting_events)
        self._seq = 0

    async def put(self, event: SessionEvent) -> None:
        """Wait for room, then take the event."""
        await self._send.send(event)

    def close(self) -> None:
        """No more events come; the reader ends when it has read what is there."""
        self._send.close()

    def stamp(self, event: SessionEvent) -> SessionEvent:
        """Return the event with the next sequence number; for what leaves outside the queue, at the very end."""
        self._seq += 1
        return attrs.evolve(event, seq=self._seq)

    def __aiter__(self) -> "Outbox":
        return self

    async def __anext__(self) -> SessionEvent:
        """Return the next event, stamped."""
        try:
            return self.stamp(await self._receive.receive())
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
