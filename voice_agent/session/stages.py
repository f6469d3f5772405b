"""Stages: which children of a call are alive, and which of them its close had to wait for."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog
import trio

from voice_agent.core.stages import HEARING_STAGES, STAGES

log = structlog.get_logger(__name__)

NOTICEABLE_SECONDS: Final = 0.05
"""Stages that end within that of each other were not waited for one after the other."""


class Stages:
    """One call's stages, by the names in :data:`~voice_agent.core.stages.STAGES`.

    ``on_crash`` is told what a stage raised that is run here.
    """

    def __init__(self, on_crash: Callable[[ExceptionGroup[Exception]], None]) -> None:
        self._on_crash = on_crash
        self._alive: dict[str, None] = {}
        self._closing_since: float | None = None
        self.waited_for = ""
        """The stage that a close waited for; empty while, or when, it waited for none."""

    @property
    def alive(self) -> tuple[str, ...]:
        """Names of the stages that run now."""
        return tuple(self._alive)

    @property
    def first_alive(self) -> str:
        """The first of the stages that run now, in the order of the words: those behind it wait for it.

        What the caller sends is read for as long as it is heard, so readers aren't waited for before hearing has ended.
        """
        hearing = [name for name in self._alive if name in HEARING_STAGES]
        return min(hearing or self._alive, key=STAGES.index, default="")

    def begin_close(self) -> None:
        """From now on a stage that goes on is waited for."""
        self._closing_since = trio.current_time()

    async def run(self, name: str, job: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run one stage under its name; what it raises is told, and goes no further."""
        try:
            with self.running(name):
                await job(*args)
        except* Exception as group:
            log.exception("stage_crashed", stage=name)
            self._on_crash(group)

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        """Count the block as the stage ``name``."""
        self._alive[name] = None
        try:
            yield
        finally:
            del self._alive[name]
            if self._closing_since is not None:
                self._note_end_of(name, self._closing_since)

    def _note_end_of(self, name: str, waited_until: float) -> None:
        """Keep the last to end, and of those that end together the last in line."""
        now = trio.current_time()
        was_together = now - waited_until <= NOTICEABLE_SECONDS
        if was_together and (not self.waited_for or STAGES.index(name) < STAGES.index(self.waited_for)):
            return
        self.waited_for = name
        self._closing_since = now
