"""Peer: a WebRTC caller's connection as the Trio side owns it."""

from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import trio

from voice_agent.core.errors import InvalidFrameError, TransportBrokenError, VoiceAgentError
from voice_agent.core.frames import AudioFrame
from voice_agent.core.network import NetworkStatistics
from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.connection import PeerConnection
from voice_agent.transports.webrtc.crossing import Crossing
from voice_agent.transports.webrtc.outbound import RATE, OutboundBuffer

if TYPE_CHECKING:
    from voice_agent.transports.webrtc.media_thread import MediaThread

FRAME_MS: Final = 20
GRACE_SECONDS: Final = 1.0
"""How much longer than the media thread itself the Trio side waits for a close."""


class Peer:
    """One call's connection; :meth:`MediaThread.open_peer` makes it, and its owner must call :meth:`aclose`.

    As a context manager it is closed when the block is left.
    """

    def __init__(self, media: "MediaThread", config: PeerConfig) -> None:
        self.connected = trio.Event()
        """Set when ICE and DTLS are done; also when the connection ended without."""
        self.received_samples = 0
        """How much of the call's media time has been received, at 48 kHz, read or not."""
        self.ended_by: VoiceAgentError | None = None
        """What ended the connection, once something has: :class:`IceTimeoutError` or :class:`TransportBrokenError`."""
        self._media = media
        self._config = config
        self._audio = Crossing[AudioFrame](config.max_waiting_audio_ms // FRAME_MS)
        self._messages = Crossing[str](config.max_waiting_messages)
        self._token = trio.lowlevel.current_trio_token()
        self._room = trio.lowlevel.ParkingLot()
        self.outbound = OutboundBuffer(config.max_outbound_audio_ms * RATE // 1000, self.on_low)
        self._connection: PeerConnection | None = None
        self._queued_bytes = 0
        self._is_closing = False
        self._closed = trio.Event()
        self._last_statistics = NetworkStatistics()

    # -- signalling -----------------------------------------------------------------------------------------------

    async def answer(self, offer_sdp: str) -> str:
        """Answer an offer; candidates are gathered before this returns.

        Raises:
            InvalidSdpError: the offer is malformed.
            UnsupportedMediaError: the offer asks for what can't be served (:class:`NoCommonCodecError`: no Opus).
            TooManyCandidatesError: more candidates than the limit.
        """
        return await self._media.call(self._open_connection().answer, offer_sdp)

    async def add_candidates(
        self, candidates: Sequence[str], *, is_complete: bool = False, mid: str | None = None
    ) -> None:
        """Add the caller's candidates (``candidate:…`` attribute values); ``is_complete`` says that no more come.

        They belong to the section ``mid``, or to the first one. Candidates of kinds that aren't used are passed over.

        Raises:
            InvalidSdpError: a candidate is malformed, or the call has no answer yet.
            TooManyCandidatesError: more than the limit over the whole call.
        """
        connection = self._open_connection()

        async def add() -> None:
            await connection.add_candidates(candidates, is_complete=is_complete, mid=mid)

        await self._media.call(add)

    # -- audio ----------------------------------------------------------------------------------------------------

    async def recv_audio(self) -> AudioFrame:
        """Return the next received audio: 48 kHz int16 mono, without gaps; ``position`` counts media time.

        Raises:
            TransportBrokenError: the connection is over, and everything received was returned.
            IceTimeoutError: the connection never came to be.
        """
        return await self._audio.take()

    async def send_audio(self, frame: AudioFrame) -> None:
        """Queue audio to be played; waits while ``max_outbound_audio_ms`` wait already.

        Raises:
            InvalidFrameError: the frame is not at 48 kHz.
            TransportBrokenError: the connection is over.
        """
        if frame.sample_rate != RATE:
            raise InvalidFrameError(
                f"a frame at {frame.sample_rate} Hz can't be played into a call at {RATE} Hz",
                field="sample_rate",
            )
        await trio.lowlevel.checkpoint()
        while not self.outbound.has_room:
            self._check_open()
            await self._room.park()
        self._check_open()
        samples = frame.to_int16()
        self.outbound.put(samples if samples.ndim == 1 else np.rint(samples.mean(axis=1)).astype(np.int16))

    def clear_audio(self) -> int:
        """Play nothing of what waits, from the next packet on; return how many milliseconds that was."""
        cleared = self.outbound.clear() * 1000 // RATE
        self._room.unpark_all()
        return cleared

    # -- the data channel -----------------------------------------------------------------------------------------

    async def recv_message(self) -> str:
        """Return the next text of the data channel; raises as :meth:`recv_audio`."""
        return await self._messages.take()

    async def send_message(self, text: str) -> None:
        """Send text on the data channel ``events``; waits while ``max_buffered_bytes`` have not left.

        Without a data section in the offer it goes nowhere, counted in ``stats.messages_dropped``.

        Raises:
            TransportBrokenError: the connection is over, or the caller reads nothing for ``send_timeout_seconds``.
        """
        await trio.lowlevel.checkpoint()
        self._check_open()
        connection = self._open_connection()
        self._queued_bytes += len(text.encode())
        self._media.call_soon(connection.send, text)
        with trio.move_on_after(self._config.send_timeout_seconds) as scope:
            while self._unsent_bytes(connection) > self._config.max_buffered_bytes:
                self._check_open()
                await self._room.park()
        if scope.cancelled_caught:
            raise TransportBrokenError("the caller reads nothing from the data channel")

    async def drain_messages(self) -> None:
        """Wait until the caller has acknowledged every message, or the connection is over; set a deadline."""
        if self.ended_by is None and self._connection is not None:
            with suppress(TransportBrokenError):
                await self._media.abandonable_call(self._connection.drain)

    def _unsent_bytes(self, connection: PeerConnection) -> int:
        return self._queued_bytes - connection.channel.sent_bytes + connection.channel.buffered_bytes

    # -- state and end --------------------------------------------------------------------------------------------

    @property
    def stats(self) -> NetworkStatistics:
        """A snapshot of the network's figures; after the close the last one."""
        if self._connection is not None:
            self._last_statistics = self._connection.statistics(
                self._audio.dropped * FRAME_MS, self._messages.dropped
            )
        return self._last_statistics

    async def aclose(self) -> None:
        """Close: idempotent, done even when cancelled, within ``close_timeout_seconds`` and a second."""
        if self._is_closing:
            with trio.CancelScope(shield=True):
                await self._closed.wait()
            return
        self._is_closing = True
        self.on_end(TransportBrokenError("the transport is closed"))
        timeout_seconds = self._config.close_timeout_seconds + GRACE_SECONDS
        is_closed = self._connection is None
        with trio.move_on_after(timeout_seconds, shield=True):
            if self._connection is not None:
                await self._media.abandonable_call(self._connection.close)
                is_closed = True
        _ = self.stats
        self._media.forget(self, is_closed=is_closed)
        self._closed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def attach(self, connection: PeerConnection) -> None:
        """Take the media thread's side; called by :meth:`MediaThread.open_peer`."""
        self._connection = connection

    def _open_connection(self) -> PeerConnection:
        if self._connection is None or self._is_closing:
            raise TransportBrokenError("the transport is closed")
        return self._connection

    def _check_open(self) -> None:
        if self.ended_by is not None:
            raise TransportBrokenError(self.ended_by.message)

    # -- called in the media thread -------------------------------------------------------------------------------

    def on_audio(self, frame: AudioFrame) -> None:
        """Hand audio over."""
        self.received_samples = frame.end
        self._audio.put(frame)

    def on_text(self, text: str) -> None:
        """Hand a message over."""
        self._messages.put(text)

    def on_low(self) -> None:
        """Let waiting senders look again."""
        self._soon(self._room.unpark_all)

    def on_connected(self) -> None:
        """Say that media can flow."""
        self._soon(self.connected.set)

    def on_end(self, error: VoiceAgentError) -> None:
        """End both queues behind what they hold; the first end counts."""
        if self.ended_by is None:
            self.ended_by = error
        self._audio.end(self.ended_by)
        self._messages.end(self.ended_by)
        self._soon(self.connected.set)
        self._soon(self._room.unpark_all)

    def _soon(self, call: object) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call, idempotent=True)  # type: ignore[arg-type]
