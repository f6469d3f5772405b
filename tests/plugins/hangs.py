"""No test hangs in silence: one that is over its limit says what everything waits for, is cancelled, and fails.

How long a test may take, with its fixtures, is pytest-timeout's affair: ``timeout`` in pyproject.toml, the marker
``timeout`` and ``--timeout``. What happens then is decided here, because the plugin's own way throws an exception into
Trio's loop, and has no limit for what hangs afterwards, in a teardown:

1. What runs is printed: the stacks of all threads, the tasks of Trio and of asyncio, the child processes.
2. What runs in Trio is cancelled, so that its cleanup runs as it does for a user; anything else is interrupted by a failure.
3. What still runs ``timeout_grace`` seconds later loses its shields.
4. What still runs after as long again is interrupted without regard, and so on, part by part.
5. A main thread that can't be interrupted, because native code hangs, ends the process, with the stacks.

SIGUSR1 does the first two and then ends the run: ``scripts/test`` sends it when the whole run is over its own limit.
"""

import faulthandler
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Any, Final

import pytest
import pytest_timeout
import trio
from whereabouts import describe_everything

DEAF_SECONDS: Final = 60
"""How long after its limit a main thread may run no Python at all."""
MAX_INTERRUPTIONS: Final = 10
"""A test with more parts that hang than this isn't waited for."""


class Watch:
    """The alarm clock of the run; one test at a time is under it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._grace_seconds = float(config.getini("timeout_grace"))
        self._item: pytest.Item | None = None
        self._why: str | None = None
        self._interruptions = 0
        self._is_in_part = False
        self._is_unshielded = False
        self._abandoned: Generator[Any, Any, Any] | None = None
        self._limit_seconds = 0.0
        self.worker_pids: set[int] = set()
        # Standard error itself: what pytest captures during a test isn't shown when the process is ended.
        self._stderr = os.dup(sys.__stderr__.fileno()) if sys.__stderr__ is not None else 2
        signal.signal(signal.SIGALRM, self._on_alarm)
        signal.signal(signal.SIGUSR1, self._on_run_over)

    def close(self) -> None:
        """Leave it to the fault handler to say what hangs while the interpreter ends."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGUSR1, file=self._stderr)

    def begin(self, item: pytest.Item) -> None:
        """Begin a test."""
        self._item, self._why, self._interruptions = item, None, 0

    def arm(self, limit_seconds: float) -> None:
        """Limit it."""
        self._limit_seconds = limit_seconds
        signal.setitimer(signal.ITIMER_REAL, limit_seconds, self._grace_seconds)
        faulthandler.dump_traceback_later(limit_seconds + DEAF_SECONDS, exit=True, file=self._stderr)

    def disarm(self) -> None:
        """Limit it no longer."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        faulthandler.cancel_dump_traceback_later()

    def end(self) -> None:
        """End the test."""
        self.disarm()
        self._item = None

    def begin_part(self) -> None:
        """Begin the set-up, the call or the teardown; what lies between them is pytest's own, and isn't interrupted."""
        self._is_in_part, self._is_unshielded = True, False
        if self._interruptions:
            self._give_grace()

    def end_part(self) -> str | None:
        """End it, and return why it has failed, whatever came of it."""
        self._is_in_part = False
        if self._abandoned is not None:
            # Or it would end some time, whenever its memory is collected, and take the next test's loop for its own.
            with suppress(Exception), warnings.catch_warnings(action="ignore"):
                self._abandoned.close()
            self._abandoned = None
        why, self._why = self._why, None
        return why

    def _give_grace(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._grace_seconds, self._grace_seconds)

    def _on_alarm(self, _number: int, frame: Any) -> None:
        if not self._is_in_part or pytest_timeout.is_debugging():
            return
        self._interruptions += 1
        if self._interruptions < MAX_INTERRUPTIONS:
            faulthandler.dump_traceback_later(DEAF_SECONDS, exit=True, file=self._stderr)
        if self._interruptions == 1:
            self._interrupt(f"took longer than its limit of {self._limit_seconds:g} s", frame)
        elif self._why is not None and not self._is_unshielded:
            self._is_unshielded = True
            self._interrupt("goes on after it was cancelled; shields are taken away", frame)
        else:
            self._tell("still hangs, and is interrupted", frame)
            self._give_grace()
            self._abandoned = _running_loop(frame)
            pytest.fail(f"hung for {self._grace_seconds:g} s after it was cancelled or interrupted")

    def _on_run_over(self, _number: int, frame: Any) -> None:
        if self.worker_pids:
            # Each says what it was at; the run ends when they have ended.
            for pid in self.worker_pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1)
            return
        if self._item is None:
            self._tell("was over its limit between two tests", frame)
            pytest.exit("the run took longer than its limit")
        self._item.session.shouldfail = "the run took longer than its limit"
        self._interruptions += 1
        if not self._is_in_part:
            self._tell("had just begun or ended when the whole run was over its limit", frame)
            return
        self._interrupt("was running when the whole run was over its limit", frame)

    def _interrupt(self, why: str, frame: Any) -> None:
        self._tell(why, frame)
        self._give_grace()
        if _cancel_trio(is_unshielded=self._is_unshielded):
            self._why = self._why or why
        else:
            pytest.fail(f"the test {why}")

    def _tell(self, why: str, frame: Any) -> None:
        """Print it, not to be interrupted; :meth:`_give_grace` lets time go on."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        name = self._item.nodeid if self._item is not None else "the run"
        text = "\n".join(
            ["", f"{' a hang ':+^110}", f"{name} {why}", *describe_everything(frame), "+" * 110, ""]
        )
        os.write(self._stderr, text.encode(errors="replace"))


