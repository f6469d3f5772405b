"""The seat of whoever answers: the protocol between a call (or a terminal) and an agent.

An agent is one object for all calls; what it knows of one call is that call's state, which the seat keeps. The seat tells
an agent what happened (:data:`TalkEvent`), the agent says sentences, one by one, so that the first is spoken while the next is
still being made. Whatever an agent does to the world it does after ``await turn.settled()``: until then the caller may speak on,
and the whole turn is cancelled and forgotten.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

import attrs
import trio

Say: TypeAlias = Callable[[str], Awaitable[None]]


@attrs.frozen
class Opened:
    """The call has begun; nobody has spoken."""

    at: float


@attrs.frozen
class Heard:
    """The caller said something, or typed it."""

    text: str
    at: float


@attrs.frozen
class Silence:
    """The caller has been silent for as long as they may."""

    at: float


@attrs.frozen
class TimeUp:
    """The time that :meth:`Agent.due` named has come."""

    at: float


@attrs.frozen
class HungUp:
    """The caller is gone; nothing can be said any more."""

    at: float


TalkEvent: TypeAlias = Opened | Heard | Silence | TimeUp | HungUp
"""``at``: seconds of Trio's clock."""


async def _at_once() -> None:
    """Be settled already."""


@attrs.define(kw_only=True)
class Turn:
    """One event and the answer to it.

    ``state`` is the call's state before; the agent puts the state after there as soon as it is decided, before it speaks, so
    that an answer that is interrupted has still been decided.
    """

    event: TalkEvent
    state: Any
    say: Say
    """Speaks one sentence; returns when there is room for the next."""
    settled: Callable[[], Awaitable[None]] = _at_once
    """Returns when it is sure that the caller has finished."""


class Agent(Protocol):
    """Who answers. One object serves any number of calls at once."""

    def begin(self, at: float) -> Any:
        """Return the state of a call that begins; any value that is not changed in place."""
        ...

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Do what has to be done beside calls, from before the first to behind the last; ``started()`` when calls may come."""
        ...

    async def reply(self, turn: Turn) -> None:
        """Answer an event; may be cancelled at any await, because the caller speaks or is gone."""
        ...

    def due(self, state: Any) -> float | None:
        """Return when to be told that time is up; None for never."""
        ...

    def is_over(self, state: Any) -> bool:
        """Whether the agent has said goodbye, and the call may be ended."""
        ...


class AgentFactory(Protocol):
    """What ``agent.factory`` names: called once, with nothing.

    If it has a parameter ``settings``, it is given a function that returns the :class:`~voice_agent.settings.schema.Settings`
    in force.
    """

    def __call__(self) -> Agent:
        """Return the agent."""
        ...
