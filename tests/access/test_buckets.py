"""Buckets for many keys: fair to each, of fixed size, and nothing is gained by crowding."""

import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_agent.access.buckets import PLACES_A_ROW, Buckets
from voice_agent.core.rates import NO_DEBT, Rate, take

RATE = Rate(per_second=2, burst=5)


def drained(buckets: Buckets, key: str, now: float) -> int:
    """Take until refused; return how often it was granted."""
    granted = 0
    while buckets.take(key, RATE, now).is_granted:
        granted += 1
    return granted


def test_each_key_has_its_own() -> None:
    """Who has used all of theirs takes nothing from anybody else."""
    buckets = Buckets(1000)
    assert drained(buckets, "a", 0.0) == 5
    assert drained(buckets, "b", 0.0) == 5
    assert drained(buckets, "a", 0.5) == 1
    assert buckets.owing(0.5) == 2
    assert buckets.owing(10.0) == 0


def test_looking_takes_nothing() -> None:
    """What a take would leave is told without taking it."""
    buckets = Buckets(1000)
    assert [buckets.look("a", RATE, 0.0).remaining for _ in range(10)] == [4.0] * 10
    assert buckets.owing(0.0) == 0


KEYS = st.sampled_from([f"192.0.2.{n}" for n in range(8)])


@given(asked=st.lists(st.tuples(KEYS, st.floats(0, 2)), max_size=200))
def test_a_key_is_judged_as_if_it_were_alone(asked: list[tuple[str, float]]) -> None:
    """With room for all, each key gets exactly what a bucket of its own would give it."""
    buckets, alone, now = Buckets(10_000), {}, 0.0
    for key, pause in asked:
        now += pause
        expected = take(RATE, alone.get(key, NO_DEBT), now)
        alone[key] = expected.debt_until
        assert buckets.take(key, RATE, now).is_granted == expected.is_granted


@given(keys=st.lists(st.integers(0, 500), max_size=400), capacity=st.integers(1, 64))
@settings(max_examples=50)
def test_the_whole_table_grants_no_more_than_its_buckets(keys: list[int], capacity: int) -> None:
    """However many keys ask at one time: a burst for each place, and one for each row that is shared."""
    buckets = Buckets(capacity)
    granted = sum(buckets.take(str(key), RATE, 100.0).is_granted for key in keys)
    rows = buckets.capacity // PLACES_A_ROW
    assert granted <= (buckets.capacity + rows) * RATE.burst


def test_crowding_resets_nobodys_bucket() -> None:
    """A hundred thousand other addresses later, who was empty is still empty; and is served again in time."""
    buckets = Buckets(64)
    assert drained(buckets, "victim", 0.0) == 5
    for n in range(100_000):
        buckets.take(f"crowd {n}", RATE, 0.0)
    assert not buckets.take("victim", RATE, 0.0).is_granted
    assert buckets.take("victim", RATE, 0.5).is_granted


def test_who_finds_no_place_shares_and_waits_no_longer_for_it() -> None:
    """A stranger in a crowded row is limited with the crowd, and is alone again as soon as the crowd's debt ends."""
    buckets = Buckets(1)
    for n in range(PLACES_A_ROW):
        assert drained(buckets, f"crowd {n}", 0.0) == 5
    assert drained(buckets, "one more", 0.0) == 5
    assert drained(buckets, "stranger", 0.0) == 0
    assert drained(buckets, "stranger", 2.5) == 5


@pytest.mark.e2e
def test_a_million_addresses_need_no_more_memory_than_one() -> None:
    """The table does not grow, nor does the process; the figures are printed."""
    buckets = Buckets(32_768)
    rate = Rate(per_second=20, burst=100)
    for n in range(100_000):
        buckets.take(f"warm {n}", rate, 0.0)
    size_before, resident_before_kib = buckets.size_bytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    granted = 0
    for n in range(1_000_000):
        address = f"{n >> 24 & 255}.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
        # A million a second: far more than the table has places for while their debts last.
        granted += buckets.take(address, rate, 10.0 + n * 1e-6).is_granted
    resident_after_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"\n1,000,000 addresses in a second: table {buckets.size_bytes / 1024:.0f} KiB for {buckets.capacity} keys, "
        f"{buckets.owing(11.0)} of them owe; granted {granted}; the process grew by "
        f"{resident_after_kib - resident_before_kib} KiB"
    )
    assert buckets.capacity == 32_768
    assert 0 < buckets.owing(11.0) <= buckets.capacity
    assert buckets.size_bytes == size_before < 1024 * 1024
    assert granted < 1_000_000
    assert resident_after_kib - resident_before_kib < 16 * 1024