def _cancel_trio(*, is_unshielded: bool) -> bool:
    """Cancel what runs in this thread's Trio: the nurseries that its main task has opened."""
    if not trio.lowlevel.in_trio_run():
        return False

    def cancel() -> None:
        for nursery in trio.lowlevel.current_root_task().child_nurseries:
            for task in nursery.child_tasks:
                for opened in task.child_nurseries:
                    opened.cancel_scope.cancel()
                    if is_unshielded:
                        _unshield(opened)

    trio.lowlevel.current_trio_token().run_sync_soon(cancel)
    return True


def _unshield(nursery: trio.Nursery) -> None:
    for task in nursery.child_tasks:
        status = task._cancel_status
        while status is not None:
            status._scope.shield = False
            status = status._parent
        for opened in task.child_nurseries:
            _unshield(opened)


def _running_loop(frame: Any) -> Generator[Any, Any, Any] | None:
    """Return Trio's loop where it waits for the system, and would be left as if it still ran."""
    while frame is not None:
        if frame.f_code is trio.run.__code__:
            return frame.f_locals.get("gen")
        frame = frame.f_back
    return None


_WATCH: Final = pytest.StashKey[Watch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "timeout_grace", "Seconds between the attempts to end a test that is over its limit", default="20"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_WATCH] = Watch(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_WATCH].close()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodeready(node: Any) -> None:
    """Know the processes of pytest-xdist, in the one that leads them."""
    node.config.stash[_WATCH].worker_pids.add(node.gateway._io.popen.pid)  # told nowhere else


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    item.config.stash[_WATCH].arm(settings.timeout)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Be asked when a test has failed, in case a debugger opens, and at the end; only the debugger counts."""
    if item.config.getoption("usepdb"):
        item.config.stash[_WATCH].disarm()
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    watch = item.config.stash[_WATCH]
    watch.begin(item)
    try:
        return (yield)
    finally:
        watch.end()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    return (yield from _fail_if_overdue(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    return (yield from _fail_if_overdue(item))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    return (yield from _fail_if_overdue(item))


def _fail_if_overdue(item: pytest.Item) -> Iterator[None]:
    """What was cancelled has failed, even where it took the cancellation for an end."""
    watch = item.config.stash[_WATCH]
    watch.begin_part()
    try:
        result = yield
    except BaseException as error:
        why = watch.end_part()
        if why is not None:
            error.add_note(f"the test {why}; it was cancelled where this traceback ends")
        raise
    why = watch.end_part()
    if why is not None:
        pytest.fail(f"the test {why}")
    return result
