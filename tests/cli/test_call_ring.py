"""What is kept of a call's audio in case it has to be sent again."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from voice_agent.cli.call_audio import AudioMessage
from voice_agent.cli.call_ring import AudioRing

MAX_SECONDS = 1.0
RATES = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000)


class Carried(RuleBasedStateMachine):
    """A call over connections that come and go, played against a server that counts samples.

    Messages hold their first sample's number. The server places what it hears by the position that the connection
    announced and by counting; each message must land where it was cut.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rate = 16_000
        self.ring = AudioRing(MAX_SECONDS)
        self.cut = 0
        self.lengths: dict[int, int] = {}
        self.place: int | None = None
        """Where the server is, in samples; None without a connection."""
        self.settled = 0
        self.heard = 0
        """Up to where the server has heard everything that was kept for it."""

    @rule(rate=st.sampled_from(RATES))
    @precondition(lambda self: not self.cut)
    def choose_rate(self, rate: int) -> None:
        self.rate = rate

    @rule(count=st.integers(1, 20), samples=st.integers(1, 4_000))
    def record(self, count: int, samples: int) -> None:
        for _ in range(count):
            first = self.cut
            self.lengths[first] = samples
            self.cut += samples
            self.ring.append(AudioMessage(str(first).encode(), self.cut / self.rate))

    @rule()
    @precondition(lambda self: self.place is None)
    def connect(self) -> None:
        begins_at = self.ring.rewind()
        self.place = round(begins_at * self.rate)
        assert not self.ring.has_gap

    @rule(count=st.integers(1, 50))
    @precondition(lambda self: self.place is not None)
    def send(self, count: int) -> None:
        for _ in range(count):
            had_gap = self.ring.has_gap
            message = self.ring.take()
            if message is None:
                return
            if had_gap:
                # The client gives such a connection up: what follows would lie in the wrong place.
                self.lose()
                return
            assert int(message.data) == self.place
            self.place += self.lengths[int(message.data)]
            self.heard = max(self.heard, self.place)

    @rule(share=st.floats(0, 1))
    @precondition(lambda self: self.place is not None)
    def settle(self, share: float) -> None:
        self.settled = max(self.settled, int(self.heard * share))
        self.ring.settle(self.settled / self.rate)

    @rule()
    @precondition(lambda self: self.place is not None)
    def lose(self) -> None:
        self.place = None
        self.ring.park()

    @invariant()
    def it_is_bounded(self) -> None:
        held = self.ring.end_seconds - self.ring.start_seconds
        longest = max(self.lengths.values(), default=0) / self.rate
        assert held <= max(MAX_SECONDS * (2 if self.place is not None else 1), longest) + 1e-6

    @invariant()
    def nothing_is_held_that_is_settled_and_nothing_let_go_that_fits(self) -> None:
        start = Fraction(round(self.ring.start_seconds * self.rate), self.rate)
        if start > Fraction(self.settled, self.rate):
            # What is not settled went only because there was too much.
            kept_from = self.cut / self.rate - MAX_SECONDS
            shortest_start = float(start) - max(self.lengths.values()) / self.rate - 0.1
            assert shortest_start <= max(kept_from, self.settled / self.rate)


TestCarried = Carried.TestCase
TestCarried.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def ring_of(count: int, *, rate: int = 16_000, samples: int = 320, max_seconds: float = 30.0) -> AudioRing:
    """A ring with ``count`` messages."""
    ring = AudioRing(max_seconds)
    for index in range(count):
        ring.append(AudioMessage(bytes([index % 256]), (index + 1) * samples / rate))
    return ring


@given(sent=st.integers(0, 100), settled_ms=st.integers(0, 3_000))
def test_what_is_sent_again_begins_at_the_message_that_holds_the_settled_position(
    sent: int, settled_ms: int
) -> None:
    """Whole messages before it are gone if they were sent; not one more, not one less."""
    ring = ring_of(100)
    for _ in range(sent):
        ring.take()
    ring.settle(settled_ms / 1000)
    gone = min(sent, settled_ms // 20)
    assert ring.rewind() == pytest.approx(gone * 0.02)
    assert [m.data[0] for m in iter(ring.take, None)] == list(range(gone, 100))


@pytest.mark.parametrize("rate", RATES)
def test_it_begins_at_a_whole_millisecond(rate: int) -> None:
    """The protocol tells milliseconds; at 11025 Hz every second message of 20 ms begins between two of them."""
    ring = AudioRing(max_seconds=0.5)
    ends = [(k + 1) * rate * 20 // 1000 for k in range(60)]
    for index, end in enumerate(ends):
        ring.append(AudioMessage(bytes([index]), end / rate))
    begins_at = ring.rewind()
    first = ring.take()
    assert first is not None
    assert begins_at * 1000 == pytest.approx(round(begins_at * 1000), abs=1e-6)
    assert begins_at == (ends[first.data[0] - 1]) / rate
    assert 0.44 <= ring.end_seconds - begins_at <= 0.5


def test_messages_of_no_whole_millisecond_keep_their_place_to_half_of_one() -> None:
    """An odd rate is nobody's fault; nothing is given up for it."""
    ring = ring_of(10, rate=8_001, samples=161)
    for _ in range(3):
        ring.take()
    ring.settle(0.03)
    assert ring.rewind() == pytest.approx(161 / 8_001)


def test_who_speaks_on_without_a_network_keeps_the_last_of_it() -> None:
    """Live audio goes on; beyond the bound the oldest goes, and the next connection begins behind it."""
    ring = ring_of(10, max_seconds=0.1)
    assert ring.unsent == 5
    assert ring.rewind() == pytest.approx(0.1)
    assert [m.data[0] for m in iter(ring.take, None)] == [5, 6, 7, 8, 9]


def test_what_a_connection_has_announced_is_not_taken_from_it() -> None:
    """While the server answers, as much again may come; only then is there a gap, and it is told."""
    ring = ring_of(5, max_seconds=0.1)
    assert ring.rewind() == 0
    for index in range(5, 10):
        ring.append(AudioMessage(bytes([index]), (index + 1) * 0.02))
    assert (ring.unsent, ring.has_gap) == (10, False)
    ring.append(AudioMessage(b"x", 0.22))
    assert ring.has_gap
    ring.park()
    assert ring.unsent == 5
