"""How long a client waits before it tries again."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from voice_agent.cli.call_backoff import FIRST_SECONDS, MAX_SECONDS, Backoff


def test_the_bound_doubles_from_half_a_second_to_eight() -> None:
    """Exponential, and no longer than a caller would wait for."""
    backoff = Backoff(Random(1))
    bounds = []
    for _ in range(7):
        bounds.append(backoff.bound_seconds)
        backoff.next_wait()
    assert bounds == [0.5, 1, 2, 4, 8, 8, 8]


@given(seed=st.integers(0, 2**32), attempts=st.integers(1, 2_000))
def test_each_wait_lies_between_nothing_and_its_bound(seed: int, attempts: int) -> None:
    """After any number of attempts; a reset begins anew."""
    backoff = Backoff(Random(seed))
    for _ in range(attempts):
        bound = backoff.bound_seconds
        assert 0 <= backoff.next_wait() <= bound <= MAX_SECONDS
    assert backoff.attempts == attempts
    backoff.reset()
    assert (backoff.attempts, backoff.bound_seconds) == (0, FIRST_SECONDS)


def test_a_thousand_callers_spread_evenly() -> None:
    """Full jitter: each tenth of the bound holds about a tenth of those who lost the same server in one moment."""
    waits = [Backoff(Random(seed)).next_wait() for seed in range(1_000)]
    tenths = [0] * 10
    for wait in waits:
        tenths[int(wait / FIRST_SECONDS * 10)] += 1
    assert min(tenths) > 60
    assert max(tenths) < 140


def test_the_same_luck_waits_the_same() -> None:
    """Tests can say what will happen."""
    one, other = Backoff(Random(7)), Backoff(Random(7))
    assert [one.next_wait() for _ in range(5)] == [other.next_wait() for _ in range(5)]
