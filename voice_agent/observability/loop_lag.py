"""LoopLag: how late the event loop wakes a task that asked for a certain time.

Everybody's audio passes one loop: what holds it up (a blocking call, or simply too many calls) delays every call, and
shows here first. A probe that sleeps and looks at the clock costs ten wake-ups a second and measures exactly what the
calls' own tasks suffer.
"""

from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Final, NoReturn

import trio

from voice_agent.core.units import MS, SECONDS

INTERVAL_SECONDS: Final = 100 * MS
WINDOW_SECONDS: Final = 2 * SECONDS
"""What ``typical_seconds`` speaks of: long enough to outlive one hiccup, short enough to see an overload begin."""


def _tell_nobody(late_seconds: float) -> None:
    """Tell nobody."""


class LoopLag:
    """The lag of the loop that runs :meth:`probe`; ``on_sample`` is told each measurement, in seconds."""

    def __init__(self, on_sample: Callable[[float], None] = _tell_nobody) -> None:
        self._on_sample = on_sample
        self._samples = deque[float](maxlen=round(WINDOW_SECONDS / INTERVAL_SECONDS))

    @property
    def typical_seconds(self) -> float:
        """The median of the last two seconds: one pause, however long, is no overload. 0 before the first sample."""
        return median(self._samples) if self._samples else 0.0

    @property
    def worst_seconds(self) -> float:
        """The worst of the last two seconds."""
        return max(self._samples, default=0.0)

    def note(self, late_seconds: float) -> None:
        """Take a measurement."""
        self._samples.append(late_seconds)
        self._on_sample(late_seconds)

    async def probe(self) -> NoReturn:
        """Measure until cancelled."""
        while True:
            due = trio.current_time() + INTERVAL_SECONDS
            await trio.sleep_until(due)
            self.note(max(0.0, trio.current_time() - due))
