"""AudioReceiver: takes the place of aiortc's RTCRtpReceiver for the one audio stream of a call.

aiortc's own starts a non-daemon thread for each stream, puts every decoded frame through a second unbounded queue, and
has a jitter buffer that gives up 100 ms for one lost packet. This one keeps the same face to the DTLS transport and
the peer connection (those underscore methods; hence the exact version pin), sends receiver reports (RFC 3550, section
6.4.2), and hands the packets to :class:`~voice_agent.transports.webrtc.receive.ReceiveBuffer`. Opus is decoded
here, on the media thread: 20 ms take about 0.1 ms, less than handing them to another thread and back.
"""

# ruff: noqa: SLF001  # aiortc's and aioice's internals are used here, which is why their versions are pinned exactly

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import structlog
from aiortc.rtcrtpparameters import RTCRtpReceiveParameters
from aiortc.rtcrtpreceiver import StreamStatistics
from aiortc.rtp import AnyRtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSrPacket, RtpPacket

from voice_agent.audio.opus import OpusDecoder
from voice_agent.core.errors import BadAudioError
from voice_agent.core.frames import AudioFrame, Encoding
from voice_agent.transports.webrtc.concealment import Concealer
from voice_agent.transports.webrtc.receive import (
    RATE,
    Concealed,
    ReceiveBuffer,
    Release,
    RtpAudio,
    Speech,
)

MAX_REPORTED_STREAMS: Final = 8
MAX_FRAME_SAMPLES: Final = RATE // 10
"""Long silence is handed on in pieces of 100 ms."""

log = structlog.get_logger(__name__)


class AudioReceiver:
    """One call's received audio, on the media thread; ``on_audio`` gets mono int16 at 48 kHz without gaps."""

    def __init__(self, transport: Any, on_audio: Callable[[AudioFrame], None]) -> None:
        self.track = None
        self.transport = transport
        self.buffer = ReceiveBuffer()
        self.jitter_seconds = 0.0
        self.heard_at: float | None = None
        """When the last audio packet came, on the loop's clock."""
        self._track = None
        self._enabled = True
        self._on_audio = on_audio
        self._loop = asyncio.get_running_loop()
        self._decoder = OpusDecoder(1)
        self._concealer = Concealer()
        self._payload_types: frozenset[int] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._reports_task: asyncio.Task[None] | None = None
        self._rtcp_ssrc: int | None = None
        self._streams: dict[int, StreamStatistics] = {}
        self._sender_reports: dict[int, tuple[int, float]] = {}

    # -- what the peer connection calls ---------------------------------------------------------------------------

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        """Begin to receive."""
        if self._reports_task is None:
            self._payload_types = frozenset(
                codec.payloadType
                for codec in parameters.codecs
                if codec.mimeType.lower() == "audio/opus" and codec.payloadType is not None
            )
            self.transport._register_rtp_receiver(self, parameters)
            self._reports_task = asyncio.ensure_future(self._report())

    async def stop(self) -> None:
        """Receive no more."""
        self._stop_timer()
        if self._reports_task is not None:
            self.transport._unregister_rtp_receiver(self)
            self._reports_task.cancel()
            await asyncio.wait([self._reports_task])

    def setTransport(self, transport: Any) -> None:  # noqa: N802  # aiortc's name
        """Use the bundle's transport."""
        self.transport = transport

    async def getStats(self) -> dict[str, Any]:  # noqa: N802  # aiortc's name
        """Nothing: :mod:`statistics` asks the parts themselves."""
        return {}

    def _set_rtcp_ssrc(self, ssrc: int) -> None:
        self._rtcp_ssrc = ssrc

    def _handle_disconnect(self) -> None:
        self._stop_timer()

    async def _handle_rtcp_packet(self, packet: AnyRtcpPacket) -> None:
        if isinstance(packet, RtcpSrPacket) and packet.ssrc in self._streams:
            middle = (packet.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
            self._sender_reports[packet.ssrc] = (middle, time.monotonic())

    async def _handle_rtp_packet(self, packet: RtpPacket, arrival_time_ms: int) -> None:  # noqa: ARG002
        if packet.payload_type not in self._payload_types or not packet.payload:
            return
        now = self._loop.time()
        self.heard_at = now
        self._count(packet)
        rtp = RtpAudio(packet.ssrc, packet.sequence_number, packet.timestamp, packet.payload)
        if self.buffer.push(rtp, now):
            self._hand_on(self.buffer.release(now))
            self._set_timer()

    # -- the audio ------------------------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        """Wake when media time must pass without a packet.

        An armed timer that is too early is left: it looks again and re-arms, which costs less than one for each packet.
        """
        wake_at = self.buffer.wake_at
        if wake_at is None:
            return
        if self._timer is not None:
            if self._timer.when() <= wake_at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(wake_at, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._hand_on(self.buffer.release(self._loop.time()))
        self._set_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hand_on(self, released: list[Release]) -> None:
        for item in released:
            samples = self._sound(item)
            for start in range(0, len(samples), MAX_FRAME_SAMPLES):
                piece = samples[start : start + MAX_FRAME_SAMPLES]
                self._on_audio(AudioFrame(piece, RATE, item.position + start, Encoding.OPUS))

    def _sound(self, item: Release) -> np.ndarray[Any, np.dtype[np.int16]]:
        if isinstance(item, Speech):
            try:
                decoded = self._decoder.decode(item.payload)[item.skip :]
            except BadAudioError:
                self.buffer.counts.malformed += 1
                self._decoder = OpusDecoder(1)
                return self._concealer.conceal(item.samples)
            return self._concealer.smooth(decoded)
        if isinstance(item, Concealed):
            return self._concealer.conceal(item.samples)
        return self._concealer.smooth(np.zeros(item.samples, np.int16))

    # -- reports --------------------------------------------------------------------------------------------------

    def _count(self, packet: RtpPacket) -> None:
        stream = self._streams.get(packet.ssrc)
        if stream is None:
            if len(self._streams) >= MAX_REPORTED_STREAMS:
                return
            stream = self._streams[packet.ssrc] = StreamStatistics(RATE)
        stream.add(packet)
        self.jitter_seconds = stream.jitter / RATE

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(0.5 + random.random())  # noqa: S311  # RFC 3550, section 6.2: randomised
            reports = [self._describe(ssrc, stream) for ssrc, stream in self._streams.items()]
            if reports and self._rtcp_ssrc is not None:
                try:
                    await self.transport._send_rtp(bytes(RtcpRrPacket(ssrc=self._rtcp_ssrc, reports=reports)))
                except ConnectionError:
                    return

    def _describe(self, ssrc: int, stream: StreamStatistics) -> RtcpReceiverInfo:
        last_report, came_at = self._sender_reports.get(ssrc, (0, 0.0))
        delay = time.monotonic() - came_at if last_report else 0.0
        return RtcpReceiverInfo(
            ssrc=ssrc,
            fraction_lost=stream.fraction_lost,
            packets_lost=stream.packets_lost,
            highest_sequence=stream.max_seq or 0,
            jitter=stream.jitter,
            lsr=last_report,
            dlsr=int(delay * 65536) & 0xFFFFFFFF,
        )
