"""The supervisor's decisions, under virtual time, over processes that are none."""

import math
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.worker import WorkerPlace
from voice_agent.observability.worker_metrics import METRICS_FILE, OPENMETRICS_FILE
from voice_agent.server.burdens import NOBODY, Burdens
from voice_agent.server.systemd import ServiceManager
from voice_agent.supervisor.run import MAX_FAILED_STARTS, Supervisor
from voice_agent.supervisor.slot import HANG_SECONDS, START_SECONDS

LOAD_SECONDS = 2.0
DRAIN_SECONDS = 20.0


@attrs.define(eq=False)
class Worker:
    """A process that is none: it lives by a script, and can be signalled and killed."""

    place: WorkerPlace
    pid: int
    began_at: float
    returncode: int | None = None
    signals: list[int] = attrs.field(factory=list)
    gone: trio.Event = attrs.field(factory=trio.Event)
    signalled: trio.Event = attrs.field(factory=trio.Event)

    @property
    def manager(self) -> ServiceManager:
        return ServiceManager(str(self.place.notify_path))

    def end(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self.gone.set()

    def kill(self) -> None:
        self.end(-signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)
        self.signalled.set()
        self.signalled = trio.Event()

    async def wait(self) -> int:
        await self.gone.wait()
        assert self.returncode is not None
        return self.returncode


Life = Callable[[Worker], Awaitable[None]]


async def healthy(worker: Worker) -> None:
    """Loads, serves, tells the watchdog, drains when it is told to, within a second."""
    await trio.sleep(LOAD_SECONDS)
    worker.manager.ready("taking calls")
    while not {signal.SIGTERM, signal.SIGINT} & set(worker.signals):
        if signal.SIGHUP in worker.signals:
            worker.signals.remove(signal.SIGHUP)
            worker.manager.reloading()
            await trio.sleep(0.5)
            worker.manager.ready()
        with trio.move_on_after(HANG_SECONDS / 2):
            await worker.signalled.wait()
        worker.manager._tell(WATCHDOG="1")
    worker.manager.stopping("draining", within_seconds=DRAIN_SECONDS, cause="SIGTERM")
    await trio.sleep(1)
    worker.end(0)


def crashes_after(seconds: float, code: int = -signal.SIGSEGV) -> Life:
    async def life(worker: Worker) -> None:
        await trio.sleep(LOAD_SECONDS)
        worker.manager.ready()
        with trio.move_on_after(seconds):
            while True:
                await trio.sleep(HANG_SECONDS / 2)
                worker.manager._tell(WATCHDOG="1")
        worker.end(code)

    return life


def never_serves(code: int) -> Life:
    async def life(worker: Worker) -> None:
        await trio.sleep(LOAD_SECONDS)
        worker.end(code)

    return life


async def hangs_at_start(worker: Worker) -> None:
    pass


async def hangs_later(worker: Worker) -> None:
    await trio.sleep(LOAD_SECONDS)
    worker.manager.ready()


async def never_drains(worker: Worker) -> None:
    await trio.sleep(LOAD_SECONDS)
    worker.manager.ready()
    while not worker.signals:
        with trio.move_on_after(HANG_SECONDS / 2):
            await worker.signalled.wait()
        worker.manager._tell(WATCHDOG="1")
    worker.manager.stopping("draining", within_seconds=DRAIN_SECONDS, cause="SIGTERM")


class Machine:
    """A machine with a supervisor on it. ``lives`` says how each worker lives, by its number, one after another."""

    def __init__(self, folder: Path, count: int, lives: dict[int, list[Life]]) -> None:
        self.folder = folder
        self.hang_seconds = HANG_SECONDS
        self.lives = lives
        self.workers: list[Worker] = []
        self.began_at = trio.current_time()
        self.told: list[dict[str, str]] = []
        self.listening_stopped_at = math.inf
        self.announced_at = math.inf
        self.ended_within = math.inf
        self._count = count
        self._send, self._signals = trio.open_memory_channel[int](10)
        self.manager = ServiceManager()
        self.manager._tell = lambda **told: self.told.append(told)  # type: ignore[method-assign]
        self.burdens = Burdens(folder, count, create=True)
        self.supervisor = Supervisor(
            count,
            self,  # type: ignore[arg-type]
            self.manager,
            burdens=self.burdens,
            grace_seconds=DRAIN_SECONDS,
            on_ready=lambda: setattr(self, "announced_at", self.now),
            stop_listening=lambda: setattr(self, "listening_stopped_at", self.now),
            last_resort=lambda seconds: setattr(self, "ended_within", seconds),
        )
        self._nursery: trio.Nursery

    @property
    def now(self) -> float:
        return trio.current_time() - self.began_at

    def place(self, number: int) -> WorkerPlace:
        return WorkerPlace(number=number, count=self._count, folder=self.folder)

    async def launch(self, number: int) -> Worker:
        worker = Worker(self.place(number), 1000 + len(self.workers), self.now)
        self.workers.append(worker)
        lives = self.lives.get(number, [])
        life = lives.pop(0) if lives else healthy

        async def live() -> None:
            async with trio.open_nursery() as nursery:

                async def die() -> None:
                    await worker.gone.wait()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(die)
                await life(worker)
                await worker.gone.wait()

        self._nursery.start_soon(live)
        return worker

    def signal(self, number: int) -> None:
        self._send.send_nowait(number)

    def of(self, number: int) -> list[Worker]:
        return [worker for worker in self.workers if worker.place.number == number]

    async def run(self, *script: tuple[float, int]) -> int:
        """Supervise; signals come at the times of the script."""

        async def send() -> None:
            for at, number in script:
                await trio.sleep(self.began_at + at - trio.current_time())
                self.signal(number)

        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(send)
            code = await self.supervisor.run(self._signals)
            self._nursery.cancel_scope.cancel()
        return code

    def metric(self, sample: str) -> float:
        text = (self.folder / METRICS_FILE).read_text()
        return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{sample} "))


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Callable[..., Machine]]:
    machines: list[Machine] = []

    def make(count: int = 2, **lives: Any) -> Machine:
        by_number = {int(name.removeprefix("w")): list(life) for name, life in lives.items()}
        machines.append(Machine(tmp_path, count, by_number))
        return machines[-1]

    yield make
    for it in machines:
        it.burdens.__exit__(None, None, None)
        it._send.close()
        it._signals.close()


