"""Backoff: how long a worker that ended too soon waits before it is started again."""

import random
from collections.abc import Callable
from typing import Final

from voice_agent.core.units import MINUTES, MS, SECONDS

FIRST_SECONDS: Final = 500 * MS
LONGEST_SECONDS: Final = 30 * SECONDS
HEALTHY_SECONDS: Final = MINUTES
"""A worker that has served for so long starts with a clean slate."""


class Backoff:
    """Doubles with each failure up to :data:`LONGEST_SECONDS`, and forgets them after a healthy while.

    Each wait is between half and all of that, by chance: workers that failed for one reason don't come back at one
    moment. The first failure after a healthy while waits as well, so that nothing turns in a circle without a pause.
    """

    def __init__(self, *, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self.failures = 0
        """In a row."""

    def failed(self, *, after_seconds: float) -> float:
        """Count a failure ``after_seconds`` of serving, and return how many seconds to wait."""
        if after_seconds >= HEALTHY_SECONDS:
            self.failures = 0
        # Bounded before the power is taken, or the thousandth failure would be too large a number.
        longest = min(LONGEST_SECONDS, FIRST_SECONDS * (1 << min(self.failures, 16)))
        self.failures += 1
        return longest * (0.5 + self._chance() / 2)
