"""How long a worker that failed waits."""

import pytest

from voice_agent.supervisor.backoff import FIRST_SECONDS, HEALTHY_SECONDS, LONGEST_SECONDS, Backoff


def test_it_doubles_up_to_a_bound() -> None:
    """A worker that can't live costs a start each half minute, not all the time; the thousandth failure is no other."""
    backoff = Backoff(chance=lambda: 1.0)
    waits = [backoff.failed(after_seconds=0) for _ in range(1000)]
    assert waits[:8] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert set(waits[7:]) == {LONGEST_SECONDS}


def test_a_healthy_while_is_a_new_beginning() -> None:
    """What failed long ago is no sign of what fails now."""
    backoff = Backoff(chance=lambda: 1.0)
    for _ in range(10):
        backoff.failed(after_seconds=HEALTHY_SECONDS - 0.1)
    assert backoff.failed(after_seconds=HEALTHY_SECONDS) == FIRST_SECONDS


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.25), (0.5, 0.375)])
def test_workers_come_back_apart(chance: float, seconds: float) -> None:
    """Half of a wait is by chance."""
    assert Backoff(chance=lambda: chance).failed(after_seconds=0) == seconds