async def test_the_first_worker_starts_alone_and_ready_is_said_when_all_are(
    machine: Any, autojump_clock: MockClock
) -> None:
    """What is wrong with the machine is told once; who waits for READY=1 finds all of them."""
    it = machine(3)
    assert await it.run((30, signal.SIGTERM)) == 0
    assert [round(worker.began_at, 1) for worker in it.workers] == [0, LOAD_SECONDS, LOAD_SECONDS]
    assert round(it.announced_at, 1) == 2 * LOAD_SECONDS
    assert [told for told in it.told if "READY" in told] == [
        {"READY": "1", "STATUS": "taking calls in 3 workers"}
    ]


async def test_all_drain_together_and_nobody_listens_meanwhile(
    machine: Any, autojump_clock: MockClock
) -> None:
    """SIGTERM is passed on once to each; the supervisor's own copy of the socket is closed, or callers would hang in it."""
    it = machine(2)
    assert await it.run((30, signal.SIGTERM)) == 0
    assert [worker.signals for worker in it.workers] == [[signal.SIGTERM], [signal.SIGTERM]]
    assert (round(it.listening_stopped_at), round(it.now)) == (30, 31)
    [stopping] = [told for told in it.told if "STOPPING" in told]
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= (DRAIN_SECONDS + 8) * 1e6


async def test_a_crashed_worker_is_followed_by_another_and_siblings_go_on(
    machine: Any, autojump_clock: MockClock
) -> None:
    """After a pause of half a second at most; in between, nobody takes it for one that has nothing to do."""
    it = machine(2, w2=[crashes_after(60)])
    assert await it.run((120, signal.SIGTERM)) == 0
    first, second = it.of(2)
    pause = second.began_at - (first.began_at + LOAD_SECONDS + 60)
    assert 0.25 <= pause <= 0.5
    assert len(it.of(1)) == 1
    assert it.metric('voice_agent_worker_restarts_total{cause="crashed",worker="2"}') == 1
    assert it.metric('voice_agent_worker_restarts_total{cause="crashed",worker="1"}') == 0


