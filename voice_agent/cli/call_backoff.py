"""Backoff: how long a client waits before it tries again. Pure; the chance comes from outside."""

from random import Random
from typing import Final

import attrs

from voice_agent.core.units import MS, SECONDS

FIRST_SECONDS: Final = 500 * MS
MAX_SECONDS: Final = 8 * SECONDS


@attrs.define
class Backoff:
    """Exponential backoff with full jitter: each wait is drawn evenly between nothing and twice the last bound.

    Full jitter, because the callers of a server that died all lost it in the same moment: waits that are merely
    "about" the same would bring them all back in waves.
    """

    chance: Random
    attempts: int = attrs.field(init=False, default=0)
    """How many waits were drawn since the last reset."""

    @property
    def bound_seconds(self) -> float:
        """The longest that the next wait can be."""
        return min(MAX_SECONDS, FIRST_SECONDS * 2.0 ** min(self.attempts, 30))

    def next_wait(self) -> float:
        """Draw the next wait, in seconds."""
        wait = self.chance.uniform(0, self.bound_seconds)
        self.attempts += 1
        return wait

    def reset(self) -> None:
        """Begin again with the shortest bound."""
        self.attempts = 0
