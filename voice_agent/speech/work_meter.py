"""WorkMeter: how busy a queue's workers are, and how long work that can't be dropped waits for them.

The metrics count what has been done; this says how it stands now, for who has to decide by it. Partials are left out of
the waiting: they are replaced when they wait, by design. They count as work, because they keep workers from the rest.
"""

import math
from collections.abc import Callable
from typing import Final

from voice_agent.core.units import SECONDS

WEIGHT: Final = 0.2
"""Of the newest wait in the mean: about ten jobs are remembered."""

FADING_SECONDS: Final = 3 * SECONDS
"""While nothing waits, the mean fades with this time constant: what was an overload is one no more."""


def _nothing_waits() -> float | None:
    return None


class WorkMeter:
    """The meter of one queue; times are Trio's clock, in seconds."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._oldest_submitted_at = _nothing_waits
        self._busy_workers = 0
        self._busy_seconds = 0.0
        self._counted_at = 0.0
        self._wait_seconds = 0.0
        self._waited_at = -math.inf

    def attach(self, oldest_submitted_at: Callable[[], float | None]) -> None:
        """Ask there for the oldest job that waits and can't be dropped."""
        self._oldest_submitted_at = oldest_submitted_at

    def begin(self, now: float) -> None:
        """One worker more works."""
        self._count(now)
        self._busy_workers += 1

    def end(self, now: float) -> None:
        """One worker less works."""
        self._count(now)
        self._busy_workers -= 1

    def note_wait(self, seconds: float, now: float) -> None:
        """A job that can't be dropped has got its worker after so long."""
        faded = self._faded(now)
        self._wait_seconds = faded + WEIGHT * (seconds - faded)
        self._waited_at = now

    def busy_seconds(self, now: float) -> float:
        """How long workers have worked, all of them together, since the start."""
        self._count(now)
        return self._busy_seconds

    def wait_seconds(self, now: float) -> float:
        """How long a job that can't be dropped waits at present; the one that waits longest, where that is more."""
        oldest = self._oldest_submitted_at()
        return max(self._faded(now), 0.0 if oldest is None else now - oldest)

    def _faded(self, now: float) -> float:
        return self._wait_seconds * math.exp((self._waited_at - now) / FADING_SECONDS)

    def _count(self, now: float) -> None:
        self._busy_seconds += self._busy_workers * (now - self._counted_at)
        self._counted_at = now
