"""EventsChannel: the data channel ``events`` of a call, on the media thread (RFC 8831, RFC 8832).

aiortc trusts what a data channel brings: text that is no UTF-8, a second opening of an open stream or an unknown
stream raises inside its transport and ends the call. :func:`guard_sctp` stands in front of it.
"""

# ruff: noqa: SLF001  # aiortc's and aioice's internals are used here, which is why their versions are pinned exactly

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog
from aiortc import RTCDataChannel
from aiortc.rtcsctptransport import (
    SCTP_DATA_FIRST_FRAG,
    SCTP_DATA_LAST_FRAG,
    DataChunk,
    InboundStream,
    RTCSctpCapabilities,
    RTCSctpTransport,
    tsn_plus_one,
)

LABEL: Final = "events"
MAX_CHANNELS: Final = 8
MAX_EARLY_MESSAGES: Final = 256
"""Messages that wait for the channel to be opened."""

_DCEP: Final = 50
_STRING: Final = 51
_OPEN: Final = 0x03
_ACK: Final = 0x02
_OPEN_BYTES: Final = 12
_LOW_SHARE: Final = 2

log = structlog.get_logger(__name__)


class EventsChannel:
    """The one channel that is served. ``on_text`` gets each message; ``on_low`` is called when waiting text has left."""

    def __init__(
        self, *, max_buffered_bytes: int, on_text: Callable[[str], None], on_low: Callable[[], None]
    ) -> None:
        self.dropped = 0
        self._max_buffered_bytes = max_buffered_bytes
        self._on_text = on_text
        self._on_low = on_low
        self._channel: RTCDataChannel | None = None
        self._early: deque[str] = deque()
        self._unheard: deque[str] | None = None
        """What was sent on a channel that we opened, until the caller is known to use it."""
        self.was_refused = False
        """Whether the caller opened a channel that is not served."""
        self.sent_bytes = 0
        """Bytes of text that were handed over, whether they have left or not."""

    @property
    def is_open(self) -> bool:
        """Whether text can be sent now."""
        return self._channel is not None and self._channel.readyState == "open"

    @property
    def has_channel(self) -> bool:
        """Whether a channel exists, open or opening."""
        return self._channel is not None and self._channel.readyState in ("connecting", "open")

    @property
    def is_gone(self) -> bool:
        """Whether there is no channel, not even one that is being closed."""
        return self._channel is None or self._channel.readyState == "closed"

    @property
    def buffered_bytes(self) -> int:
        """Bytes that have not left; safe to read from another thread."""
        return self._channel.bufferedAmount if self._channel is not None else 0

    def adopt(self, channel: RTCDataChannel) -> None:
        """Serve a channel that the caller opened if it is the one, otherwise close it.

        It may come after we gave up waiting and opened ours: its opening was lost on the way and sent again. The caller
        need not listen to ours then, so what was sent there is sent again.
        """
        is_reliable = channel.ordered and channel.maxRetransmits is None and channel.maxPacketLifeTime is None
        is_taken = self.has_channel and self._unheard is None
        if channel.label != LABEL or not is_reliable or is_taken:
            log.info("data_channel_refused", label=channel.label[:40], is_reliable=is_reliable)
            self.was_refused = True
            channel.close()
            return
        if self._channel is not None and self._unheard is not None:
            self._early.extendleft(reversed(self._unheard))
            self._channel.close()
        self._unheard = None
        self._serve(channel)

    def open_own(self, channel: RTCDataChannel) -> None:
        """Serve a channel that we opened, because the caller opened none."""
        self._unheard = deque(maxlen=MAX_EARLY_MESSAGES)
        self._serve(channel)

    def _serve(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        channel.bufferedAmountLowThreshold = self._max_buffered_bytes // _LOW_SHARE
        channel.on("message", self._receive)
        channel.on("bufferedamountlow", self._on_low)
        channel.on("close", self._on_low)
        channel.on("open", self._send_early)
        self._send_early()

    def send(self, text: str) -> None:
        """Send, or keep until the channel opens; when too many messages wait for that, the oldest goes."""
        self.sent_bytes += len(text.encode())
        if self.is_open:
            self._send_now(text)
            return
        self._early.append(text)
        if len(self._early) > MAX_EARLY_MESSAGES:
            self._early.popleft()
            self.dropped += 1

    def _send_early(self) -> None:
        while self.is_open and self._early:
            self._send_now(self._early.popleft())

    def _send_now(self, text: str) -> None:
        assert self._channel is not None  # noqa: S101 (narrows what is_open found)
        if self._unheard is not None:
            self._unheard.append(text)
        try:
            self._channel.send(text)
        except ValueError:  # longer than the caller's own limit
            self.dropped += 1

    def _receive(self, message: str | bytes) -> None:
        self._unheard = None
        if isinstance(message, str):
            self._on_text(message)
        else:
            log.info("binary_message_ignored", size_bytes=len(message))


def guard_sctp(sctp: RTCSctpTransport, *, max_message_bytes: int, on_flood: Callable[[], None]) -> None:
    """Make an association refuse what aiortc would stumble over; a bad channel is closed, the call goes on.

    A message that is too long is noticed before it is whole, and the rest of it is thrown away as it comes. ``on_flood``
    is called when more unfinished fragments came than the caller was allowed to send.
    """
    receive: Callable[[int, int, bytes], Awaitable[None]] = sctp._data_channel_receive
    receive_chunk: Callable[[Any], Awaitable[None]] = sctp._receive_data_chunk

    async def guarded_receive(stream_id: int, protocol: int, data: bytes) -> None:
        if protocol == _DCEP:
            if _is_sound_control(sctp, stream_id, data):
                await receive(stream_id, protocol, data)
            return
        channel = sctp._data_channels.get(stream_id)
        if channel is None or channel.readyState != "open":
            return
        if len(data) > max_message_bytes or (protocol == _STRING and not _is_utf8(data)):
            log.info("data_channel_closed", label=channel.label[:40], size_bytes=len(data))
            channel.close()
            return
        await receive(stream_id, protocol, data)

    async def guarded_chunk(chunk: DataChunk) -> None:
        stream, window_bytes = sctp._get_inbound_stream(chunk.stream_id), sctp._advertised_rwnd
        await receive_chunk(chunk)
        if isinstance(stream, _Discarding):
            sctp._advertised_rwnd = window_bytes
        elif _first_message_bytes(stream) > max_message_bytes:
            _throw_away(sctp, chunk.stream_id, stream)
        if sctp._advertised_rwnd < 0:
            on_flood()

    sctp._data_channel_receive = guarded_receive  # type: ignore[method-assign,assignment]
    sctp._receive_data_chunk = guarded_chunk  # type: ignore[method-assign]
    sctp.getCapabilities = lambda: RTCSctpCapabilities(maxMessageSize=max_message_bytes)  # type: ignore[method-assign]


class _Discarding(InboundStream):
    """In the place of a stream whose message is too long: keeps nothing, until the stream is reset."""

    def add_chunk(self, chunk: DataChunk) -> None:
        """Forget it; it is acknowledged all the same, so that the caller gets to the end of its message."""


def _throw_away(sctp: RTCSctpTransport, stream_id: int, stream: InboundStream) -> None:
    """Close a channel whose message is too long, and forget what came of it."""
    size_bytes = sum(len(held.user_data) for held in stream.reassembly)
    sctp._advertised_rwnd += size_bytes
    sctp._inbound_streams[stream_id] = _Discarding()
    channel = sctp._data_channels.get(stream_id)
    if channel is not None:
        log.info("data_channel_closed", label=channel.label[:40], size_bytes=size_bytes)
        channel.close()


def _first_message_bytes(stream: InboundStream) -> int:
    """How much there is of the message that a stream waits for, counted up to its first gap."""
    size_bytes = 0
    expected: int | None = None
    for chunk in stream.reassembly:
        is_next = chunk.flags & SCTP_DATA_FIRST_FRAG if expected is None else chunk.tsn == expected
        if not is_next:
            break
        size_bytes += len(chunk.user_data)
        if chunk.flags & SCTP_DATA_LAST_FRAG:
            break
        expected = tsn_plus_one(chunk.tsn)
    return size_bytes


def _is_sound_control(sctp: RTCSctpTransport, stream_id: int, data: bytes) -> bool:
    """Whether a control message (RFC 8832, section 5) is one that aiortc can take."""
    is_known = stream_id in sctp._data_channels
    if data[:1] == bytes([_ACK]):
        return is_known
    if data[:1] != bytes([_OPEN]) or len(data) < _OPEN_BYTES:
        return False
    label_end = _OPEN_BYTES + int.from_bytes(data[8:10])
    are_names_sound = _is_utf8(data[_OPEN_BYTES:label_end]) and _is_utf8(data[label_end:])
    return not is_known and len(sctp._data_channels) < MAX_CHANNELS and are_names_sound


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
