"""Supervise: several workers on one port, from the first start to the last exit code.

::

    root
     ├ signals       first: all drain; second: all end at once; SIGHUP: all read their settings again
     ├ keep alive    what systemd's watchdog wants to hear
     └ slots         one a worker; the first one starts before the others

Workers are copies of a template, which has loaded the models once (``launch.py``, ``template.py``). The supervisor binds the
address and never accepts: its workers do, from the same socket. It holds the one end of a pipe
whose other end each worker has; when it is gone, whatever the reason, that pipe closes, and the workers end.
"""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from voice_agent.access.anonymous import check_bind
from voice_agent.core.units import SECONDS
from voice_agent.observability.worker_metrics import METRICS_FILE, OPENMETRICS_FILE, WorkerMetrics
from voice_agent.server.burdens import NOBODY, Burdens
from voice_agent.server.last_resort import EXIT_SOFTWARE, end_process_after
from voice_agent.server.signals import EXIT_CUT_SHORT, OBEYED_SIGNALS
from voice_agent.server.sockets import listen
from voice_agent.server.stopping import LAST_RESORT_SECONDS
from voice_agent.server.systemd import ServiceManager
from voice_agent.settings.load import LoadedSettings
from voice_agent.supervisor.folder import open_folder
from voice_agent.supervisor.launch import Launcher, open_launcher
from voice_agent.supervisor.slot import HANG_SECONDS, OVERDUE_SECONDS, Ended, Slot, SlotHooks, State

MAX_FAILED_STARTS: Final = 5
CUT_SECONDS: Final = 1 * SECONDS
"""After a second signal, workers end by themselves at once; who has not after this, is killed."""
EXIT_SETTINGS: Final = 78
"""EX_CONFIG of sysexits.h: what a worker says that will not be better the next time."""

log = structlog.get_logger(__name__)

Addresses = Sequence[tuple[str, int]]


async def supervise(
    loaded: LoadedSettings,
    *,
    command: Sequence[str],
    on_listening: Callable[[Addresses], None],
) -> int:
    """Serve with as many workers as the settings say until SIGTERM or SIGINT; return the exit code.

    ``command`` is what a worker runs. ``on_listening`` is told when all of them serve.

    Raises:
        OperatorError: the address or the folder of the sockets can't be had, or the settings make serving impossible.
    """
    settings = loaded.settings
    check_bind(settings.access, host=settings.server.host)
    manager = ServiceManager.from_environ()
    hang_seconds = min(HANG_SECONDS, manager.watchdog_seconds or HANG_SECONDS)
    with trio.open_signal_receiver(*OBEYED_SIGNALS) as signals, ExitStack() as held:
        folder = held.enter_context(open_folder())
        count = settings.server.workers
        burdens = held.enter_context(Burdens(folder, count, create=True))
        lifeline = held.enter_context(_open_pipe())
        listeners = await listen(settings.server)
        held.callback(_close, listeners)
        addresses = [listener.socket.getsockname()[:2] for listener in listeners]
        async with open_launcher(
            loaded,
            command=command,
            folder=folder,
            listen_fds=[listener.socket.fileno() for listener in listeners],
            lifeline_fd=lifeline,
            hang_seconds=hang_seconds,
        ) as launcher:

            def stop_listening() -> None:
                _close(listeners)
                launcher.let_go()

            supervisor = Supervisor(
                count,
                launcher,
                manager,
                burdens=burdens,
                grace_seconds=settings.server.grace_seconds,
                on_ready=partial(on_listening, addresses),
                stop_listening=stop_listening,
                last_resort=end_process_after,
            )
            return await supervisor.run(signals)


