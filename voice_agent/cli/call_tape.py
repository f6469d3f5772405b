"""Tape: a call's audio on its way from the source to the connection of the moment."""

from collections.abc import AsyncIterator
from typing import Final

import attrs
import trio

from voice_agent.cli.call_audio import AudioMessage
from voice_agent.cli.call_ring import AudioRing

READ_AHEAD_MESSAGES: Final = 16


@attrs.define(kw_only=True)
class Tape:
    """One task records, one plays; what is recorded outlives a connection.

    A live source is recorded whether somebody plays or not: who speaks does not stop for a network. Any other one
    is read a few messages ahead and then waits, so that nothing of it is lost however long nobody plays.
    """

    is_live: bool
    ring: AudioRing = attrs.field(factory=AudioRing)
    _is_over: bool = attrs.field(init=False, default=False)
    _moved: trio.Event = attrs.field(init=False, factory=trio.Event)
    """Set, and replaced, whenever a message came, went, or the source ended."""

    async def record(self, source: AsyncIterator[AudioMessage]) -> None:
        """Read the source to its end, or until cancelled; what was recorded can be played all the same.

        Raises:
            UnreadableFileError: the source broke off.
        """
        try:
            async for message in source:
                self.ring.append(message)
                self._tell()
                while not self.is_live and self.ring.unsent >= READ_AHEAD_MESSAGES:
                    await self._moved.wait()
        finally:
            self._is_over = True
            self._tell()

    async def play(self) -> AudioMessage | None:
        """Return the next message when it is there; None at the end of the source."""
        while (message := self.ring.take()) is None:
            if self._is_over:
                return None
            await self._moved.wait()
        self._tell()
        return message

    def _tell(self) -> None:
        self._moved.set()
        self._moved = trio.Event()
