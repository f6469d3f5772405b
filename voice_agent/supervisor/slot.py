"""Slot: one worker's place over the life of a server; who dies in it is followed by another one.

::

    run ──> serve once ──> wait (backoff) ──> serve once ──> …      until it is told to end
             ├ hear      what the worker tells, as it would tell systemd
             ├ watch     that it starts, goes on turning, and stops in time; else it is killed
             └ the process itself, which is killed when this is cancelled
"""

import signal
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

import attrs
import structlog
import trio

from voice_agent.core.units import MINUTES, SECONDS
from voice_agent.supervisor.backoff import Backoff
from voice_agent.supervisor.notices import hear, open_notices

START_SECONDS: Final = 2 * MINUTES
"""A worker that does not serve by then is killed; it loads its models in a second or two."""
HANG_SECONDS: Final = 30 * SECONDS
"""A worker whose event loop was silent for so long is killed; it tells twice in that time."""
OVERDUE_SECONDS: Final = 3 * SECONDS
"""A worker that stops has a last resort of its own; so long after it, it is killed."""
KILLED_SECONDS: Final = 5 * SECONDS
STALL_SECONDS: Final = 1 * SECONDS
"""What this process itself may have been held up: what was told meanwhile is heard first."""
USEC_PER_SECOND: Final = 1_000_000

log = structlog.get_logger(__name__)


class Child(Protocol):
    """A process, as far as a slot knows it; trio's are."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        ...

    async def wait(self) -> int:
        """Wait until it has ended, and return that."""
        ...

    def send_signal(self, sig: signal.Signals) -> None:
        """Signal it; one that has ended already is no error."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


class State(Enum):
    """What goes on in a slot."""

    WAITING = "waiting"
    """Nothing runs: not yet, or not again yet."""
    STARTING = "starting"
    SERVING = "serving"
    STOPPING = "stopping"
    ENDED = "ended"


@attrs.frozen(kw_only=True)
class Ended:
    """How a worker ended that nobody had told to."""

    code: int
    """Its exit code, or minus the signal that ended it."""
    cause: str
    """One of ``observability.worker_metrics.RESTART_CAUSES``."""


@attrs.frozen(kw_only=True)
class SlotHooks:
    """What a slot tells its supervisor."""

    changed: Callable[["Slot"], None]
    """Its state is another one."""
    asked_to_stop: Callable[["Slot"], None]
    """Its worker was asked by a request to stop the server."""
    ended: Callable[["Slot", Ended], None]
    """Its worker ended by itself; the next one comes after a pause, unless the slot is told to end now."""


