"""ReceiveBuffer: RTP packets in, a gapless stream of media time out; pure, and told the time.

The listener is a recogniser, not an ear, so nothing is held back to be played evenly: a packet that comes in order is
released at once. Only a gap waits, for as long as this call's packets have lately been late, and at most 140 ms; then
it is concealed. After a loss there is therefore no delay left to shrink.

Positions count samples at 48 kHz (the RTP clock of Opus, RFC 7587 section 4.1) since the first packet. They follow the
sender's timestamps; while no packets come (discontinuous transmission, a muted or stalled sender) they follow our own
clock behind the fastest packet seen, so that silence is heard as silence when it happens.
"""

import math
from collections.abc import Iterator
from typing import Final

import attrs

from voice_agent.audio.opus import packet_samples
from voice_agent.core.errors import BadAudioError

RATE: Final = 48_000
STEP_SAMPLES: Final = RATE // 50
"""20 ms: what silence and concealment are cut into."""

MIN_PATIENCE_SECONDS: Final = 0.040
MAX_PATIENCE_SECONDS: Final = 0.140
"""With the packet that reveals a gap (20 ms behind it), a gap is closed within 160 ms."""
PATIENCE_HALF_LIFE_SECONDS: Final = 2.0
"""A network that stops reordering is soon trusted again."""
LATENESS_MARGIN: Final = 1.25

DTX_MARK_BYTES: Final = 2
"""A packet of so few bytes holds no frame: the encoder says that it falls silent (RFC 6716, section 2.1.9)."""
STALL_PATIENCE_SECONDS: Final = 0.4
"""Without that mark, missing packets are probably on their way: a stalled network delivers them in a burst."""
STALL_CONCEALED_SAMPLES: Final = STEP_SAMPLES * 3

MAX_WAITING_PACKETS: Final = 128
MAX_SEQUENCE_AHEAD: Final = 3_000
MAX_SEQUENCE_BEHIND: Final = 500
"""RFC 3550, appendix A.1: beyond these it is another stream, if the next packet confirms it."""
MAX_AHEAD_SAMPLES: Final = 2 * RATE
MAX_BEHIND_SAMPLES: Final = 2 * RATE
"""Timestamps that differ more from our clock have jumped, and are taken up anew where the stream stands."""
ALL_LATE_SECONDS: Final = 0.2
"""A burst after a stall is over at once; a sender whose every packet is late for this long has paused its clock."""
OTHER_STREAM_QUIET_SECONDS: Final = 0.5
"""An SSRC that was left may come back once the newer one has been quiet for this long."""
ANCHOR_WINDOW_SECONDS: Final = 10.0


@attrs.frozen
class RtpAudio:
    """What matters of an RTP packet (RFC 3550, section 5.1)."""

    ssrc: int
    sequence: int
    timestamp: int
    payload: bytes


@attrs.frozen
class Speech:
    """Decode ``payload`` and leave out its first ``skip`` samples; what remains stands at ``position``."""

    position: int
    samples: int
    payload: bytes
    skip: int = 0


@attrs.frozen
class Concealed:
    """Packets were lost: make up ``samples``. ``next_payload``, where known, may hold the last of them (in-band FEC)."""

    position: int
    samples: int
    next_payload: bytes | None = None


@attrs.frozen
class Silence:
    """The sender was silent."""

    position: int
    samples: int


Release = Speech | Concealed | Silence


@attrs.frozen
class _Waiting:
    position: int
    samples: int
    payload: bytes
    arrived_at: float


@attrs.define
class ReceiveCounts:
    """What happened to a call's packets since it began; samples are at 48 kHz."""

    received: int = 0
    received_bytes: int = 0
    lost: int = 0
    late: int = 0
    duplicates: int = 0
    malformed: int = 0
    restarts: int = 0
    """New SSRCs, sequence restarts and timestamp jumps."""
    concealed_samples: int = 0
    silent_samples: int = 0


class _Anchor:
    """The fastest packet lately: the least of arrival minus media time, over the last 10 to 20 seconds."""

    def __init__(self) -> None:
        self._current: float | None = None
        self._previous: float | None = None
        self._turns_at = 0.0

    def see(self, end: int, now: float) -> None:
        if now >= self._turns_at:
            self._previous, self._current = self._current, None
            self._turns_at = now + ANCHOR_WINDOW_SECONDS
        origin = now - end / RATE
        self._current = origin if self._current is None else min(self._current, origin)

    def end_expected(self, now: float) -> float:
        """Samples that should have come by ``now``."""
        origin = min(origin for origin in (self._current, self._previous) if origin is not None)
        return (now - origin) * RATE

    def reached_at(self, end: float) -> float:
        """When that many samples should have come."""
        origin = min(origin for origin in (self._current, self._previous) if origin is not None)
        return origin + end / RATE


