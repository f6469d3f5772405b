"""CloseWatch: looks at one close from outside of the call, names what it waits for, and forces it at its deadline.

1. A close that takes longer than ``session.slow_close_seconds`` is logged with its task tree, and counted.
2. One that is not over when each of its parts should have been is forced: the scopes around it are cancelled and its
   connection is closed, so that the caller is free.
3. What goes on even so can't be ended from here, a task that keeps itself from being cancelled for one. It is named
   again and again, counted as long as it lasts, and keeps its place among the calls.

It lives in the supervisor's nursery: a call's own tasks are what is in question.
"""

import logging
from collections.abc import Callable

import attrs
import structlog
import trio

from voice_agent.core.transport import Transport
from voice_agent.observability.metrics import NO_STAGE
from voice_agent.session.aside import start_aside
from voice_agent.session.closing import Closing
from voice_agent.session.services import Services
from voice_agent.session.stages import Stages
from voice_agent.session.task_tree import CallRoot, describe_tasks

log = structlog.get_logger(__name__)


@attrs.frozen
class Surroundings:
    """What is around a call: where its tasks begin, and what ends it when it doesn't end by itself.

    ``scope`` holds the whole call; None where it holds an embedding program's block too, which is not ours to cancel.
    """

    root: CallRoot
    scope: trio.CancelScope | None
    transport: Transport | None


class CloseWatch:
    """Watches one close, from the decision to end the call on; ``closed`` is set at its end.

    ``allowance`` says how many seconds the parts of the close may take together; a drain makes that less.
    """

    def __init__(
        self,
        services: Services,
        session_id: str,
        stages: Stages,
        closed: trio.Event,
        surroundings: Surroundings | None,
        allowance: Callable[[], float],
    ) -> None:
        self._metrics = services.metrics
        self._settings = services.settings.session
        self._session_id = session_id
        self._stages = stages
        self._closed = closed
        self._surroundings = surroundings
        self._allowance = allowance
        self._began_at = trio.current_time()

    async def run(self) -> None:
        """Watch until the call is closed."""
        if await self._is_closed_after(lambda: self._settings.slow_close_seconds):
            return
        self._metrics.slow_closes_total.labels(self._stage).inc()
        await self._tell("close_slow", logging.WARNING)
        if await self._is_closed_after(self._allowance):
            return
        self._metrics.close_overdue_total.labels(self._stage).inc()
        await self._tell("close_overdue", logging.ERROR)
        with self._metrics.stuck_closes.track_inprogress():
            await self._force()
            while not await self._is_closed_within(self._settings.close_timeout_seconds):
                await self._tell("close_stuck", logging.ERROR)

    @property
    def _stage(self) -> str:
        return self._stages.first_alive or self._stages.waited_for or NO_STAGE

    async def _is_closed_after(self, seconds: Callable[[], float]) -> bool:
        """Wait until so long after the close began, looking again and again how long that is."""
        while (left := self._began_at + seconds() - trio.current_time()) > 0:
            if await self._is_closed_within(min(left, self._settings.slow_close_seconds)):
                return True
        return self._closed.is_set()

    async def _is_closed_within(self, seconds: float) -> bool:
        with trio.move_on_after(seconds):
            await self._closed.wait()
        return self._closed.is_set()

    async def _force(self) -> None:
        around = self._surroundings
        if around is not None and around.scope is not None:
            around.scope.cancel()
        if around is not None and around.transport is not None:
            with trio.move_on_after(self._settings.close_timeout_seconds):
                try:
                    await around.transport.aclose()
                except Exception:
                    log.exception("close_failed", session=self._session_id)

    async def _tell(self, event: str, level: int) -> None:
        seconds = trio.current_time() - self._began_at
        stage, stages = self._stage, list(self._stages.alive)
        tasks = [] if self._surroundings is None else await describe_tasks(self._surroundings.root)
        log.log(
            level,
            event,
            session=self._session_id,
            stage=stage,
            stages=stages,
            seconds=round(seconds, 3),
            tasks=tasks,
        )


def start_close_watch(
    services: Services,
    session_id: str,
    stages: Stages,
    closed: trio.Event,
    surroundings: Surroundings | None,
    closing: Closing,
) -> None:
    """Have a close watched that was decided now, by the supervisor."""
    began_at = trio.current_time()
    watch = CloseWatch(
        services, session_id, stages, closed, surroundings, lambda: closing.overdue_at - began_at
    )
    try:
        start_aside(services.supervisor, "close watch", watch.run)
    except RuntimeError:
        # The embedding program closed the services first; the call still ends, only nobody watches it.
        log.warning("close_unwatched", session=session_id)
