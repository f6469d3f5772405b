"""RepeatLimiter: one warning, a thousand times a second, is one fact and a number.

Of each warning and each error so many lines a minute are written; the rest is counted and told in one summary line
when the minute is over. A line is known by its event's name, which is a constant of the code, or for a library's line
by its message before the values were put in. Which lines are kept is the first ones.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import structlog
import trio

from voice_agent.core.units import SECONDS

WINDOW_SECONDS: Final = 60 * SECONDS
MAX_NAMES: Final = 1024
"""Libraries may put values into their messages; what comes beyond that shares one place."""
OTHERS: Final = "(others)"
SUMMARY: Final = "lines_suppressed"
LIMITED_LEVELS: Final = frozenset({"warning", "error", "critical", "exception"})

log = structlog.get_logger(__name__)


@attrs.define
class _Window:
    began_at: float
    lines: int = 0


class RepeatLimiter:
    """Counts lines by name; ``per_minute`` of each are written."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._windows: dict[str, _Window] = {}

    def admits(self, name: str) -> bool:
        """Count a line, and say whether it is written."""
        now = self._clock()
        window = self._windows.get(name)
        if window is None and len(self._windows) >= MAX_NAMES:
            name = OTHERS
            window = self._windows.get(name)
        if window is None:
            window = self._windows[name] = _Window(now)
        if now - window.began_at >= WINDOW_SECONDS and window.lines <= self._per_minute:
            # Else the summary comes first, so that no count is lost.
            window.began_at, window.lines = now, 0
        window.lines += 1
        return window.lines <= self._per_minute

    def take_suppressed(self, *, all_of_them: bool = False) -> Iterator[tuple[str, int]]:
        """Forget the names whose minute is over (or all), and yield those of which lines were suppressed, with how many."""
        now = self._clock()
        for name, window in list(self._windows.items()):
            if all_of_them or now - window.began_at >= WINDOW_SECONDS:
                del self._windows[name]
                if window.lines > self._per_minute:
                    yield name, window.lines - self._per_minute

    def __call__(
        self, _logger: structlog.typing.WrappedLogger, method: str, line: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Drop the line if there were too many of it; a structlog processor."""
        event = str(line.get("event"))
        if method in LIMITED_LEVELS and event != SUMMARY and not self.admits(event):
            raise structlog.DropEvent
        return line


class RepeatFilter(logging.Filter):
    """The same for the standard library's lines; one limiter may serve both."""

    def __init__(self, limiter: RepeatLimiter) -> None:
        super().__init__()
        self._limiter = limiter

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is written."""
        return record.levelno < logging.WARNING or self._limiter.admits(f"{record.name}: {record.msg}"[:200])


def tell_suppressed(limiter: RepeatLimiter, *, all_of_them: bool = False) -> None:
    """Log a summary of what was suppressed."""
    for name, count in limiter.take_suppressed(all_of_them=all_of_them):
        log.warning(SUMMARY, of=name, lines=count)


async def tell_suppressed_each_minute(limiter: Callable[[], RepeatLimiter]) -> None:
    """Log a summary each minute, and the rest when cancelled."""
    try:
        while True:
            await trio.sleep(WINDOW_SECONDS)
            tell_suppressed(limiter())
    finally:
        tell_suppressed(limiter(), all_of_them=True)
