"""PeerConnection: the media thread's side of one call, around aiortc's RTCPeerConnection.

Everything here runs in the media thread's event loop. aiortc starts tasks and forgets them; each task that is started
on behalf of a call is remembered here (:data:`OWNER`, :func:`make_owned_task`), so that closing can wait for them all.
"""

# ruff: noqa: SLF001  # aiortc's and aioice's internals are used here, which is why their versions are pinned exactly

import asyncio
import weakref
from collections.abc import Coroutine, Sequence
from contextvars import Context, ContextVar
from typing import Any, Final, Protocol

import structlog
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.exceptions import OperationError
from aiortc.rtcconfiguration import RTCIceTransportPolicy
from aiortc.rtcrtptransceiver import RTCRtpTransceiver

from voice_agent.core.errors import (
    IceTimeoutError,
    InvalidSdpError,
    NoCommonCodecError,
    TooManyCandidatesError,
    TransportBrokenError,
    UnsupportedMediaError,
    VoiceAgentError,
)
from voice_agent.core.frames import AudioFrame
from voice_agent.core.network import NetworkStatistics
from voice_agent.transports.webrtc.addresses import (
    allowed_addresses,
    is_usable_host,
    limit_gathering,
    read_candidate,
)
from voice_agent.transports.webrtc.candidates import AddressPolicy, is_local_name
from voice_agent.transports.webrtc.channel import LABEL, EventsChannel, guard_sctp
from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.liveness import Liveness
from voice_agent.transports.webrtc.local_names import resolve
from voice_agent.transports.webrtc.offer import Candidate, ServedOffer, check_transport, read_offer
from voice_agent.transports.webrtc.outbound import OutboundBuffer, OutboundTrack
from voice_agent.transports.webrtc.rtp_receiver import AudioReceiver

WATCH_SECONDS: Final = 0.5
OPEN_CHANNEL_AFTER_SECONDS: Final = 4.0
"""A caller that negotiated a data section but has no channel for this time gets ours. A lost opening is sent again after
up to three seconds (RFC 4960, section 15: RTO.Initial)."""
LAST_TASKS_SECONDS: Final = 1.0
MAX_LOOK_UPS: Final = 4
"""How many names of one call are looked up at the same time; a browser has one for each of its addresses."""
DRAIN_POLL_SECONDS: Final = 0.005

_RECEIVER_ATTRIBUTE: Final = "_RTCRtpTransceiver__receiver"

log = structlog.get_logger(__name__)

OWNER: ContextVar["PeerConnection | None"] = ContextVar("owner", default=None)


def make_owned_task(
    loop: asyncio.AbstractEventLoop,
    coroutine: Coroutine[Any, Any, Any],
    context: Context | None = None,
    **_options: object,
) -> "asyncio.Task[Any]":
    """Make a task and remember it with the call that it belongs to; a task factory for the media thread's loop."""
    task = asyncio.Task(coroutine, loop=loop, context=context)
    owner = OWNER.get() if context is None else context.get(OWNER)
    if owner is not None:
        owner.tasks.add(task)
    return task


class PeerEvents(Protocol):
    """Whom a connection tells; called in the media thread, must not wait."""

    def on_audio(self, frame: AudioFrame) -> None:
        """Audio came."""

    def on_text(self, text: str) -> None:
        """A data-channel message came."""

    def on_low(self) -> None:
        """There is room for text or audio again."""

    def on_connected(self) -> None:
        """ICE and DTLS are done."""

    def on_end(self, error: VoiceAgentError) -> None:
        """The call's connection is over."""


