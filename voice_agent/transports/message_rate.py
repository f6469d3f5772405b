"""MessageRate: how many messages one call may bring within a second, the same over either wire."""

from collections import deque
from collections.abc import Callable
from typing import Final

from voice_agent.core.errors import RateExceededError
from voice_agent.core.events import Notice
from voice_agent.core.limits import Limit
from voice_agent.core.notices import limit_near
from voice_agent.core.units import SECONDS
from voice_agent.settings.schema import LimitsSettings

WINDOW_SECONDS: Final = 1 * SECONDS

NEAR_SHARE: Final = 0.9
"""A caller is told when so much of a second's messages have come; they have the rest of it to slow down."""
CALM_SHARE: Final = 0.5
"""Told again only after a second with no more than that."""

_DEFAULTS: Final = LimitsSettings()


class MessageRate:
    """Counts one call's messages over a window that slides; ``limit`` is asked each time, so that a change holds."""

    def __init__(self, limit: Callable[[], int] = lambda: _DEFAULTS.max_messages_per_second) -> None:
        self._limit = limit
        self._arrivals: deque[float] = deque()
        self._is_told = False

    def count(self, now_seconds: float) -> Notice | None:
        """Count a message; return what the caller is to be told when there is not much left.

        Raises:
            RateExceededError: this one is too many.
        """
        arrivals = self._arrivals
        arrivals.append(now_seconds)
        while arrivals[0] <= now_seconds - WINDOW_SECONDS:
            arrivals.popleft()
        limit = self._limit()
        if len(arrivals) > limit:
            raise RateExceededError(f"more than {limit} messages came within a second")
        if len(arrivals) <= CALM_SHARE * limit:
            self._is_told = False
        if self._is_told or len(arrivals) < NEAR_SHARE * limit:
            return None
        self._is_told = True
        return limit_near(
            Limit.MESSAGES,
            used=len(arrivals),
            allowed=limit,
            message=f"{len(arrivals)} messages came within a second; more than {limit} end the call.",
        )