class Supervisor:
    """Several slots, and what they do together."""

    def __init__(
        self,
        count: int,
        launcher: Launcher,
        manager: ServiceManager,
        *,
        burdens: Burdens,
        grace_seconds: float,
        on_ready: Callable[[], None],
        stop_listening: Callable[[], None],
        last_resort: Callable[[float], None],
    ) -> None:
        self.exit_code = 0
        self._launcher = launcher
        self._manager = manager
        self._burdens = burdens
        self._grace_seconds = grace_seconds
        self._on_ready = on_ready
        self._stop_listening = stop_listening
        self._last_resort = last_resort
        self._metrics = WorkerMetrics(count)
        self._first_serves = trio.Event()
        self._scope = trio.CancelScope()
        self._stopping = False
        self._signals_had = 0
        self._has_been_ready = False
        self._is_reloading = False
        hooks = SlotHooks(changed=self._changed, asked_to_stop=self._asked_to_stop, ended=self._ended)
        self._slots = [
            Slot(
                number,
                partial(launcher.launch, number),
                launcher.place(number).notify_path,
                hooks,
                hang_seconds=launcher.hang_seconds,
            )
            for number in range(1, count + 1)
        ]

    async def run(self, signals: AsyncIterator[int]) -> int:
        """Run the workers until all of them have ended for good; return the worst of their exit codes, or our own."""
        async with trio.open_nursery() as root:
            root.start_soon(self._obey, signals)
            root.start_soon(self._manager.keep_alive)
            self._write_metrics()
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for slot in self._slots:
                        nursery.start_soon(self._run_slot, slot, name=f"worker {slot.number}")
            root.cancel_scope.cancel()
        if self._scope.cancelled_caught and not self.exit_code:
            self.exit_code = EXIT_SOFTWARE
        return self.exit_code or max(map(_exit_code, self._slots))

    async def _run_slot(self, slot: Slot) -> None:
        if slot.number > 1:
            # What is wrong with the settings or the machine is told once, by the first worker; and the file of the store
            # is made, and brought to its newest form, by one alone.
            await self._first_serves.wait()
        await slot.run()

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGHUP:
                self._reload()
                continue
            name = signal.Signals(number).name
            self._signals_had += 1
            if self._signals_had > 1:
                log.warning("second_signal", signal=name)
                self._cut_short(signal.Signals(number))
            else:
                log.info("signal", signal=name)
                self._stop(name, signal.Signals(number))

    def _stop(self, cause: str, number: signal.Signals) -> None:
        """Have all workers drain; the first decision counts."""
        if self._stopping:
            return
        self._stopping = True
        seconds = self._grace_seconds + LAST_RESORT_SECONDS
        log.info("stopping", cause=cause, workers=len(self._slots))
        self._manager.stopping(f"draining since {cause}", within_seconds=seconds + OVERDUE_SECONDS)
        self._be_gone_within(seconds)
        # The workers hold the socket for their lame-duck seconds; with the last of them it is closed.
        self._stop_listening()
        for slot in self._slots:
            slot.end(None if slot.state is State.STOPPING else number)
        self._first_serves.set()

    def _be_gone_within(self, seconds: float) -> None:
        """A worker that stops is killed by its slot; what hangs behind that, ends with everything."""
        self._scope.deadline = max(
            trio.current_time() + seconds + 2 * OVERDUE_SECONDS,
            self._scope.deadline if self._scope.deadline < float("inf") else 0.0,
        )

    def _cut_short(self, number: signal.Signals) -> None:
        self.exit_code = EXIT_CUT_SHORT
        for slot in self._slots:
            slot.tell(number)
        self._scope.deadline = trio.current_time() + CUT_SECONDS
        self._last_resort(CUT_SECONDS + 2 * OVERDUE_SECONDS)

    def _reload(self) -> None:
        if self._stopping:
            return
        self._manager.reloading()
        self._is_reloading = True
        for slot in self._slots:
            slot.reload()
        self._note_reloaded()

    def _note_reloaded(self) -> None:
        if self._is_reloading and not any(slot.is_reloading for slot in self._slots):
            self._is_reloading = False
            self._manager.ready()

    def _changed(self, slot: Slot) -> None:
        if slot.state is State.SERVING:
            self._first_serves.set()
        else:
            self._burdens.put(slot.number, NOBODY)
        if slot.state is State.STOPPING and self._stopping:
            self._be_gone_within(slot.stops_within_seconds)
        serving = sum(it.state is State.SERVING for it in self._slots)
        if serving == len(self._slots) and not self._has_been_ready:
            self._has_been_ready = True
            log.info("workers_ready", workers=serving)
            self._manager.ready(f"taking calls in {serving} workers")
            self._on_ready()
        elif self._has_been_ready and not self._stopping:
            self._manager.status(f"taking calls in {serving} of {len(self._slots)} workers")
        self._note_reloaded()
        self._metrics.ready.labels(str(slot.number)).set(slot.state is State.SERVING)
        self._write_metrics()

    def _asked_to_stop(self, slot: Slot) -> None:
        log.info("asked_to_stop", worker=slot.number)
        self._stop("request", signal.SIGTERM)

    def _ended(self, slot: Slot, ended: Ended) -> None:
        self._metrics.restarts_total.labels(str(slot.number), ended.cause).inc()
        self._write_metrics()
        is_hopeless = ended.code == EXIT_SETTINGS and not self._has_been_ready
        others_serve = any(it.state is State.SERVING for it in self._slots) and self._has_been_ready
        if is_hopeless or (slot.failed_starts >= MAX_FAILED_STARTS and not others_serve):
            self.exit_code = EXIT_SETTINGS if ended.code == EXIT_SETTINGS else EXIT_SOFTWARE
            log.error(
                "workers_given_up", worker=slot.number, code=ended.code, failed_starts=slot.failed_starts
            )
            sys.stderr.write(
                f"voice-agent: worker {slot.number} ended {slot.failed_starts} times before it served "
                f"({_in_words(ended.code)}); its own lines above say why; giving up\n"
            )
            self._stop("workers_given_up", signal.SIGTERM)

    def _write_metrics(self) -> None:
        for name, openmetrics in ((METRICS_FILE, False), (OPENMETRICS_FILE, True)):
            _replace(self._launcher.folder / name, self._metrics.render(openmetrics=openmetrics))


def _close(listeners: Sequence[trio.SocketListener]) -> None:
    for listener in listeners:
        listener.socket.close()


def _replace(path: Path, content: bytes) -> None:
    """Write a file that others read, whole at each moment."""
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def _exit_code(slot: Slot) -> int:
    """Return how bad the last worker's end was: a signal that nobody meant is a defect."""
    return EXIT_SOFTWARE if slot.code < 0 else slot.code


def _in_words(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


@contextmanager
def _open_pipe() -> Iterator[int]:
    """Open a pipe that nobody writes to; return the end that workers read, which ends when this process does."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)
