"""The work queue's fairness, its reports, and what the close gives to those who still wait."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.speech.batching import BatchReport, WorkQueue, open_work_queue

PATIENCE_SECONDS = 5
"""No thread in these tests waits longer, or the test fails."""


@attrs.define
class GatedModel:
    """Echoes its jobs in capitals; each batch waits for the gate, fails on "bad", and can be told to give up."""

    batches: list[list[str]] = attrs.field(factory=list)
    began: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    gate: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    gives_up: bool = False
    has_given_up: bool = False

    def run_batch(self, jobs: Sequence[str], is_abandoned: Callable[[int], bool]) -> Sequence[str | None]:
        self.batches.append(list(jobs))
        self.began.release()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.gate.acquire(timeout=0.002):
            assert time.monotonic() < deadline
            if self.gives_up and all(is_abandoned(place) for place in range(len(jobs))):
                self.has_given_up = True
                return [None for _ in jobs]
        if "bad" in jobs:
            raise ZeroDivisionError("bad")
        return [job.upper() for job in jobs]

    async def wait_until_begun(self) -> None:
        assert await trio.to_thread.run_sync(lambda: self.began.acquire(timeout=PATIENCE_SECONDS))


@asynccontextmanager
async def open_queue(
    model: GatedModel, reports: list[BatchReport] | None = None, *, max_batch: int = 1, max_waiting: int = 100
) -> AsyncIterator[WorkQueue[str, str]]:
    """One worker."""
    async with open_work_queue(
        model.run_batch,
        worker_threads=1,
        max_batch=max_batch,
        max_waiting=max_waiting,
        on_batch=(reports if reports is not None else []).append,
    ) as queue:
        yield queue


async def submit_and_settle(
    nursery: trio.Nursery, queue: WorkQueue[str, str], answers: dict[str, Any], job: str, **options: Any
) -> None:
    """Submit a job; return when it stands where it will stand."""

    async def ask() -> None:
        try:
            answers[job] = await queue.submit(job, **options)
        except RecognitionFailedError as error:
            answers[job] = error

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()


async def test_who_waits_for_a_place_gets_it_in_turn() -> None:
    """Eight jobs of one urgency and room for one: they are done in the order in which they came."""
    model, answers = GatedModel(), {}
    jobs = [f"job {number}" for number in range(9)]
    async with open_queue(model, max_waiting=1) as queue, trio.open_nursery() as nursery:
        for job in jobs:
            await submit_and_settle(nursery, queue, answers, job)
        for _ in jobs:
            await model.wait_until_begun()
            await wait_all_tasks_blocked()
            assert queue.waiting <= 1
            model.gate.release()
    assert model.batches == [[job] for job in jobs]


async def test_a_newer_partial_takes_the_place_of_the_older_in_a_full_queue() -> None:
    """A call whose partial waits is not refused its next one for want of a place."""
    model, answers = GatedModel(), {}
    async with open_queue(model, max_waiting=1) as queue, trio.open_nursery() as nursery:
        await submit_and_settle(nursery, queue, answers, "busy")
        await submit_and_settle(nursery, queue, answers, "old", key="a", urgency=2, is_droppable=True)
        await submit_and_settle(nursery, queue, answers, "new", key="a", urgency=2, is_droppable=True)
        assert answers == {"old": None}
        model.gate.release(2)
    assert answers == {"busy": "BUSY", "old": None, "new": "NEW"}


async def test_what_has_no_urgency_is_most_urgent() -> None:
    """A job whose submitter says nothing waits behind no other."""
    model, answers = GatedModel(), {}
    async with open_queue(model) as queue, trio.open_nursery() as nursery:
        await submit_and_settle(nursery, queue, answers, "busy")
        await submit_and_settle(nursery, queue, answers, "less", urgency=1)
        await submit_and_settle(nursery, queue, answers, "plain")
        model.gate.release(3)
    assert model.batches == [["busy"], ["plain"], ["less"]]


async def test_being_refused_is_a_checkpoint() -> None:
    """A caller whose partials are refused one after the other does not keep the event loop to itself."""
    model, answers = GatedModel(), {}
    async with open_queue(model, max_waiting=1) as queue, trio.open_nursery() as nursery:
        await submit_and_settle(nursery, queue, answers, "busy")
        await submit_and_settle(nursery, queue, answers, "placed")
        with assert_checkpoints():
            assert await queue.submit("refused", urgency=2, is_droppable=True) is None
        model.gate.release(2)


async def test_a_single_job_that_fails_is_not_tried_again() -> None:
    """It has been alone already: a second try would cost the others its time for nothing."""
    model, answers = GatedModel(), {}
    async with open_queue(model) as queue, trio.open_nursery() as nursery:
        model.gate.release(2)
        await submit_and_settle(nursery, queue, answers, "bad")
    assert isinstance(answers["bad"], RecognitionFailedError)
    assert model.batches == [["bad"]]


async def test_reports_tell_the_seconds_of_waiting_and_of_running(mock_clock: MockClock) -> None:
    """Waiting is from the submission to the start of the batch, for each member; running is the batch's own time."""
    model, answers, reports = GatedModel(), {}, []
    async with open_queue(model, reports, max_batch=2) as queue, trio.open_nursery() as nursery:
        mock_clock.jump(100)
        await submit_and_settle(nursery, queue, answers, "busy")
        await model.wait_until_begun()
        mock_clock.jump(2)
        await submit_and_settle(nursery, queue, answers, "early")
        mock_clock.jump(3)
        await submit_and_settle(nursery, queue, answers, "late")
        model.gate.release()
        await model.wait_until_begun()
        mock_clock.jump(4)
        model.gate.release()
    assert reports == [
        BatchReport(size=1, queue_seconds=(0.0,), run_seconds=5.0, has_failed=False),
        BatchReport(size=2, queue_seconds=(3.0, 0.0), run_seconds=4.0, has_failed=False),
    ]
    assert queue._running == set()


