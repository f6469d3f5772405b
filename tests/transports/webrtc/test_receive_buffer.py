"""The receive path under virtual time: packets are scheduled, and released as the media thread would."""

import heapq
import random
from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_agent.transports.webrtc.receive import (
    Concealed,
    ReceiveBuffer,
    Release,
    RtpAudio,
    Silence,
    Speech,
)

STEP = 960
PAYLOAD = bytes([0x78, 1, 2, 3])
"""CELT, 20 ms, one frame."""
DTX = bytes([0x78])


@attrs.frozen(order=True)
class Arrival:
    at: float
    number: int
    packet: RtpAudio = attrs.field(order=False)


def packet(number: int, *, ssrc: int = 1, payload: bytes = PAYLOAD, skew: int = 0) -> RtpAudio:
    return RtpAudio(
        ssrc, (65_500 + number) & 0xFFFF, (0xFFFF_0000 + number * STEP + skew) & 0xFFFF_FFFF, payload
    )


def due(number: int) -> float:
    """When a packet comes over a perfect network."""
    return 100.0 + (number + 1) * 0.02


def run(arrivals: Iterable[Arrival], until: float) -> tuple[list[tuple[float, Release]], ReceiveBuffer]:
    """Feed a buffer as the media thread does: on each packet, and whenever it wants to be woken."""
    buffer = ReceiveBuffer()
    heap = sorted(arrivals)
    heapq.heapify(heap)
    released: list[tuple[float, Release]] = []
    while True:
        wake_at = buffer.wake_at
        if heap and (wake_at is None or heap[0].at <= wake_at):
            now = heap[0].at
            buffer.push(heapq.heappop(heap).packet, now)
        elif wake_at is not None and wake_at <= until:
            now = wake_at
        else:
            return released, buffer
        released += [(now, item) for item in buffer.release(now)]


def assert_gapless(released: list[tuple[float, Release]]) -> None:
    position = 0
    for _, item in released:
        assert item.position == position
        position += item.samples


def delays(released: list[tuple[float, Release]]) -> list[tuple[float, float]]:
    """When each piece of speech was released, and how long after the perfect network."""
    return [
        (now, now - (100.0 + (item.position + item.samples) / 48_000))
        for now, item in released
        if isinstance(item, Speech)
    ]


def test_packets_in_order_are_released_at_once() -> None:
    """A clean stream has no delay at all, across the wrap of sequence number and timestamp."""
    released, buffer = run([Arrival(due(n), n, packet(n)) for n in range(500)], due(499))
    assert [item.position for _, item in released] == [n * STEP for n in range(500)]
    assert max(delay for _, delay in delays(released)) < 0.001
    assert buffer.counts.lost == buffer.counts.concealed_samples == buffer.counts.restarts == 0


@pytest.mark.parametrize("rate", [0.02, 0.05])
def test_delay_is_short_within_five_seconds_of_each_loss(rate: float) -> None:
    """Random losses never leave a delay of more than 160 ms behind, and each is concealed in its place."""
    chance = random.Random(4)
    kept = [n for n in range(3000) if n in (0, 2999) or chance.random() >= rate]
    released, buffer = run([Arrival(due(n), n, packet(n)) for n in kept], due(2999))
    assert_gapless(released)
    assert max(delay for _, delay in delays(released)) <= 0.160
    # Behind each loss the stream is on time again at once.
    assert sum(delay > 0.001 for _, delay in delays(released)) < len(kept) * rate * 4
    assert buffer.counts.lost == 3000 - len(kept)
    assert buffer.counts.concealed_samples == (3000 - len(kept)) * STEP
    assert buffer.counts.late == 0


def test_a_jittered_stream_with_losses_keeps_its_words_and_its_clock() -> None:
    """5 % losses and 30 ms of jitter with reordering: what came in time is heard, and a minute stays a minute."""
    chance = random.Random(7)
    kept = [n for n in range(3000) if n == 0 or chance.random() >= 0.05]
    arrivals = [Arrival(due(n) + chance.uniform(0, 0.03), n, packet(n)) for n in kept]
    released, buffer = run(arrivals, due(2999) + 0.1)
    assert_gapless(released)
    heard = sum(isinstance(item, Speech) for _, item in released)
    assert heard >= len(kept) * 0.99
    assert max(delay for _, delay in delays(released)) <= 0.160
    assert abs(buffer.position - 3000 * STEP) <= STEP


def test_a_reordered_packet_is_waited_for() -> None:
    """Two packets that overtake each other lose nothing."""
    order = [0, 1, 3, 2, 4, 6, 5, 7]
    released, buffer = run([Arrival(due(i), i, packet(n)) for i, n in enumerate(order)], due(8))
    assert_gapless(released)
    assert [type(item) for _, item in released] == [Speech] * 8
    assert buffer.counts.lost == buffer.counts.late == 0


def test_the_wait_grows_with_the_lateness_seen_and_shrinks_again() -> None:
    """A packet that came just too late makes the next gap wait longer, for a while."""
    late = [Arrival(due(n), n, packet(n)) for n in range(200) if n != 50]
    _, buffer = run([*late, Arrival(due(50) + 0.1, 50, packet(50))], due(60))
    assert buffer.counts.late == 1
    calm = ReceiveBuffer()
    for n in [0, 1, 3]:
        calm.push(packet(n), due(n))
        calm.release(due(n))
    calm.release(due(3) + 0.05)
    calm.push(packet(2), due(3) + 0.08)
    raised = calm.patience_seconds
    for n in range(4, 600):
        calm.push(packet(n), due(n))
        calm.release(due(n))
    assert raised > calm.patience_seconds == pytest.approx(0.040)
    assert raised <= 0.140


