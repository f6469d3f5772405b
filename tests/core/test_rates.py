"""The arithmetic of rate limits: exact where the numbers are, and never more than was promised."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.rates import NO_DEBT, ROUNDING_SECONDS, Outcome, Rate, take

FIVE_A_SECOND = Rate(per_second=5, burst=10)


def run(rate: Rate, *asked: tuple[float, float]) -> list[Outcome]:
    """Ask for each (time, cost) in turn."""
    debt = NO_DEBT
    outcomes = []
    for now, cost in asked:
        outcomes.append(take(rate, debt, now, cost))
        debt = outcomes[-1].debt_until
    return outcomes


def test_a_burst_then_one_at_a_time() -> None:
    """Ten at once, the eleventh is told when to come again, and then is let in; five a second from there on."""
    outcomes = run(FIVE_A_SECOND, *[(100.0, 1)] * 11, (100.2, 1), (100.2, 1), (101.0, 4), (101.0, 1))
    assert [o.is_granted for o in outcomes] == [True] * 10 + [False, True, False, True, False]
    assert [round(o.remaining, 6) for o in outcomes[:3]] == [9, 8, 7]
    assert outcomes[9].remaining == pytest.approx(0, abs=1e-6)
    assert outcomes[10].retry_after_seconds == pytest.approx(0.2)
    assert outcomes[9].full_after_seconds == pytest.approx(2.0)


def test_what_is_refused_costs_nothing() -> None:
    """Hammering does not push the time away at which one is let in again."""
    outcomes = run(FIVE_A_SECOND, (0.0, 10), *[(0.1, 1)] * 100, (0.2, 1))
    assert not any(o.is_granted for o in outcomes[1:-1])
    assert outcomes[-1].is_granted


def test_a_pause_gives_no_more_than_the_burst() -> None:
    """An hour of silence is worth ten, not eighteen thousand."""
    outcomes = run(FIVE_A_SECOND, (0.0, 1), *[(3600.0, 1)] * 11)
    assert sum(o.is_granted for o in outcomes[1:]) == 10


def test_more_than_the_burst_is_never_granted() -> None:
    """Whoever asks for more than there can ever be is told that waiting does not help."""
    [outcome] = run(FIVE_A_SECOND, (0.0, 10.5))
    assert not outcome.is_granted
    assert outcome.retry_after_seconds == math.inf
    assert outcome.remaining == 10


def test_a_changed_rate_leaves_the_debt_where_it_is() -> None:
    """Who owes until a time owes until that time, whatever the operator sets meanwhile."""
    [spent] = run(FIVE_A_SECOND, (0.0, 10))
    faster = Rate(per_second=50, burst=100)
    assert take(faster, spent.debt_until, 0.0).is_granted is False
    assert take(faster, spent.debt_until, 0.1).is_granted


RATES = st.builds(
    Rate, per_second=st.floats(0.01, 10_000), burst=st.floats(1, 1000)
)  # calls a minute to messages a second
STEPS = st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 50)), min_size=1, max_size=60)


@given(rate=RATES, steps=STEPS, start=st.floats(0, 1e6))
def test_never_more_than_the_rate_times_the_time_and_the_burst(
    rate: Rate, steps: list[tuple[float, float]], start: float
) -> None:
    """Over every stretch of time, from any grant to any later one."""
    now, asked = start, []
    for pause, cost in steps:
        now += pause
        asked.append((now, cost))
    granted = [(at, cost) for (at, cost), o in zip(asked, run(rate, *asked), strict=True) if o.is_granted]
    # A clock at a million seconds has steps of 1e-10 s.
    slack = (ROUNDING_SECONDS * (len(granted) + 1) + 1e-9 * len(granted)) * rate.per_second
    for first, (begin, _) in enumerate(granted):
        for last in range(first, len(granted)):
            total = sum(cost for _, cost in granted[first : last + 1])
            seconds = granted[last][0] - begin
            assert total <= rate.per_second * seconds + rate.burst + slack


@given(rate=RATES, steps=STEPS)
def test_who_comes_when_told_is_let_in(rate: Rate, steps: list[tuple[float, float]]) -> None:
    """`retry_after_seconds` is true, unless it says that waiting never helps."""
    now, debt = 0.0, NO_DEBT
    for pause, cost in steps:
        now += pause
        outcome = take(rate, debt, now, cost)
        debt = outcome.debt_until
        if not outcome.is_granted and outcome.retry_after_seconds < math.inf:
            now += outcome.retry_after_seconds
            assert take(rate, debt, now, cost).is_granted


@given(rate=RATES, pauses=st.lists(st.floats(0.0, 10.0), max_size=50))
def test_who_keeps_to_the_rate_is_never_refused(rate: Rate, pauses: list[float]) -> None:
    """One unit each 1/rate seconds or slower is always granted."""
    now, debt = 0.0, NO_DEBT
    for pause in pauses:
        outcome = take(rate, debt, now)
        assert outcome.is_granted
        debt = outcome.debt_until
        now += 1 / rate.per_second + pause
