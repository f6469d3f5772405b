"""Stopping: the decision that the server stops, made once, by a signal or by a request."""

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
import trio

from voice_agent.core.units import MS, SECONDS
from voice_agent.settings.current import CurrentSettings

EXIT_WITHIN_SECONDS: Final = 5 * SECONDS
"""The process has ended so long after the grace time; drain.py divides it up."""
EXIT_SECONDS: Final = 500 * MS
"""What remains of it for the workers and the interpreter."""
MIN_LAST_SECONDS: Final = 200 * MS
LAST_RESORT_SECONDS: Final = 8 * SECONDS
"""So long after the grace time the process is ended from outside Trio: a drain that misses its time is a defect."""

log = structlog.get_logger(__name__)


def _no_last_resort(_seconds: float) -> None:
    """Leave the process alone; what tests and embedding programs want."""


class Stopping:
    """Whether the server stops, why, and by when; :meth:`begin` is what a signal or a request calls.

    ``last_resort`` is told within how many seconds the process must have ended by itself.
    """

    def __init__(
        self, current: CurrentSettings, *, last_resort: Callable[[float], None] = _no_last_resort
    ) -> None:
        self._current = current
        self._last_resort = last_resort
        self.begun = trio.Event()
        self.cause = ""
        """What began it: the name of a signal, or ``request``."""
        self.listens_until = 0.0
        """When the listener closes, on Trio's clock."""
        self.deadline = 0.0
        """When calls that go on are ended, on Trio's clock."""
        self.deadline_utc = datetime.fromtimestamp(0, UTC)
        """The same on the wall clock, for callers."""

    def seconds_left(self) -> float:
        """Return how long what comes last may take, for the process to end in time; there is no end before the begin."""
        if not self.begun.is_set():
            return math.inf
        return max(MIN_LAST_SECONDS, self.deadline + EXIT_WITHIN_SECONDS - EXIT_SECONDS - trio.current_time())

    def begin(self, cause: str, *, is_urgent: bool = False) -> None:
        """Stop in good order; the first decision counts. ``is_urgent`` leaves the lame-duck seconds out."""
        if self.begun.is_set():
            return
        server = self._current.now.server
        grace_seconds = server.grace_seconds
        # The grace time is the whole of it: who wants the server gone in no time waits for no load balancer.
        lame_duck_seconds = 0.0 if is_urgent else min(server.lame_duck_seconds, grace_seconds)
        now = trio.current_time()
        self.cause = cause
        self.listens_until = now + lame_duck_seconds
        self.deadline = now + grace_seconds
        self.deadline_utc = datetime.now(UTC) + timedelta(seconds=grace_seconds)
        log.info("stopping", cause=cause, grace_seconds=grace_seconds, lame_duck_seconds=lame_duck_seconds)
        self._last_resort(grace_seconds + LAST_RESORT_SECONDS)
        self.begun.set()