class PeerConnection:
    """One call, on the media thread; made inside its loop."""

    def __init__(self, config: PeerConfig, outbound: OutboundBuffer, events: PeerEvents) -> None:
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self.channel = EventsChannel(
            max_buffered_bytes=config.max_buffered_bytes, on_text=events.on_text, on_low=events.on_low
        )
        self._config = config
        self._events = events
        self._loop = asyncio.get_running_loop()
        self._receiver: AudioReceiver | None = None
        self._track = OutboundTrack(outbound)
        self._mids: tuple[str, ...] = ()
        self._candidates = 0
        self._own_tasks: set[asyncio.Task[None]] = set()
        self._adding: set[asyncio.Task[None]] = set()
        self._look_ups = asyncio.Semaphore(MAX_LOOK_UPS)
        self._is_complete = False
        self._setup: asyncio.Task[str] | None = None
        self._is_over = False
        self._closing: asyncio.Task[None] | None = None
        self._connected_at: float | None = None
        self._without_channel_since: float | None = None
        self._liveness: Liveness | None = None
        OWNER.set(self)
        self._pc = RTCPeerConnection(
            RTCConfiguration(
                iceServers=[
                    RTCIceServer(urls=list(s.urls), username=s.username, credential=s.credential)
                    for s in config.ice_servers
                ],
                iceTransportPolicy=(
                    RTCIceTransportPolicy.RELAY if config.is_relay_only else RTCIceTransportPolicy.ALL
                ),
            )
        )
        self._pc.on("connectionstatechange", self._follow_state)
        self._pc.on("datachannel", self._adopt)

    # -- signalling -----------------------------------------------------------------------------------------------

    async def answer(self, offer_sdp: str) -> str:
        """As :meth:`voice_agent.transports.webrtc.peer.Peer.answer`."""
        OWNER.set(self)
        if self._setup is not None or self._is_over:
            raise InvalidSdpError("this call has its offer already")
        # Not cancelled with its caller: sockets that are half made would be lost. close() waits for it.
        self._setup = asyncio.create_task(self._set_up(offer_sdp))
        return await asyncio.shield(self._setup)

    async def _set_up(self, offer_sdp: str) -> str:
        offer = read_offer(offer_sdp, max_candidates=self._config.max_candidates)
        check_transport(offer)
        await self._take_offer(offer)
        self._mids = offer.mids
        answer = await self._make_answer()
        self._start(self._add_first_candidates(offer))
        self._start(self._watch())
        return answer

    async def _take_offer(self, offer: ServedOffer) -> None:
        try:
            await self._pc.setRemoteDescription(RTCSessionDescription(sdp=offer.sdp, type="offer"))
        except OperationError as error:
            raise NoCommonCodecError("the offer's audio has no Opus") from error
        except Exception as error:  # aiortc raises assertions, key, attribute and value errors
            raise InvalidSdpError(f"the offer can't be read ({type(error).__name__})") from error
        transceivers = self._pc.getTransceivers()
        if [transceiver.kind for transceiver in transceivers] != ["audio"]:
            raise UnsupportedMediaError("offer one audio section, and no other media")
        [transceiver] = transceivers
        if all(codec.mimeType.lower() != "audio/opus" for codec in transceiver._codecs):
            raise NoCommonCodecError("the offer's audio has no Opus")
        transceiver._codecs = [
            codec for codec in transceiver._codecs if codec.mimeType.lower() == "audio/opus"
        ]
        self._replace_receiver(transceiver)
        self._pc.addTrack(self._track)
        if self._pc.sctp is not None:
            guard_sctp(
                self._pc.sctp,
                max_message_bytes=self._config.max_message_bytes,
                on_flood=lambda: self._end(TransportBrokenError("the caller floods the data channel")),
            )

    def _replace_receiver(self, transceiver: RTCRtpTransceiver) -> None:
        receiver = AudioReceiver(transceiver.receiver.transport, self._events.on_audio)
        receiver._set_rtcp_ssrc(transceiver.sender._ssrc)
        setattr(transceiver, _RECEIVER_ATTRIBUTE, receiver)
        self._receiver = receiver

    async def _make_answer(self) -> str:
        for transport in self._transports():
            connection = transport.transport.iceGatherer._connection
            limit_gathering(connection, self._config)
        try:
            await self._pc.setLocalDescription(await self._pc.createAnswer())
        except Exception as error:
            raise InvalidSdpError(f"the offer can't be answered ({type(error).__name__}: {error})") from error
        return str(self._pc.localDescription.sdp)

    def _transports(self) -> list[Any]:
        """The DTLS transports: one, or two for a caller that doesn't bundle."""
        found = [transceiver.receiver.transport for transceiver in self._pc.getTransceivers()]
        if self._pc.sctp is not None and self._pc.sctp.transport not in found:
            found.append(self._pc.sctp.transport)
        return found

    async def _add_first_candidates(self, offer: ServedOffer) -> None:
        self._adding |= {self._start(self._add_candidate(each)) for each in offer.candidates}
        if offer.is_complete:
            await self.add_candidates((), is_complete=True)

    async def add_candidates(
        self, lines: Sequence[str], *, is_complete: bool = False, mid: str | None = None
    ) -> None:
        """As :meth:`voice_agent.transports.webrtc.peer.Peer.add_candidates`."""
        OWNER.set(self)
        if not self._mids or self._is_over:
            raise InvalidSdpError("candidates came for a call without an answer")
        if self._candidates + len(lines) > self._config.max_candidates:
            raise TooManyCandidatesError(f"at most {self._config.max_candidates} candidates are tried")
        values = [line.removeprefix("a=").removeprefix("candidate:") for line in lines]
        for value in values:
            read_candidate(value)
        adding = {
            self._start(self._add_candidate(Candidate(mid=mid or self._mids[0], line=value)))
            for value in values
        }
        self._adding |= adding
        if is_complete and not self._is_complete:
            self._is_complete = True
            self._start(self._complete_candidates())

    async def _complete_candidates(self) -> None:
        """Say that no more come, behind those whose names are still being looked up."""
        if self._adding:
            await asyncio.wait(self._adding)
        await self._pc.addIceCandidate(None)

    async def _add_candidate(self, candidate: Candidate) -> None:
        """Add one; what can't be used (TCP, a name that is no ``.local``) is passed over, as RFC 8839 asks."""
        self._candidates += 1
        try:
            parsed = read_candidate(candidate.line)
            if parsed.protocol.lower() != "udp":
                return
            if is_local_name(parsed.ip):
                parsed.ip = await self._look_up(parsed.ip)
            if not is_usable_host(parsed.ip):
                return
            parsed.sdpMid = candidate.mid
            await self._pc.addIceCandidate(parsed)
        except (ValueError, OSError, InvalidSdpError) as error:
            log.info("candidate_ignored", reason=str(error))

    async def _look_up(self, name: str) -> str:
        """Return the address behind an mDNS name; empty when nobody answers, or with what no caller may name."""
        async with self._look_ups:
            address = await resolve(name, allowed_addresses(self._config))
        return address if address is not None and AddressPolicy().admits(address) else ""

    # -- while it lasts -------------------------------------------------------------------------------------------

    def send(self, text: str) -> None:
        """Send text on the data channel; dropped when the caller negotiated none."""
        if self._pc.sctp is None or self._is_over:
            self.channel.sent_bytes += len(text.encode())
            self.channel.dropped += 1
        else:
            OWNER.set(self)
            self.channel.send(text)
        self._events.on_low()

    async def drain(self) -> None:
        """Wait until the caller has acknowledged all text."""
        sctp = self._pc.sctp
        while (  # noqa: ASYNC110  # SCTP tells nobody when its queues are empty
            sctp is not None
            and not self._is_over
            and self.channel.is_open
            and (sctp._data_channel_queue or sctp._outbound_queue or sctp._sent_queue)
        ):
            await asyncio.sleep(DRAIN_POLL_SECONDS)

    def _follow_state(self) -> None:
        match self._pc.connectionState:
            case "connected":
                if self._connected_at is None:
                    self._connected_at = self._loop.time()
                    self._events.on_connected()
            case "failed":
                self._end(TransportBrokenError("the media connection failed"))
            case "closed":
                self._end(TransportBrokenError("the caller closed the media connection"))

    async def _watch(self) -> None:
        """End a call that never connects; afterwards :class:`Liveness` does, and a channel is opened if there is none."""
        started_at = self._loop.time()
        while self._connected_at is None:
            if self._loop.time() - started_at > self._config.setup_timeout_seconds:
                self._end(IceTimeoutError("the call was signalled, but its media never arrived"))
                return
            await asyncio.sleep(min(WATCH_SECONDS, self._config.setup_timeout_seconds / 4))
        self._liveness = Liveness(
            self._transports(),
            timeout_seconds=self._config.media_timeout_seconds,
            on_gone=lambda reason: self._end(TransportBrokenError(reason)),
        )
        self._start(self._liveness.watch())
        while not self._is_over:
            self._open_own_channel()
            await asyncio.sleep(WATCH_SECONDS)

    def _adopt(self, channel: RTCDataChannel) -> None:
        # It may come and go between two looks.
        self._without_channel_since = None
        self.channel.adopt(channel)

    def _open_own_channel(self) -> None:
        """Also for a caller whose channel was closed: ours must not cross the one that it opens again at once."""
        if self._pc.sctp is None or self._pc.sctp.state != "connected" or not self.channel.is_gone:
            self._without_channel_since = None
            return
        if self._without_channel_since is None:
            self._without_channel_since = self._loop.time()
        waited_seconds = self._loop.time() - self._without_channel_since
        if self.channel.was_refused or waited_seconds >= OPEN_CHANNEL_AFTER_SECONDS:
            self.channel.open_own(self._pc.createDataChannel(LABEL))

    def statistics(self, dropped_ms: int, messages_dropped: int) -> NetworkStatistics:
        """A snapshot; safe to call from another thread."""
        receiver = self._receiver
        if receiver is None:
            return NetworkStatistics()
        counts = receiver.buffer.counts
        round_trip_seconds = self._liveness.round_trip_seconds if self._liveness else None
        media_seconds = receiver.buffer.position / 48_000
        return NetworkStatistics(
            round_trip_ms=None if round_trip_seconds is None else round_trip_seconds * 1000,
            jitter_ms=receiver.jitter_seconds * 1000,
            packets_received=counts.received,
            packets_lost=counts.lost,
            packets_late=counts.late,
            packets_duplicate=counts.duplicates,
            packets_malformed=counts.malformed,
            stream_restarts=counts.restarts,
            concealed_ms=counts.concealed_samples // 48,
            silent_ms=counts.silent_samples // 48,
            dropped_ms=dropped_ms,
            bitrate=round(counts.received_bytes * 8 / media_seconds) if media_seconds else 0,
            packets_sent=self._track.packets_sent,
            messages_dropped=messages_dropped + self.channel.dropped,
        )

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task that ends with the call, at the latest before its sockets do."""
        task = asyncio.create_task(work)
        self._own_tasks.add(task)
        return task

    # -- the end --------------------------------------------------------------------------------------------------

    def _end(self, error: VoiceAgentError) -> None:
        if not self._is_over:
            self._is_over = True
            self._events.on_end(error)

    async def close(self) -> None:
        """Close, and wait until every task of the call has ended; idempotent."""
        if self._closing is None:
            OWNER.set(None)
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self._end(TransportBrokenError("the transport is closed"))
        if self._setup is not None and not self._setup.done():
            await asyncio.wait([self._setup], timeout=LAST_TASKS_SECONDS)
        self._cancel_own_tasks()
        try:
            async with asyncio.timeout(self._config.close_timeout_seconds):
                await self._pc.close()
        except Exception:
            log.exception("peer_close_failed")
        self._track.stop()
        await self._await_last_tasks()
        for transport in self._transports():
            for protocol in transport.transport._connection._protocols:
                protocol.transport.close()

    def _cancel_own_tasks(self) -> None:
        """A STUN request that is sent again on a closed socket would raise where nobody can catch it."""
        for task in self._own_tasks:
            task.cancel()
        if self._liveness is not None:
            self._liveness.stop()

    async def _await_last_tasks(self) -> None:
        """Wait for aiortc's tasks, which end by themselves once their connection is closed; stragglers are cancelled."""
        tasks = [task for task in self.tasks if not task.done()]
        if tasks:
            _, pending = await asyncio.wait(tasks, timeout=0.05)
            for task in pending:
                task.cancel()
            if pending:
                await asyncio.wait(pending, timeout=LAST_TASKS_SECONDS)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()
