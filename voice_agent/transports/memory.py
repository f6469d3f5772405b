"""The in-memory transport: a call without a wire, for embedding programs and for tests under virtual time."""

from collections.abc import AsyncIterator
from typing import Final

import trio

from voice_agent.core.commands import Command, Stop
from voice_agent.core.errors import SessionClosedError, TransportBrokenError
from voice_agent.core.events import Notice, SessionEvent
from voice_agent.core.frames import AudioFrame
from voice_agent.core.transport import Transport
from voice_agent.transports.incoming import Incoming

MAX_WAITING_FRAMES: Final = 64
MAX_WAITING_COMMANDS: Final = 64
MAX_WAITING_EVENTS: Final = 1024


class _Line:
    """What both ends hold."""

    def __init__(self, max_frames: int, max_commands: int, max_events: int) -> None:
        self.incoming = Incoming(max_frames=max_frames, max_commands=max_commands)
        self.events_in, self.events_out = trio.open_memory_channel[SessionEvent](max_events)
        self.played_in, self.played_out = trio.open_memory_channel[AudioFrame](max_frames)

    def end_outgoing(self) -> None:
        """Nothing more goes to the caller; what waits can still be read."""
        self.events_in.close()
        self.played_in.close()


class MemoryTransport:
    """The session's end; a :class:`~voice_agent.core.transport.Transport`."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    async def recv_audio(self) -> AudioFrame:
        """As :meth:`voice_agent.core.transport.Transport.recv_audio`; queued audio is read before a hang-up is told."""
        return await self._line.incoming.recv_audio()

    async def recv_text(self) -> Command | Notice:
        """As :meth:`voice_agent.core.transport.Transport.recv_text`; queued commands come before a hang-up is told."""
        return await self._line.incoming.recv_text()

    async def send_audio(self, frame: AudioFrame) -> None:
        """Play to the caller; waits while ``max_frames`` are unread, raises :class:`TransportBrokenError`."""
        try:
            await self._line.played_in.send(frame)
        except trio.ClosedResourceError:
            raise TransportBrokenError("the caller hung up") from None

    async def send_text(self, event: SessionEvent) -> None:
        """Tell the caller; waits while ``max_events`` are unread, raises :class:`TransportBrokenError`."""
        try:
            await self._line.events_in.send(event)
        except trio.ClosedResourceError:
            raise TransportBrokenError("the caller hung up") from None

    async def aclose(self) -> None:
        """Close; what the caller has not read yet can still be read."""
        self._line.incoming.close()
        self._line.end_outgoing()
        await trio.lowlevel.checkpoint()


class MemoryCaller:
    """The caller's end.

    A call begins with ``send_command(Start(...))``, as on every wire. The session waits when its events or its audio
    stay unread, as it does for a slow network.
    """

    def __init__(self, line: _Line) -> None:
        self._line = line

    async def send_audio(self, frame: AudioFrame) -> None:
        """Speak; waits while ``max_frames`` are unheard.

        Raises:
            SessionClosedError: the call is over, or its audio was ended.
        """
        await trio.lowlevel.checkpoint()
        if not await self._line.incoming.put_audio(frame):
            raise SessionClosedError("the call is over, or its audio was ended")

    async def send_command(self, command: Command) -> None:
        """Ask for something; :class:`Stop` ends the audio too.

        Raises:
            SessionClosedError: the call is over.
        """
        await trio.lowlevel.checkpoint()
        if not await self._line.incoming.put_text(command):
            raise SessionClosedError("the call is over")
        if isinstance(command, Stop):
            self._line.incoming.end_audio()

    def stop_audio(self) -> None:
        """End the audio without a command; the session reads what is queued, then the end."""
        self._line.incoming.end_audio()

    def hang_up(self) -> None:
        """Go away, as a broken connection does; events that were told before can still be read."""
        self._line.incoming.break_off("the caller hung up")
        self._line.end_outgoing()

    def events(self) -> AsyncIterator[SessionEvent]:
        """Iterate over the session's events; ends with the call."""
        return self._line.events_out

    def received_audio(self) -> AsyncIterator[AudioFrame]:
        """Iterate over what the session plays; ends with the call."""
        return self._line.played_out


def open_memory_pair(
    *,
    max_frames: int = MAX_WAITING_FRAMES,
    max_commands: int = MAX_WAITING_COMMANDS,
    max_events: int = MAX_WAITING_EVENTS,
) -> tuple[Transport, MemoryCaller]:
    """Make both ends of a call; the limits count what may wait in each direction."""
    line = _Line(max_frames, max_commands, max_events)
    return MemoryTransport(line), MemoryCaller(line)
