"""How busy the workers are and how long work waits, at present: on a clock of the test's own, then in a real queue."""

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.speech.batching import open_work_queue
from voice_agent.speech.work_meter import FADING_SECONDS, WorkMeter


def test_busy_time_is_that_of_all_workers_and_counts_work_that_goes_on() -> None:
    """Two workers at once count twice; what has begun and not ended counts already."""
    meter = WorkMeter(2)
    assert meter.busy_seconds(100.0) == 0
    meter.begin(100.0)
    assert meter.busy_seconds(101.0) == 1
    meter.begin(101.0)
    assert meter.busy_seconds(103.0) == 5
    meter.end(103.0)
    meter.end(104.0)
    assert meter.busy_seconds(1000.0) == 6


def test_the_wait_follows_what_waits_and_fades() -> None:
    """About ten jobs make it what they all waited; afterwards it fades, for nothing says that it is still so."""
    meter = WorkMeter(1)
    assert meter.wait_seconds(0.0) == 0
    for n in range(30):
        meter.note_wait(0.5, n * 0.1)
    assert meter.wait_seconds(2.9) == pytest.approx(0.5, rel=0.2)
    assert meter.wait_seconds(2.9 + 3 * FADING_SECONDS) == pytest.approx(0.025, rel=0.2)


def test_one_slow_job_is_no_overload() -> None:
    """One wait of a second among many of none makes a fifth of it, for a moment."""
    meter = WorkMeter(1)
    for n in range(10):
        meter.note_wait(0.0, n * 0.1)
    meter.note_wait(1.0, 1.0)
    assert meter.wait_seconds(1.0) == pytest.approx(0.2)


def test_who_waits_now_is_seen_before_they_are_served() -> None:
    """A job that has waited for two seconds and still waits says more than the mean of those before it."""
    meter = WorkMeter(1)
    meter.attach(lambda: 8.0)
    assert meter.wait_seconds(10.0) == 2


async def test_a_queue_tells_its_meter(autojump_clock: MockClock) -> None:
    """Busy while a batch runs; jobs that can be dropped count as work, and never as waiting."""
    meter = WorkMeter(1)
    release = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def run(jobs: Sequence[str], is_abandoned: Callable[[int], bool]) -> list[str]:
        trio.from_thread.run(release.wait, trio_token=token)
        return list(jobs)

    async with (
        open_work_queue(run, worker_threads=1, max_batch=1, max_waiting=10, meter=meter) as queue,
        trio.open_nursery() as nursery,
    ):
        began_at = trio.current_time()
        nursery.start_soon(queue.submit, "first")
        await wait_all_tasks_blocked()
        nursery.start_soon(lambda: queue.submit("partial", urgency=2, key="k", is_droppable=True))
        await wait_all_tasks_blocked()
        assert meter.wait_seconds(began_at + 5) == 0
        nursery.start_soon(queue.submit, "second")
        await wait_all_tasks_blocked()
        assert meter.wait_seconds(began_at + 5) == pytest.approx(5)
        assert meter.busy_seconds(began_at + 5) == pytest.approx(5)
        release.set()
    assert meter.wait_seconds(trio.current_time()) < 5
    busy = meter.busy_seconds(trio.current_time())
    assert meter.busy_seconds(trio.current_time() + 100) == busy
