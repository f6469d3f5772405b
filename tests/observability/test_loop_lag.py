"""How late the loop is: measured by being late, told to whoever counts it."""

import time

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.observability.loop_lag import INTERVAL_SECONDS, WINDOW_SECONDS, LoopLag


async def test_an_idle_loop_has_no_lag(autojump_clock: MockClock) -> None:
    """Ten measurements a second, each of them nothing."""
    told: list[float] = []
    lag = LoopLag(told.append)
    with trio.move_on_after(1 + INTERVAL_SECONDS / 2):
        await lag.probe()
    assert len(told) == 10
    assert max(told) == pytest.approx(0)
    assert (lag.typical_seconds, lag.worst_seconds) == pytest.approx((0, 0))


async def test_a_blocked_loop_is_late_by_what_blocked_it(mock_clock: MockClock) -> None:
    """A clock that jumps past the time that was asked for is what a blocking call looks like from inside."""
    lag = LoopLag()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lag.probe)
        await wait_all_tasks_blocked()
        mock_clock.jump(INTERVAL_SECONDS + 0.75)
        await wait_all_tasks_blocked()
        assert lag.worst_seconds == pytest.approx(0.75)
        nursery.cancel_scope.cancel()


async def test_a_real_blocking_call_is_seen() -> None:
    """With the real clock: whoever blocks for 300 ms makes the loop late by at least 100 ms."""
    told, samples = trio.open_memory_channel[float](100)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(LoopLag(told.send_nowait).probe)
        await wait_all_tasks_blocked()
        time.sleep(0.3)  # noqa: ASYNC251 (the fault that is to be seen)
        with trio.fail_after(60):
            assert await samples.receive() > 0.1
        nursery.cancel_scope.cancel()


def test_one_pause_is_not_typical_and_an_overload_is() -> None:
    """A single hiccup stays in the worst only; when every wake-up is late, that is typical, and it is forgotten again."""
    lag = LoopLag()
    assert (lag.typical_seconds, lag.worst_seconds) == (0, 0)
    count = round(WINDOW_SECONDS / INTERVAL_SECONDS)
    for late in [0.0] * (count - 1) + [3.0]:
        lag.note(late)
    assert (lag.typical_seconds, lag.worst_seconds) == (0, 3.0)
    for _ in range(count):
        lag.note(0.2)
    assert (lag.typical_seconds, lag.worst_seconds) == (0.2, 0.2)
