"""The Transport protocol: how a session reaches its caller, whatever the wire."""

from enum import StrEnum
from typing import Protocol

from voice_agent.core.commands import Command
from voice_agent.core.events import Notice, SessionEvent
from voice_agent.core.frames import AudioFrame


class Wire(StrEnum):
    """How a call reaches the server."""

    WEBSOCKET = "websocket"
    WEBRTC = "webrtc"
    EMBEDDED = "embedded"
    """From the program that embeds the session, whatever its own wire is."""


class Transport(Protocol):
    """A caller's connection: audio both ways, and the text side of the protocol both ways.

    A wire with an encoding of its own (JSON over WebSocket) decodes and encodes inside; what passes here is typed.
    Every method is a checkpoint and may be cancelled. The transport's queues are bounded.
    """

    async def recv_audio(self) -> AudioFrame:
        """Return the next piece of the caller's audio.

        Raises:
            trio.EndOfChannel: the caller sends no more audio (``stop``).
            TransportBrokenError: the caller went away.
        """
        ...

    async def recv_text(self) -> Command | Notice:
        """Return the caller's next command, or what the caller is to be told about how they send.

        Raises:
            trio.EndOfChannel: no more commands come.
            CallerError: the caller sent something that can't be served; call again unless it is fatal.
            TransportBrokenError: the caller went away.
        """
        ...

    async def send_audio(self, frame: AudioFrame) -> None:
        """Play a piece of audio to the caller; raises :class:`TransportBrokenError`."""
        ...

    async def send_text(self, event: SessionEvent) -> None:
        """Tell the caller an event; raises :class:`TransportBrokenError`."""
        ...

    async def aclose(self) -> None:
        """Close the connection; idempotent, bounded in time, and done even when cancelled."""
        ...