class Slot:
    """One worker after another; ``launch`` starts a process that tells its life at ``notify_path``."""

    def __init__(
        self,
        number: int,
        launch: Callable[[], Awaitable[Child]],
        notify_path: Path,
        hooks: SlotHooks,
        *,
        hang_seconds: float = HANG_SECONDS,
        backoff: Backoff | None = None,
    ) -> None:
        self.number = number
        self.state = State.WAITING
        self.code = 0
        """The exit code of the last worker."""
        self.failed_starts = 0
        """How many workers in a row ended before they served."""
        self.is_reloading = False
        """Whether the worker was told to read its settings again, and has not said yet that it has."""
        self.stops_within_seconds = 0.0
        """What the worker said about its drain."""
        self._launch = launch
        self._notify_path = notify_path
        self._hooks = hooks
        self._hang_seconds = hang_seconds
        self._backoff = backoff or Backoff()
        self._process: Child | None = None
        self._told_to_end = trio.Event()
        self._reload_when_ready = False
        self._cause = ""
        self._heard_at = 0.0
        self._stop_by = 0.0
        self._news = trio.Event()

    async def run(self) -> None:
        """Have a worker in the slot until :meth:`end`; cancelled, it kills the one that there is."""
        while not self._told_to_end.is_set():
            began_at = trio.current_time()
            ended = await self._serve_once()
            if self._told_to_end.is_set():
                break
            (log.info if ended.cause == "replaced" else log.error)(
                "worker_ended",
                worker=self.number,
                code=ended.code,
                cause=ended.cause,
            )
            self.failed_starts = self.failed_starts + 1 if ended.cause == "not_started" else 0
            self._hooks.ended(self, ended)
            if ended.cause != "replaced":
                seconds = self._backoff.failed(after_seconds=trio.current_time() - began_at)
                with trio.move_on_after(seconds):
                    await self._told_to_end.wait()
        self._become(State.ENDED)

    def end(self, number: signal.Signals | None) -> None:
        """Let nobody follow; the worker is signalled, or, with None, ends by itself."""
        self._told_to_end.set()
        if number is not None:
            self.tell(number)

    def tell(self, number: signal.Signals) -> None:
        """Signal the worker, if there is one."""
        if self._process is not None:
            self._process.send_signal(number)

    def reload(self) -> None:
        """Have the worker read its settings again; one that starts does it when it is ready, and has no handler before."""
        if self.state is State.SERVING:
            self.is_reloading = True
            self.tell(signal.SIGHUP)
        else:
            self._reload_when_ready = self.state is State.STARTING

    async def _serve_once(self) -> Ended:
        self._cause = ""
        self.stops_within_seconds = 0.0
        with open_notices(self._notify_path) as bound:
            self._become(State.STARTING)
            process = self._process = await self._launch()
            log.info("worker_started", worker=self.number, pid=process.pid)
            if self._told_to_end.is_set():  # while it was being launched
                process.send_signal(signal.SIGTERM)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(hear, bound, self._heard)
                    nursery.start_soon(self._watch, process)
                    code = await process.wait()
                    nursery.cancel_scope.cancel()
            finally:
                self._process = None
                if process.returncode is None:
                    process.kill()
                    with trio.CancelScope(shield=True, deadline=trio.current_time() + KILLED_SECONDS):
                        await process.wait()
        return self._after(code)

    def _after(self, code: int) -> Ended:
        """Judge how the worker ended, and be ready for the next one."""
        had_served = self.state in {State.SERVING, State.STOPPING}
        # Who is told to stop before it can listen to signals dies by the signal; nobody's words are lost by that.
        self.code = code if had_served or not self._told_to_end.is_set() else 0
        if not self._cause:
            if not had_served:
                self._cause = "not_started"
            else:
                self._cause = "replaced" if code == 0 else "crashed"
        self.is_reloading = self._reload_when_ready = False
        self._become(State.WAITING)
        return Ended(code=code, cause=self._cause)

    async def _watch(self, process: Child) -> None:
        self._heard_at = trio.current_time()
        await self._until(State.SERVING, State.STOPPING, seconds=START_SECONDS)
        if self.state is State.STARTING:
            self._kill(process, "not_started", f"it did not serve within {START_SECONDS:g} s")
        while self.state is State.SERVING:
            heard_at = self._heard_at
            await self._until(State.STOPPING, seconds=heard_at + self._hang_seconds - trio.current_time())
            if self.state is State.SERVING and self._heard_at == heard_at:
                await trio.sleep(STALL_SECONDS)
                if self._heard_at == heard_at:
                    self._kill(process, "hung", f"it was silent for {self._hang_seconds:g} s")
                    return
        if self.state is State.STOPPING:
            await trio.sleep(self.stops_within_seconds + OVERDUE_SECONDS)
            self._kill(process, "hung", "its drain did not end")

    async def _until(self, *states: State, seconds: float) -> None:
        """Wait until the worker is in one of the states, so long at most."""
        with trio.move_on_after(max(0.0, seconds)):
            while self.state not in states:
                await self._news.wait()

    def _kill(self, process: Child, cause: str, reason: str) -> None:
        self._cause = cause
        log.error("worker_killed", worker=self.number, pid=process.pid, reason=reason)
        process.kill()

    def _heard(self, notice: Mapping[str, str]) -> None:
        self._heard_at = trio.current_time()
        if "STOPPING" in notice:
            microseconds = notice.get("EXTEND_TIMEOUT_USEC", "")
            self.stops_within_seconds = (
                int(microseconds) / USEC_PER_SECOND if microseconds.isdecimal() else 0.0
            )
            self._become(State.STOPPING)
            if notice.get("X_CAUSE") == "request" and not self._told_to_end.is_set():
                self._hooks.asked_to_stop(self)
        elif "READY" in notice and self.state is not State.STOPPING:
            self.is_reloading = False
            self._become(State.SERVING)
            if self._reload_when_ready:
                self._reload_when_ready = False
                self.reload()

    def _become(self, state: State) -> None:
        self.state = state
        self._news.set()
        self._news = trio.Event()
        self._hooks.changed(self)
