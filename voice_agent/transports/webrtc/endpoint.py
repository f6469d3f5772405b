"""WebRtcTransport: a WebRTC caller as a session sees one.

The data channel carries the same JSON as the WebSocket; the call is started by its signalling, so there is no ``start``
to wait for. No task of its own: the session's two readers read the peer.
"""

import math
from typing import Final

import structlog
import trio

from voice_agent.core.commands import CallOptions, Command, Flush, Start, Stop, TypedText
from voice_agent.core.errors import (
    AlreadyStartedError,
    CallerError,
    MessageTooLargeError,
    SessionClosedError,
    TooManyUnknownTypesError,
    TransportBrokenError,
    UnknownTypeError,
)
from voice_agent.core.events import Notice, SessionClosed, SessionEvent
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding
from voice_agent.core.network import NetworkStatistics
from voice_agent.core.units import KIB, SECONDS
from voice_agent.transports.message_rate import MessageRate
from voice_agent.transports.webrtc.outbound import RATE
from voice_agent.transports.webrtc.peer import Peer
from voice_agent.transports.wire import encode_event, parse_message

AUDIO_FORMAT: Final = AudioFormat(Encoding.OPUS, RATE, 1)
"""What is heard of a WebRTC call, whatever the offer: libopus mixes stereo down."""

MAX_TEXT_BYTES: Final = 64 * KIB
MAX_UNKNOWN_TYPES: Final = 10
LAST_AUDIO_SECONDS: Final = 0.25 * SECONDS
"""``stop`` on the data channel overtakes audio that the network or the reorder buffer still holds."""
LAST_MESSAGES_SECONDS: Final = 2 * SECONDS
"""How long the close waits for the caller to acknowledge what was told."""

_DEFAULT_OPTIONS: Final = CallOptions()

log = structlog.get_logger(__name__)


class WebRtcTransport:
    """A caller on WebRTC; a :class:`~voice_agent.core.transport.Transport`, and the owner of ``peer``."""

    def __init__(
        self, peer: Peer, options: CallOptions = _DEFAULT_OPTIONS, messages: MessageRate | None = None
    ) -> None:
        self._peer = peer
        self._options = options
        self._is_started = False
        self._is_stopped = False
        self._audio_scope = trio.CancelScope()
        self._audio_deadline = math.inf
        self._fault_told = trio.Event()
        self._unknown_types = 0
        self._messages = messages or MessageRate()
        self._waiting_text: str | None = None
        """A message that a notice about it went ahead of."""
        self._is_closed = False

    @property
    def network(self) -> NetworkStatistics:
        """The network's figures."""
        return self._peer.stats

    async def recv_audio(self) -> AudioFrame:
        """As :meth:`voice_agent.core.transport.Transport.recv_audio`; 48 kHz, gaps filled, positions true."""
        with trio.CancelScope(deadline=self._audio_deadline) as self._audio_scope:
            try:
                return await self._peer.recv_audio()
            except CallerError as error:
                # A call that never connected is told by recv_text, as an error and not as a hang-up.
                await self._fault_told.wait()
                raise TransportBrokenError(error.message) from error
        raise trio.EndOfChannel

    async def recv_text(self) -> Command | Notice:
        """As :meth:`voice_agent.core.transport.Transport.recv_text`; the first command is the signalled start."""
        if not self._is_started:
            self._is_started = True
            await trio.lowlevel.checkpoint()
            return Start(audio_format=AUDIO_FORMAT, options=self._options)
        while True:
            text, self._waiting_text = self._waiting_text, None
            if text is None:
                text = await self._recv_message()
                if (notice := self._messages.count(trio.current_time())) is not None:
                    self._waiting_text = text
                    return notice
            command = self._read(text)
            if not (isinstance(command, Stop) and self._is_stopped):
                self._follow(command)
                return command

    async def send_audio(self, frame: AudioFrame) -> None:
        """Play audio at 48 kHz to the caller.

        Raises:
            TransportBrokenError: the caller went away.
            InvalidFrameError: the frame is not at 48 kHz.
        """
        await self._peer.send_audio(frame)

    def clear_audio(self) -> int:
        """Stop playing at once; return how many milliseconds were not played."""
        return self._peer.clear_audio()

    async def send_text(self, event: SessionEvent) -> None:
        """Send an event as JSON; after :class:`SessionClosed` the connection is closed.

        Raises:
            TransportBrokenError: the caller went away.
        """
        await self._peer.send_message(encode_event(event))
        if isinstance(event, SessionClosed):
            await self.aclose()

    async def aclose(self) -> None:
        """Close; what was told just before still reaches a caller who listens."""
        if not self._is_closed:
            self._is_closed = True
            with trio.move_on_after(LAST_MESSAGES_SECONDS, shield=True):
                await self._peer.drain_messages()
        await self._peer.aclose()

    async def _recv_message(self) -> str:
        try:
            return await self._peer.recv_message()
        except CallerError:
            if self._fault_told.is_set():
                raise TransportBrokenError("the call never connected") from None
            self._fault_told.set()
            raise

    def _read(self, text: str) -> Command:
        try:
            size = len(text.encode(errors="surrogatepass"))
            if size > MAX_TEXT_BYTES:
                raise MessageTooLargeError(
                    f"a text message of {size} bytes is over the limit of {MAX_TEXT_BYTES}"
                )
            position_seconds = self._peer.received_samples / RATE
            return parse_message(text, position_seconds=position_seconds, defaults=self._options)
        except UnknownTypeError as error:
            self._unknown_types += 1
            if self._unknown_types < MAX_UNKNOWN_TYPES:
                raise
            raise TooManyUnknownTypesError(
                f"{self._unknown_types} messages were of unknown type; this is voice-agent protocol v1",
                field=error.field,
            ) from None

    def _follow(self, command: Command) -> None:
        match command:
            case Start():
                raise AlreadyStartedError("the call was started by its signalling; it can't be changed")
            case TypedText() | Flush() if self._is_stopped:
                raise SessionClosedError("stop was sent; no text or flush can follow")
            case Stop():
                self._is_stopped = True
                self._audio_deadline = trio.current_time() + LAST_AUDIO_SECONDS
                self._audio_scope.deadline = self._audio_deadline