async def test_the_close_tells_the_running_model_and_waits_for_no_deadline(mock_clock: MockClock) -> None:
    """Time stands still: leaving is over when the model has looked up, however far the deadline is."""
    model, answers = GatedModel(gives_up=True), {}
    async with trio.open_nursery() as outer:
        async with open_queue(model) as queue:
            await submit_and_settle(outer, queue, answers, "running")
            await model.wait_until_begun()
        assert model.has_given_up
        assert mock_clock.current_time() == 0
    assert "closed" in str(answers["running"])


async def test_a_result_that_comes_during_the_close_is_given(mock_clock: MockClock) -> None:
    """Until the deadline the close waits for the thread, and last words that were recognised are not thrown away."""
    model, answers = GatedModel(), {}
    async with trio.open_nursery() as outer, open_queue(model) as queue:
        await submit_and_settle(outer, queue, answers, "last words")
        await model.wait_until_begun()
        outer.start_soon(open_gate_when_closed, queue, model)
    assert answers == {"last words": "LAST WORDS"}


async def open_gate_when_closed(queue: WorkQueue[str, str], model: GatedModel) -> None:
    while not queue._is_closed:
        await trio.lowlevel.checkpoint()
    await wait_all_tasks_blocked()
    model.gate.release()


async def test_nothing_waits_in_a_closed_queue() -> None:
    """What waited is failed and forgotten, so that a worker that looks again finds nothing to begin."""
    model, answers = GatedModel(gives_up=True), {}
    async with trio.open_nursery() as outer, open_queue(model) as queue:
        for job in ("running", "one", "two"):
            await submit_and_settle(outer, queue, answers, job)
        queue.close()
        assert queue.waiting == 0
    assert model.batches == [["running"]]
    assert all("closed" in str(answer) for answer in answers.values())
    assert len(answers) == 3
