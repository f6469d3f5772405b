"""CallLoad: what the open calls take of a stage's workers, and what one more call would. Pure: measurements come in.

A call that has just been let in does nothing yet, and its work shows only seconds later; so does that of ten of them, who
came in the same second because none of their work showed. Therefore each call counts with what calls cost on average
until it can be seen. The average is measured too, beginning with what the operator expects; it is kept within bounds, for
callers who are silent now will speak, and one who sends a file as fast as it goes is no measure for the next.
"""

import math
from typing import Final

from voice_agent.core.units import SECONDS

LOAD_SECONDS: Final = 3 * SECONDS
"""Over what the load is averaged: a few utterances of each call."""
COST_SECONDS: Final = 20 * SECONDS
"""Over what the cost of a call is averaged."""
EXPECTATION_SECONDS: Final = 20 * SECONDS
"""So many seconds of calls must be measured until the measurement counts as much as the expectation."""
LEAST_SHARE: Final = 0.25
MOST_SHARE: Final = 2.0
"""Of the expected cost: the bounds of the measured one."""


class CallLoad:
    """One stage with so many workers."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._load = 0.0
        self._busy_seconds = 0.0
        self._call_seconds = 0.0

    @property
    def load(self) -> float:
        """The share of the workers' time that is taken now."""
        return self._load

    def note(self, *, busy_seconds: float, calls: int, seconds: float) -> None:
        """Take a measurement: over ``seconds``, with ``calls`` open, the workers were busy for ``busy_seconds``."""
        share = busy_seconds / (seconds * self._workers)
        self._load += (1 - math.exp(-seconds / LOAD_SECONDS)) * (share - self._load)
        kept = math.exp(-seconds / COST_SECONDS)
        self._busy_seconds = self._busy_seconds * kept + busy_seconds
        self._call_seconds = self._call_seconds * kept + calls * seconds

    def cost(self, expected: float) -> float:
        """Return how many workers a call keeps busy, as measured and as expected."""
        measured = (EXPECTATION_SECONDS * expected + self._busy_seconds) / (
            EXPECTATION_SECONDS + self._call_seconds
        )
        return min(max(measured, LEAST_SHARE * expected), MOST_SHARE * expected)

    def with_one_more(self, *, unseen: int, expected: float) -> float:
        """Return the load with one call more than the open ones, of which ``unseen`` don't show yet."""
        return self._load + (unseen + 1) * self.cost(expected) / self._workers
