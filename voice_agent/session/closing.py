"""Closing: the decision that a call ends, and how long each part of its end may take."""

import math

import trio

from voice_agent.core.events import CloseReason, Fault
from voice_agent.session.ending import Ending


class Closing:
    """One call's end. ``finish_seconds`` are for its last words, ``close_seconds`` for telling the caller and closing.

    ``telling`` is the scope around what tells the caller.
    """

    def __init__(self, telling: trio.CancelScope, *, finish_seconds: float, close_seconds: float) -> None:
        self.ending: Ending | None = None
        """None while nothing is decided."""
        self.work_scope = trio.CancelScope()
        """Around everything between the caller's audio and the last event."""
        self.close_seconds = close_seconds
        self.overdue_at = math.inf
        """When all of it should be over, on Trio's clock."""
        self._telling = telling
        self._finish_seconds = finish_seconds

    def is_for(self, *reasons: CloseReason) -> bool:
        """Whether the end is decided, and has one of the reasons."""
        return self.ending is not None and self.ending.reason in reasons

    def decide(self, reason: CloseReason, fault: Fault | None) -> bool:
        """Decide the end; return whether this was the first decision, which counts."""
        if self.ending is not None:
            return False
        now = trio.current_time()
        self.ending = Ending(reason=reason, decided_at=now, fault=fault)
        self.work_scope.deadline = now + self._finish_seconds
        self.overdue_at = now + self._finish_seconds + 2 * self.close_seconds
        return True

    def hurry(self, *, finish_seconds: float, close_seconds: float, is_told: bool) -> None:
        """Give the end less time, also where it has begun; ``is_told`` says that the last events are on their way."""
        now = trio.current_time()
        self._finish_seconds = min(self._finish_seconds, finish_seconds)
        self.close_seconds = min(self.close_seconds, close_seconds)
        self.overdue_at = min(self.overdue_at, now + self._finish_seconds + 2 * self.close_seconds)
        if self.ending is not None:
            self.work_scope.deadline = min(self.work_scope.deadline, now + self._finish_seconds)
        if is_told:
            self._telling.deadline = min(self._telling.deadline, now + self.close_seconds)

    def say_goodbye(self) -> None:
        """The last events are on their way: they have the time that closing may take."""
        self._telling.deadline = trio.current_time() + self.close_seconds
