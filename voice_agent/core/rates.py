"""Rates: how often something may happen, with a burst; the arithmetic of every rate limit. Pure: time comes in.

The generic cell rate algorithm (ITU-T I.371), which grants exactly what a token bucket of ``burst`` tokens grants that
is filled at ``per_second``. Its whole state is one number, the *debt's end*: the time at which the bucket is full again.
A debt that has ended is like none at all, so it can be forgotten without giving anybody anything.
"""

import math
from typing import Final

import attrs

NO_DEBT: Final = -math.inf
"""The state of who has taken nothing."""

ROUNDING_SECONDS: Final = 1e-9
"""Sums of decimal fractions miss by less; without it, five takes of 0.2 s would not fill a second."""


@attrs.frozen(kw_only=True)
class Rate:
    """``burst`` at once, and ``per_second`` for as long as one likes; both above 0, in whatever is counted."""

    per_second: float
    burst: float

    @property
    def window_seconds(self) -> float:
        """How long an empty bucket takes to fill."""
        return self.burst / self.per_second


@attrs.frozen(kw_only=True)
class Outcome:
    """Whether something may happen now, and what is left; ``debt_until`` is the state to keep."""

    is_granted: bool
    remaining: float
    """How much may still happen at once."""
    retry_after_seconds: float
    """When the same would be granted; 0 when it was, infinite when it is more than the burst."""
    full_after_seconds: float
    """When the whole burst is there again."""
    debt_until: float


def take(rate: Rate, debt_until: float, now: float, cost: float = 1.0) -> Outcome:
    """Ask for ``cost`` at the time ``now``; what is refused costs nothing.

    ``debt_until`` is what the last outcome says, or :data:`NO_DEBT`. It is a time, so it stays good when the rate is
    changed: who owes goes on owing until then.
    """
    owed_until = max(debt_until, now)
    wanted_until = owed_until + cost / rate.per_second
    excess_seconds = wanted_until - now - rate.window_seconds
    is_granted = excess_seconds <= ROUNDING_SECONDS
    if is_granted:
        owed_until = wanted_until
    owed_seconds = owed_until - now
    can_ever_be = cost <= rate.burst + ROUNDING_SECONDS * rate.per_second
    return Outcome(
        is_granted=is_granted,
        remaining=max(0.0, (rate.window_seconds - owed_seconds) * rate.per_second),
        retry_after_seconds=0.0 if is_granted else excess_seconds if can_ever_be else math.inf,
        full_after_seconds=owed_seconds,
        debt_until=owed_until,
    )
