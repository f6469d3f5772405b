"""What calls take of the workers, and what one more would: figures in, figures out."""

import pytest

from voice_agent.server.call_load import EXPECTATION_SECONDS, CallLoad


def fed(load: CallLoad, *, busy: float, calls: int, seconds: float, step: float = 0.25) -> CallLoad:
    """Feed measurements of a steady state: ``busy`` workers for so many seconds."""
    for _ in range(round(seconds / step)):
        load.note(busy_seconds=busy * step, calls=calls, seconds=step)
    return load


def test_before_anything_is_measured_a_call_costs_what_is_expected() -> None:
    """Three that don't show yet, and one more, of two workers."""
    load = CallLoad(2)
    assert load.with_one_more(unseen=3, expected=0.25) == pytest.approx(4 * 0.25 / 2)


def test_a_steady_load_is_seen_within_seconds() -> None:
    """One of two workers busy: half, after ten seconds nearly all of it; and it is forgotten as fast."""
    load = fed(CallLoad(2), busy=1.0, calls=8, seconds=10)
    assert load.load == pytest.approx(0.5, rel=0.05)
    fed(load, busy=0.0, calls=0, seconds=10)
    assert load.load < 0.05


def test_the_measured_cost_takes_the_place_of_the_expected_one() -> None:
    """Eight calls that cost 0.12 each: twenty seconds of calls count as much as what was expected, then ever more."""
    load = CallLoad(2)
    assert load.cost(0.25) == 0.25
    fed(load, busy=8 * 0.12, calls=8, seconds=EXPECTATION_SECONDS / 8)
    assert load.cost(0.25) == pytest.approx((0.25 + 0.12) / 2, rel=0.05)
    fed(load, busy=8 * 0.12, calls=8, seconds=60)
    assert load.cost(0.25) == pytest.approx(0.135, rel=0.05)
    assert load.with_one_more(unseen=0, expected=0.25) == pytest.approx(0.48 + 0.135 / 2, rel=0.05)


@pytest.mark.parametrize(("busy", "cost"), [(0.0, 0.0625), (30.0, 0.5)])
def test_the_cost_stays_near_the_expected_one(busy: float, cost: float) -> None:
    """Silent callers will speak, and one who sends a file at full speed is no measure for the next."""
    load = fed(CallLoad(2), busy=busy, calls=16, seconds=300)
    assert load.cost(0.25) == pytest.approx(cost)


def test_calls_that_came_in_a_burst_are_counted_before_they_show() -> None:
    """Each one that is let in raises what the next would make; so a burst ends at the limit, and not at infinity."""
    load = CallLoad(2)
    admitted = 0
    while load.with_one_more(unseen=admitted, expected=0.25) <= 0.8:
        admitted += 1
    assert admitted == 6
