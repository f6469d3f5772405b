"""Readiness: whether a new call would be served, found out by looking and not by hoping.

Each thing that the server needs has a check, which looks again and again in a task of its own, under a time limit.
``/readyz`` tells what was found last; so it answers at once whatever hangs, and asking often costs nothing. What was
found is worth nothing when it is old: a check that can't even be ended makes the server unready too.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, NoReturn

import attrs
import structlog
import trio

from voice_agent.core.errors import VoiceAgentError
from voice_agent.observability.metrics import Metrics
from voice_agent.server.calls import CallDesk
from voice_agent.settings.schema import ReadinessSettings
from voice_agent.web.app import Readiness

Check = Callable[[], Awaitable[str]]
"""Returns a few words on what was found. Raises :class:`NotWorkingError` when it does not work, or waits too long."""

FIRST_LOOK_EXTRA_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


class NotWorkingError(Exception):
    """A check found something that does not work; the message says what, and holds no path and no secret."""


@attrs.frozen(kw_only=True)
class Finding:
    """What a check found; ``seconds`` is how long it looked, ``at`` when, on Trio's clock."""

    is_ok: bool
    seconds: float
    message: str
    at: float


class ReadinessChecks:
    """The checks of a server; :meth:`run` looks, :meth:`findings` tells."""

    def __init__(self, settings: ReadinessSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._checks: dict[str, Check] = {}
        self._findings: dict[str, Finding] = {}

    def add(self, name: str, check: Check) -> None:
        """Have something looked at; before :meth:`run`."""
        self._checks[name] = check
        self._metrics.check_ok.labels(name).set(0)

    def findings(self) -> Iterator[tuple[str, Finding]]:
        """Yield what was found last, by name; what is too old, or was not found out yet, is not ok."""
        now = trio.current_time()
        max_age = 2 * self._settings.interval_seconds + self._settings.timeout_seconds
        for name in self._checks:
            found = self._findings.get(name)
            if found is None:
                yield name, Finding(is_ok=False, seconds=0, message="not looked at yet", at=now)
            elif now - found.at > max_age:
                yield name, attrs.evolve(found, is_ok=False, message="the check itself hangs")
            else:
                yield name, found

    @property
    def are_ok(self) -> bool:
        """Whether all is well."""
        return all(found.is_ok for _, found in self.findings())

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Look until cancelled; started when each check has looked once, or had the time to."""
        async with trio.open_nursery() as nursery:
            looked = [trio.Event() for _ in self._checks]
            for (name, check), event in zip(self._checks.items(), looked, strict=True):
                nursery.start_soon(self._look_again_and_again, name, check, event, name=f"check {name}")
            with trio.move_on_after(self._settings.timeout_seconds + FIRST_LOOK_EXTRA_SECONDS):
                for event in looked:
                    await event.wait()
            task_status.started()
        raise AssertionError("the checks never end")

    async def _look_again_and_again(self, name: str, check: Check, looked: trio.Event) -> NoReturn:
        while True:
            self._note(name, await self._look(name, check))
            looked.set()
            await trio.sleep(self._settings.interval_seconds)

    async def _look(self, name: str, check: Check) -> Finding:
        began_at = trio.current_time()
        is_ok, message = False, f"no answer within {self._settings.timeout_seconds:g} s"
        with trio.move_on_after(self._settings.timeout_seconds):
            try:
                message = await check()
                is_ok = True
            except (NotWorkingError, VoiceAgentError) as error:
                message = str(error)
            except Exception as error:
                log.exception("check_crashed", check=name)
                message = f"the check failed: {type(error).__name__}"
        now = trio.current_time()
        return Finding(is_ok=is_ok, seconds=now - began_at, message=message, at=now)

    def _note(self, name: str, found: Finding) -> None:
        before = self._findings.get(name)
        self._findings[name] = found
        self._metrics.check_ok.labels(name).set(found.is_ok)
        if not found.is_ok and (before is None or before.is_ok):
            log.warning("check_failed", check=name, found=found.message, seconds=round(found.seconds, 3))
        if found.is_ok and before is not None and not before.is_ok:
            log.info("check_recovered", check=name, found=found.message)


def readiness(desk: CallDesk, checks: ReadinessChecks | None = None) -> Readiness:
    """Return whether a new call would be served, and why not; does not wait."""
    calls = len(desk.registry)
    reasons = {
        "draining": not desk.is_open,
        "full": desk.registry.is_full,
        "overloaded": desk.is_overloaded,
    }
    takes_calls = not any(reasons.values())
    detail: dict[str, Any] = {"calls": calls, **reasons}
    if checks is None:
        return Readiness(is_ready=takes_calls, detail=detail)
    now = trio.current_time()
    detail["checks"] = {
        name: {
            "ok": found.is_ok,
            "seconds": round(found.seconds, 4),
            "age_seconds": round(now - found.at, 1),
            "message": found.message,
        }
        for name, found in checks.findings()
    }
    return Readiness(is_ready=takes_calls and checks.are_ok, detail=detail)
