"""The limit on repeated lines, minute by minute."""

import io
import json

import pytest
import structlog
import trio
from trio.testing import MockClock

from voice_agent.observability.logs import configure_logging, repeat_limiter
from voice_agent.observability.repeats import MAX_NAMES, RepeatLimiter, tell_suppressed_each_minute


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_minute_begins_anew() -> None:
    """The limit is a rate; a line an hour is always written."""
    clock = Clock()
    limiter = RepeatLimiter(2, clock)
    for _ in range(3):
        assert [limiter.admits("a") for _ in range(2)] == [True, True]
        clock.now += 60
        assert list(limiter.take_suppressed()) == []


def test_what_was_suppressed_is_told_once() -> None:
    """When the minute is over, not before; and a busy line doesn't start a new minute over an untold count."""
    clock = Clock()
    limiter = RepeatLimiter(2, clock)
    for _ in range(5):
        limiter.admits("a")
    assert list(limiter.take_suppressed()) == []
    clock.now = 61
    assert limiter.admits("a") is False
    assert list(limiter.take_suppressed()) == [("a", 4)]
    assert list(limiter.take_suppressed()) == []
    assert limiter.admits("a") is True


def test_names_are_bounded() -> None:
    """A library that puts values into its messages doesn't fill the memory; what is beyond shares one count."""
    limiter = RepeatLimiter(1, Clock())
    admitted = [limiter.admits(f"message {number}") for number in range(MAX_NAMES + 10)]
    assert admitted.count(True) == MAX_NAMES + 1
    assert list(limiter.take_suppressed(all_of_them=True)) == [("(others)", 9)]


async def test_a_summary_comes_each_minute_and_at_the_end(autojump_clock: MockClock) -> None:
    """Nothing that was suppressed is forgotten when the server stops."""
    stream = io.StringIO()
    configure_logging("warning", "json", stream, max_repeats_per_minute=1)
    clock = Clock()
    pytest.MonkeyPatch().setattr(repeat_limiter(), "_clock", clock)

    def summaries() -> list[tuple[str, int]]:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [(line["of"], line["lines"]) for line in lines if line["event"] == "lines_suppressed"]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tell_suppressed_each_minute, repeat_limiter)
        for _ in range(4):
            structlog.get_logger().warning("often")
        clock.now = 60
        await trio.sleep(61)
        assert summaries() == [("often", 3)]
        for _ in range(3):
            structlog.get_logger().error("again")
        nursery.cancel_scope.cancel()
    assert summaries() == [("often", 3), ("again", 2)]