def test_duplicates_are_ignored() -> None:
    """A packet that comes twice is heard once, whether it waits or was released."""
    arrivals = [Arrival(due(n), n, packet(n)) for n in range(10)]
    arrivals += [Arrival(due(n) + 0.001, n, packet(n)) for n in range(10)]
    released, buffer = run(arrivals, due(9))
    assert len(released) == 10
    assert buffer.counts.duplicates == 10
    assert buffer.counts.late == 0


def test_discontinuous_transmission_is_silence_that_comes_in_time() -> None:
    """While a silent sender sends nothing, silence is released by the clock, no later than 160 ms."""
    arrivals = [Arrival(due(n), n, packet(n)) for n in range(50)]
    arrivals.append(Arrival(due(50), 50, packet(50, payload=DTX)))
    # The sequence goes on, the timestamp jumps over two seconds of nothing.
    arrivals += [Arrival(due(n + 100), n, packet(n, skew=100 * STEP)) for n in range(51, 80)]
    released, buffer = run(arrivals, due(180))
    assert_gapless(released)
    silent = [(now, item) for now, item in released if isinstance(item, Silence)]
    assert sum(item.samples for _, item in silent) == 100 * STEP
    assert all(now - (100.0 + (item.position + item.samples) / 48_000) <= 0.160 for now, item in silent)
    assert buffer.counts.concealed_samples == 0
    assert buffer.counts.lost == 0


def test_a_sender_that_falls_silent_without_a_mark_is_silent_soon() -> None:
    """A stream that stops altogether is followed by silence, not by a stall; the clock runs on."""
    released, buffer = run([Arrival(due(n), n, packet(n)) for n in range(50)], due(49) + 5.0)
    assert_gapless(released)
    assert isinstance(released[-1][1], Silence)
    assert abs(buffer.position / 48_000 - (1.0 + 5.0)) <= 0.45


def test_a_short_stall_loses_nothing() -> None:
    """A network that holds everything back for 300 ms and then delivers it at once costs no words."""
    arrivals = [Arrival(max(due(n), due(80)) if 65 < n <= 80 else due(n), n, packet(n)) for n in range(200)]
    released, buffer = run(arrivals, due(199))
    assert [type(item) for _, item in released] == [Speech] * 200
    assert buffer.counts.late == 0


def test_another_ssrc_goes_on_where_the_call_stands() -> None:
    """A new stream with its own numbers is heard without a jump, and stray packets of the old one are not."""
    arrivals = [Arrival(due(n), n, packet(n)) for n in range(50)]
    arrivals += [
        Arrival(due(n), n, RtpAudio(2, n * 1, 7_000_000 + n * STEP, PAYLOAD)) for n in range(50, 100)
    ]
    arrivals.append(Arrival(due(60) + 0.001, 1000, packet(50)))
    released, buffer = run(arrivals, due(99))
    assert_gapless(released)
    assert sum(isinstance(item, Speech) for _, item in released) == 100
    assert buffer.position == 100 * STEP
    assert buffer.counts.restarts == 1
    assert buffer.counts.late == 1


@pytest.mark.parametrize("jump", [10 * 48_000, -10 * 48_000, 2**31])
def test_a_jump_of_the_timestamp_does_not_move_the_clock(jump: int) -> None:
    """A timestamp that jumps without a pause is taken up anew: no minutes of silence, nothing unheard."""
    arrivals = [Arrival(due(n), n, packet(n, skew=jump if n >= 50 else 0)) for n in range(100)]
    released, buffer = run(arrivals, due(99))
    assert_gapless(released)
    assert sum(isinstance(item, Speech) for _, item in released) == 100
    assert buffer.position == 100 * STEP
    assert buffer.counts.restarts == 1


def test_a_sender_that_paused_its_clock_is_heard_again() -> None:
    """A sender whose timestamps stood still for a second is not late for ever after."""
    arrivals = [Arrival(due(n) + (1.0 if n >= 50 else 0), n, packet(n)) for n in range(150)]
    released, buffer = run(arrivals, due(149) + 1.0)
    assert_gapless(released)
    assert sum(isinstance(item, Speech) for _, item in released) >= 150 - 13
    assert buffer.counts.restarts == 1


def test_malformed_payloads_are_dropped() -> None:
    """A payload that breaks the framing rules of Opus counts as lost."""
    arrivals = [Arrival(due(n), n, packet(n, payload=b"\x03" if n == 5 else PAYLOAD)) for n in range(20)]
    released, buffer = run(arrivals, due(19))
    assert_gapless(released)
    assert buffer.counts.malformed == buffer.counts.lost == 1
    assert sum(isinstance(item, Concealed) for _, item in released) == 1


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFF_FFFF),
            st.integers(1, 3),
            st.sampled_from([PAYLOAD, DTX, b"", b"\x03"]),
            st.floats(0, 0.5),
        ),
        max_size=60,
    )
)
def test_hostile_numbers_give_gapless_bounded_time(items: list[tuple[int, int, int, bytes, float]]) -> None:
    """Whatever sequence numbers and timestamps come, time has no gaps and does not outrun the clock by much."""
    now, arrivals = 100.0, []
    for number, (sequence, timestamp, ssrc, payload, pause) in enumerate(items):
        now += pause
        arrivals.append(Arrival(now, number, RtpAudio(ssrc, sequence, timestamp, payload)))
    released, buffer = run(arrivals, now + 1)
    assert_gapless(released)
    assert buffer.position <= (now + 1 - 100 + 2.5 * (len(items) + 1)) * 48_000