class ReceiveBuffer:
    """One call's packets. Call :meth:`push` for each, then :meth:`release`; and again at :attr:`wake_at`."""

    def __init__(self) -> None:
        self.counts = ReceiveCounts()
        self.position = 0
        """Media time released, in samples."""
        self._ssrc: int | None = None
        self._left_ssrcs: set[int] = set()
        self._anchor = _Anchor()
        self._waiting: dict[int, _Waiting] = {}
        self._next_sequence = 0
        self._highest_sequence = 0
        self._highest_timestamp = 0
        self._highest_position = 0
        self._highest_end = 0
        self._given_up: dict[int, float] = {}
        self._suspect: int | None = None
        self._last_arrival = 0.0
        self._is_dtx = False
        self._stall_start: int | None = None
        self._late_since: float | None = None
        self._lateness_seconds = 0.0
        self._lateness_at = 0.0
        self._flushed: list[Release] = []

    @property
    def patience_seconds(self) -> float:
        """How long a gap waits now."""
        age = self._last_arrival - self._lateness_at
        lateness = self._lateness_seconds * math.exp2(-age / PATIENCE_HALF_LIFE_SECONDS)
        return min(max(MIN_PATIENCE_SECONDS, lateness * LATENESS_MARGIN), MAX_PATIENCE_SECONDS)

    @property
    def wake_at(self) -> float | None:
        """When :meth:`release` has something to do even if no packet comes."""
        if self._ssrc is None:
            return None
        if self._waiting:
            return self._gap_deadline()
        return self._anchor.reached_at(self.position + STEP_SAMPLES) + self._hold_seconds()

    def push(self, packet: RtpAudio, now: float) -> bool:
        """Take a packet; ``False`` when it is dropped (malformed, late, a duplicate, of a stream that was left)."""
        self.counts.received += 1
        self.counts.received_bytes += len(packet.payload)
        try:
            samples = packet_samples(packet.payload)
        except BadAudioError:
            self.counts.malformed += 1
            return False
        if packet.ssrc != self._ssrc:
            if packet.ssrc in self._left_ssrcs and now - self._last_arrival < OTHER_STREAM_QUIET_SECONDS:
                self.counts.late += 1
                return False
            self._begin_stream(packet, samples, now)
        return self._take(packet, samples, now)

    def release(self, now: float) -> list[Release]:
        """Return what can be heard by ``now``, in order and without gaps."""
        released, self._flushed = self._flushed, []
        if self._ssrc is not None:
            released += self._due(now)
        for item in released:
            if isinstance(item, Concealed):
                self.counts.concealed_samples += item.samples
            elif isinstance(item, Silence):
                self.counts.silent_samples += item.samples
        return released

    # -- taking ---------------------------------------------------------------------------------------------------

    def _take(self, packet: RtpAudio, samples: int, now: float) -> bool:
        ahead = _signed(packet.sequence - self._highest_sequence, 16)
        if not -MAX_SEQUENCE_BEHIND <= ahead <= MAX_SEQUENCE_AHEAD:
            if self._suspect != packet.sequence:
                self._suspect = (packet.sequence + 1) & 0xFFFF
                self.counts.late += 1
                return False
            self._begin_stream(packet, samples, now)
            ahead = 0
        self._suspect = None
        sequence = self._highest_sequence + ahead
        if sequence in self._waiting:
            self.counts.duplicates += 1
            return False
        if ahead < 0:
            self._note_lateness(sequence, now)
        if sequence < self._next_sequence:
            if sequence in self._given_up:
                del self._given_up[sequence]
                self.counts.late += 1
            else:
                self.counts.duplicates += 1
            return False
        position = self._highest_position + _signed(packet.timestamp - self._highest_timestamp, 32)
        if ahead > 0:
            position = self._plausible(position, samples, ahead, now)
        self._waiting[sequence] = _Waiting(position, samples, packet.payload, now)
        if ahead >= 0:
            self._highest_sequence = sequence
            self._highest_timestamp = packet.timestamp
            self._highest_position = position
            self._highest_end = position + samples
        self._anchor.see(position + samples, now)
        self._last_arrival = now
        return True

    def _plausible(self, position: int, samples: int, ahead: int, now: float) -> int:
        """Return the packet's place, or where the stream goes on if its timestamp has jumped."""
        surplus = position + samples - self._anchor.end_expected(now)
        is_backward = position < self._highest_position
        is_paused = self._late_since is not None and now - self._late_since > ALL_LATE_SECONDS
        if not is_backward and not is_paused and -MAX_BEHIND_SAMPLES <= surplus <= MAX_AHEAD_SAMPLES:
            return position
        self.counts.restarts += 1
        # Missing packets stand for the time they may have lasted, as far as our clock agrees.
        missing = min((ahead - 1) * samples, -int(surplus) + position - self._highest_end)
        self._anchor = _Anchor()
        self._late_since = None
        return max(self._highest_end + missing, self._highest_end, self.position)

    def _begin_stream(self, packet: RtpAudio, samples: int, now: float) -> None:
        """Take up a stream where the call's media time stands."""
        if self._ssrc is not None:
            self.counts.restarts += 1
            self._left_ssrcs = {*list(self._left_ssrcs)[-7:], self._ssrc} - {packet.ssrc}
            self._flushed += self._flush(now)
            gap = int(self._anchor.end_expected(now)) - samples - self.position
            if gap > RATE // 10:
                self._flushed.append(self._silence(gap))
        self._ssrc = packet.ssrc
        self._anchor = _Anchor()
        self._waiting.clear()
        self._given_up.clear()
        self._suspect = None
        self._is_dtx = False
        self._stall_start = None
        self._late_since = None
        self._next_sequence = self._highest_sequence = packet.sequence + (1 << 16)
        self._highest_timestamp = packet.timestamp
        self._highest_position = self.position
        self._highest_end = self.position
        self._last_arrival = now

    def _note_lateness(self, sequence: int, now: float) -> None:
        """A packet came out of order: remember by how much, so that the next one is waited for."""
        if sequence in self._given_up:
            revealed_at = self._given_up[sequence]
        else:
            later = [item.arrived_at for number, item in self._waiting.items() if number > sequence]
            if not later:
                return
            revealed_at = min(later)
        lateness = now - revealed_at
        if lateness * LATENESS_MARGIN >= self.patience_seconds:
            self._lateness_seconds = lateness
            self._lateness_at = now

    # -- releasing ------------------------------------------------------------------------------------------------

    def _due(self, now: float) -> Iterator[Release]:
        while True:
            if self._next_sequence in self._waiting:
                yield from self._release_next(now)
            elif self._waiting:
                if now < self._gap_deadline() and len(self._waiting) < MAX_WAITING_PACKETS:
                    return
                yield from self._close_gap()
            else:
                yield from self._keep_time(now)
                return

    def _release_next(self, now: float) -> Iterator[Release]:
        item = self._waiting.pop(self._next_sequence)
        self._next_sequence += 1
        self._stall_start = None
        if item.position > self.position:
            yield self._silence(item.position - self.position)
        skip = self.position - item.position
        if skip >= item.samples:
            self.counts.late += 1
            if self._late_since is None:
                self._late_since = now
            return
        self._late_since = None
        self._is_dtx = len(item.payload) <= DTX_MARK_BYTES
        start = self.position
        self.position = item.position + item.samples
        yield Speech(start, item.samples - skip, item.payload, skip)

    def _close_gap(self) -> Iterator[Release]:
        """Give up on the packets before the oldest one that waits."""
        oldest = min(self._waiting)
        revealed_at = min(item.arrived_at for item in self._waiting.values())
        self.counts.lost += oldest - self._next_sequence
        for sequence in range(max(self._next_sequence, oldest - MAX_WAITING_PACKETS), oldest):
            self._given_up[sequence] = revealed_at
        while len(self._given_up) > MAX_WAITING_PACKETS:
            del self._given_up[next(iter(self._given_up))]
        self._next_sequence = oldest
        item = self._waiting[oldest]
        missing = item.position - self.position
        if missing > 0:
            start = self.position
            self.position = item.position
            yield Concealed(start, missing, item.payload)

    def _keep_time(self, now: float) -> Iterator[Release]:
        """Let media time pass without packets."""
        due = self._anchor.end_expected(now - self._hold_seconds()) - self.position
        # A microsecond of tolerance: the time asked for by wake_at must be enough.
        steps = int((due + RATE * 1e-6) // STEP_SAMPLES)
        for _ in range(steps):
            if self._stall_start is None:
                self._stall_start = self.position
            is_new = not self._is_dtx and self.position - self._stall_start < STALL_CONCEALED_SAMPLES
            start = self.position
            if is_new:
                self.position += STEP_SAMPLES
                yield Concealed(start, STEP_SAMPLES)
            else:
                yield self._silence(STEP_SAMPLES)

    def _flush(self, now: float) -> Iterator[Release]:
        while self._waiting:
            if self._next_sequence not in self._waiting:
                yield from self._close_gap()
            yield from self._release_next(now)

    def _silence(self, samples: int) -> Silence:
        start = self.position
        self.position += samples
        return Silence(start, samples)

    def _gap_deadline(self) -> float:
        return min(item.arrived_at for item in self._waiting.values()) + self.patience_seconds

    def _hold_seconds(self) -> float:
        return self.patience_seconds if self._is_dtx else STALL_PATIENCE_SECONDS


def _signed(difference: int, bits: int) -> int:
    """Read a difference of two wrapping counters as a signed number."""
    half = 1 << (bits - 1)
    return ((difference + half) & ((1 << bits) - 1)) - half
