"""Incoming: what came from the caller and waits for the session, the audio and the commands each in a bounded queue.

A transport receives in one task and is read by two; this is what stands between. What was queued before the caller went
away is still read: the last words of somebody who hangs up in mid-sentence are in there.
"""

from typing import TypeVar

import trio

from voice_agent.core.commands import Command
from voice_agent.core.errors import CallerError, TransportBrokenError
from voice_agent.core.events import Notice
from voice_agent.core.frames import AudioFrame

_Item = TypeVar("_Item")


class Incoming:
    """Two bounded queues and how each of them ends.

    ``max_frames`` and ``max_commands`` are what may wait; whoever puts more waits too.
    """

    def __init__(self, *, max_frames: int, max_commands: int) -> None:
        self._audio_in, self._audio_out = trio.open_memory_channel[AudioFrame](max_frames)
        self._text_in, self._text_out = trio.open_memory_channel[Command | Notice | CallerError](max_commands)
        self._is_audio_over = False
        self._broken_because = "the connection is closed"

    async def put_audio(self, frame: AudioFrame) -> bool:
        """Queue audio, waiting while the queue is full; ``False`` when nobody will read it."""
        return await _put(self._audio_in, frame)

    async def put_text(self, item: Command | Notice | CallerError) -> bool:
        """Queue a command, a notice for the caller, or an error to be raised in its place; as :meth:`put_audio`."""
        return await _put(self._text_in, item)

    def end_audio(self) -> None:
        """No more audio comes, as the caller wished."""
        self._is_audio_over = True
        self._audio_in.close()

    def break_off(self, because: str) -> None:
        """The caller went away: what is queued is read first, then the readers are told."""
        self._broken_because = because
        self._audio_in.close()
        self._text_in.close()

    def close(self) -> None:
        """Nobody reads any more: readers and writers that wait are let go, what is queued is dropped."""
        self.break_off("the transport is closed")
        self._audio_out.close()
        self._text_out.close()

    async def recv_audio(self) -> AudioFrame:
        """Return the next frame.

        Raises:
            trio.EndOfChannel: the audio was ended.
            TransportBrokenError: the caller went away, or the transport was closed.
        """
        try:
            return await self._audio_out.receive()
        except trio.EndOfChannel:
            if self._is_audio_over:
                raise
            raise TransportBrokenError(self._broken_because) from None
        except trio.ClosedResourceError:
            raise TransportBrokenError(self._broken_because) from None

    async def recv_text(self) -> Command | Notice:
        """Return the next command or notice, or raise the error that stands in its place.

        Raises:
            CallerError: what the caller sent can't be served.
            TransportBrokenError: the caller went away, or the transport was closed.
        """
        try:
            item = await self._text_out.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise TransportBrokenError(self._broken_because) from None
        if isinstance(item, CallerError):
            raise item
        return item


async def _put(channel: trio.MemorySendChannel[_Item], item: _Item) -> bool:
    try:
        try:
            # No scheduler pass while there is room: whoever puts has just waited for the wire.
            channel.send_nowait(item)
        except trio.WouldBlock:
            await channel.send(item)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return False
    return True