async def test_one_that_crashes_again_and_again_waits_longer_each_time(
    machine: Any, autojump_clock: MockClock
) -> None:
    """Up to half a minute; it is never given up while others serve."""
    it = machine(2, w2=[crashes_after(1)] * 12)
    assert await it.run((600, signal.SIGTERM)) == 0
    begins = [worker.began_at for worker in it.of(2)]
    pauses = [later - earlier - LOAD_SECONDS - 1 for earlier, later in pairwise(begins)]
    for count, pause in enumerate(pauses):
        longest = min(30, 0.5 * 2**count)
        assert longest / 2 <= round(pause, 6) <= longest
    assert len(it.of(1)) == 1


async def test_one_that_never_starts_is_given_up(
    machine: Any, autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five times in a row, and nobody serves: exit code 70, and words that say what happened."""
    it = machine(2, w1=[never_serves(1)] * 100)
    assert await it.run() == 70
    assert len(it.workers) == MAX_FAILED_STARTS
    assert "ended 5 times before it served (exit code 1)" in capsys.readouterr().err


async def test_wrong_settings_are_given_up_at_once(machine: Any, autojump_clock: MockClock) -> None:
    """They won't be right the next time."""
    it = machine(2, w1=[never_serves(78)] * 100)
    assert await it.run() == 78
    assert len(it.workers) == 1


async def test_a_server_that_serves_is_not_ended_by_a_worker_that_can_t_start(
    machine: Any, autojump_clock: MockClock
) -> None:
    """Somebody broke the settings file, then a worker crashed: the other worker's calls go on, and it is tried again."""
    it = machine(2, w2=[crashes_after(60), *[never_serves(78)] * 7])
    assert await it.run((600, signal.SIGTERM)) == 0
    assert len(it.of(2)) == 9
    assert it.of(1)[0].signals == [signal.SIGTERM]
    assert it.metric('voice_agent_worker_restarts_total{cause="not_started",worker="2"}') == 7


async def test_the_last_one_to_serve_that_can_t_start_again_ends_the_server(
    machine: Any, autojump_clock: MockClock
) -> None:
    """Nobody is left who serves: an orchestrator may find a better machine."""
    it = machine(1, w1=[crashes_after(60), *[never_serves(1)] * 100])
    assert await it.run() == 70
    assert len(it.workers) == 1 + MAX_FAILED_STARTS


async def test_a_worker_that_hangs_at_the_start_is_killed(machine: Any, autojump_clock: MockClock) -> None:
    """Nobody waits for it longer than two minutes."""
    it = machine(2, w1=[hangs_at_start])
    assert await it.run((START_SECONDS + 60, signal.SIGTERM)) == 0
    assert it.of(1)[0].returncode == -signal.SIGKILL
    assert START_SECONDS <= it.of(1)[1].began_at <= START_SECONDS + 0.5


async def test_a_worker_whose_loop_hangs_is_killed(machine: Any, autojump_clock: MockClock) -> None:
    """Its watchdog is silent: its callers' connections break, and they call another worker."""
    it = machine(2, w2=[hangs_later])
    assert await it.run((100, signal.SIGTERM)) == 0
    first, second = it.of(2)
    assert first.returncode == -signal.SIGKILL
    assert 0 <= second.began_at - (first.began_at + LOAD_SECONDS + HANG_SECONDS) <= 2
    assert it.metric('voice_agent_worker_restarts_total{cause="hung",worker="2"}') == 1


async def test_a_drain_that_hangs_is_ended(machine: Any, autojump_clock: MockClock) -> None:
    """The time that the worker said itself, and three seconds; the exit code tells of it."""
    it = machine(2, w2=[never_drains])
    assert await it.run((30, signal.SIGTERM)) == 70
    assert it.of(2)[0].returncode == -signal.SIGKILL
    assert 30 + DRAIN_SECONDS < it.now <= 30 + DRAIN_SECONDS + 4


async def test_a_second_signal_ends_all_at_once(machine: Any, autojump_clock: MockClock) -> None:
    """75, within a second, as a single server's."""
    it = machine(2, w1=[never_drains], w2=[never_drains])
    assert await it.run((30, signal.SIGTERM), (31, signal.SIGINT)) == 75
    assert it.now <= 32.1
    assert all(worker.returncode is not None for worker in it.workers)
    assert it.workers[0].signals == [signal.SIGTERM, signal.SIGINT]
    assert it.ended_within <= 10


async def test_the_worst_exit_code_is_the_supervisors(machine: Any, autojump_clock: MockClock) -> None:
    """One that ended badly in the drain is not hidden by those that did well."""

    async def ends_badly(worker: Worker) -> None:
        await trio.sleep(LOAD_SECONDS)
        worker.manager.ready()
        await worker.signalled.wait()
        worker.manager.stopping("draining", within_seconds=DRAIN_SECONDS, cause="SIGTERM")
        worker.end(70)

    it = machine(2, w1=[ends_badly])
    assert await it.run((20, signal.SIGTERM)) == 70


async def test_a_request_to_one_worker_drains_all_and_the_signal_after_it_cuts_nothing_short(
    machine: Any,
    autojump_clock: MockClock,
) -> None:
    """The orchestrator's SIGTERM comes after the request that began the drain; it is the first signal."""

    async def asked(worker: Worker) -> None:
        await trio.sleep(LOAD_SECONDS)
        worker.manager.ready()
        await trio.sleep(10)
        worker.manager.stopping("draining since request", within_seconds=DRAIN_SECONDS, cause="request")
        await trio.sleep(5)
        worker.end(0)

    it = machine(2, w2=[asked])
    assert await it.run((16, signal.SIGTERM)) == 0
    assert it.of(1)[0].signals == [signal.SIGTERM]
    assert it.of(2)[0].signals == []
    assert len(it.workers) == 2


async def test_a_worker_that_is_told_to_end_is_replaced(machine: Any, autojump_clock: MockClock) -> None:
    """SIGTERM to one worker renews it; that is no failure, and the next one comes at once."""

    async def told(worker: Worker) -> None:
        await trio.sleep(LOAD_SECONDS)
        worker.manager.ready()
        await trio.sleep(10)
        worker.manager.stopping("draining since SIGTERM", within_seconds=DRAIN_SECONDS, cause="SIGTERM")
        worker.end(0)

    it = machine(2, w2=[told])
    assert await it.run((30, signal.SIGTERM)) == 0
    first, second = it.of(2)
    assert round(second.began_at - first.began_at, 1) == LOAD_SECONDS + 10
    assert it.metric('voice_agent_worker_restarts_total{cause="replaced",worker="2"}') == 1


async def test_a_reload_is_over_when_all_have_reloaded(machine: Any, autojump_clock: MockClock) -> None:
    """SIGHUP reaches those that serve; one that starts has no handler yet, and reloads when it is ready."""
    it = machine(2, w2=[crashes_after(17.9)])
    # Worker 2 is started again at some 22.2 s, and would die of a SIGHUP now.
    assert await it.run((23, signal.SIGHUP), (60, signal.SIGTERM)) == 0
    assert it.of(2)[1].returncode == 0
    kinds = [next(iter(told)) for told in it.told if {"READY", "RELOADING"} & set(told)]
    assert kinds == ["READY", "RELOADING", "READY"]


async def test_a_signal_during_the_first_start_ends_it(machine: Any, autojump_clock: MockClock) -> None:
    """A worker that has no handler yet dies by the signal; that is no failure."""

    async def dies_of_signals(worker: Worker) -> None:
        await worker.signalled.wait()
        worker.end(-worker.signals[0])

    it = machine(2, w1=[dies_of_signals])
    assert await it.run((1, signal.SIGTERM)) == 0
    assert len(it.workers) == 1
    assert it.announced_at == math.inf


async def test_a_worker_that_is_not_there_has_no_calls(machine: Any, autojump_clock: MockClock) -> None:
    """What it had to do when it died would keep callers from the others, or lead them to it."""
    it = machine(2, w2=[crashes_after(10)])
    it.burdens.put(2, 0.0)
    await it.run((LOAD_SECONDS * 2 + 10.1, signal.SIGTERM))
    it.burdens.put(1, NOBODY - 1)
    assert it.burdens.before(2) == 1


async def test_its_figures_stand_beside_those_of_the_workers(machine: Any, autojump_clock: MockClock) -> None:
    """In both formats, whole at each moment."""
    it = machine(2)
    assert await it.run((3, signal.SIGTERM)) == 0
    assert (it.folder / OPENMETRICS_FILE).read_text().endswith("# EOF\n")
    assert it.metric('voice_agent_worker_ready{worker="1"}') == 0
