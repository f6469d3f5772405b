"""The work queue between calls and the threads that run a model."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import numpy as np
import pytest
import trio
import trio.testing

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.speech import batching
from voice_agent.speech.batching import BatchReport, open_batched_engine, open_work_queue
from voice_agent.speech.engine import Recognition, RecognitionRequest, Urgency

PATIENCE_SECONDS = 5
"""No wait of a thread in these tests is longer, or the test fails."""


@attrs.define
class GatedModel:
    """Echoes its jobs; each batch waits in its thread for the gate, and tells when it has begun."""

    batches: list[list[str]] = attrs.field(factory=list)
    abandoned: list[list[bool]] = attrs.field(factory=list)
    began: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    gate: threading.Semaphore = attrs.field(factory=lambda: threading.Semaphore(0))
    busy: int = 0
    most_busy: int = 0
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def run_batch(self, jobs: Sequence[str], is_abandoned: Callable[[int], bool]) -> list[str]:
        with self.lock:
            self.batches.append(list(jobs))
            self.busy += 1
            self.most_busy = max(self.most_busy, self.busy)
        self.began.release()
        assert self.gate.acquire(timeout=PATIENCE_SECONDS)
        with self.lock:
            self.busy -= 1
            self.abandoned.append([is_abandoned(place) for place in range(len(jobs))])
        return [job.upper() for job in jobs]

    async def wait_until_begun(self) -> None:
        await trio.to_thread.run_sync(lambda: self.began.acquire(timeout=PATIENCE_SECONDS))

    def open_gate(self, batches: int = 100) -> None:
        self.gate.release(batches)


Answers = dict[str, str | None]


def asker(queue: batching.WorkQueue[str, str], answers: Answers) -> Callable[..., object]:
    """Make a task that submits one job and notes the answer."""

    async def ask(job: str, **options: object) -> None:
        answers[job] = await queue.submit(job, **options)  # type: ignore[arg-type]

    return ask


def open_queue(
    model: object, *, threads: int = 1, batch: int = 1, waiting: int = 100, **options: object
) -> AbstractAsyncContextManager[batching.WorkQueue[str, str]]:
    """Open a queue with small limits."""
    return open_work_queue(
        model.run_batch, worker_threads=threads, max_batch=batch, max_waiting=waiting, **options
    )


async def start_and_settle(
    nursery: trio.Nursery, ask: Callable[..., object], job: str, **options: object
) -> None:
    """Submit a job and wait until it stands in the queue (or was refused)."""

    async def submit() -> None:
        await ask(job, **options)

    nursery.start_soon(submit)
    await trio.testing.wait_all_tasks_blocked()


async def test_the_urgent_goes_first_and_equals_in_order() -> None:
    """Lower urgency first, whatever came when; first in, first out within one."""
    model, answers = GatedModel(), {}
    async with open_queue(model) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        await start_and_settle(nursery, ask, "busy")
        for job, urgency in (("p1", 2), ("s1", 1), ("f1", 0), ("p2", 2), ("f2", 0)):
            await start_and_settle(nursery, ask, job, urgency=urgency)
        assert queue.waiting == 5
        model.open_gate()
    assert model.batches == [["busy"], ["f1"], ["f2"], ["s1"], ["p1"], ["p2"]]
    assert answers["f1"] == "F1"


async def test_what_queued_up_goes_together() -> None:
    """While the worker is busy, jobs gather; then as many as fit a batch go at once, without waiting for more."""
    model, answers, reports = GatedModel(), {}, []
    async with (
        open_queue(model, batch=3, on_batch=reports.append) as queue,
        trio.open_nursery() as nursery,
    ):
        ask = asker(queue, answers)
        for job in "abcdef":
            await start_and_settle(nursery, ask, job)
        model.open_gate()
    assert model.batches == [["a"], ["b", "c", "d"], ["e", "f"]]
    assert answers == {job: job.upper() for job in "abcdef"}
    assert [report.size for report in reports] == [1, 3, 2]
    assert all(len(report.queue_seconds) == report.size for report in reports)
    assert all(report.run_seconds >= 0 and not report.has_failed for report in reports)


async def test_never_more_threads_than_workers() -> None:
    """Two workers run two batches at once, not three."""
    model, answers = GatedModel(), {}
    async with open_queue(model, threads=2) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        for job in "abcde":
            await start_and_settle(nursery, ask, job)
        await model.wait_until_begun()
        await model.wait_until_begun()
        assert queue.waiting == 3
        model.open_gate()
    assert model.most_busy == 2
    assert len(answers) == 5


async def test_a_newer_partial_takes_the_turn_of_the_older() -> None:
    """The older one is answered with None at once; the newer one keeps the older one's place in the order."""
    model, answers = GatedModel(), {}
    partial = {"urgency": 2, "is_droppable": True}
    async with open_queue(model) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        await start_and_settle(nursery, ask, "busy")
        await start_and_settle(nursery, ask, "a-old", key="a", **partial)
        await start_and_settle(nursery, ask, "b", key="b", **partial)
        await start_and_settle(nursery, ask, "a-new", key="a", **partial)
        assert answers == {"a-old": None}
        assert queue.waiting == 2
        model.open_gate()
    assert model.batches == [["busy"], ["a-new"], ["b"]]


async def test_a_final_makes_the_waiting_partial_of_its_utterance_pointless() -> None:
    """The partial is dropped; partials of other utterances stay."""
    model, answers = GatedModel(), {}
    async with open_queue(model) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        await start_and_settle(nursery, ask, "busy")
        await start_and_settle(nursery, ask, "a-part", key="a", urgency=2, is_droppable=True)
        await start_and_settle(nursery, ask, "b-part", key="b", urgency=2, is_droppable=True)
        await start_and_settle(nursery, ask, "a-final", key="a", urgency=0)
        assert answers == {"a-part": None}
        model.open_gate()
    assert model.batches == [["busy"], ["a-final"], ["b-part"]]


async def test_a_final_is_never_dropped_for_a_newer_job() -> None:
    """Only droppable jobs are superseded."""
    model, answers = GatedModel(), {}
    async with open_queue(model) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        for job in ("busy", "one", "two"):
            await start_and_settle(nursery, ask, job, key="a")
        model.open_gate()
    assert answers == {"busy": "BUSY", "one": "ONE", "two": "TWO"}


async def test_a_full_queue_refuses_partials_and_gives_their_places_to_finals() -> None:
    """A partial without a place is answered with None; a final takes the place of the last partial."""
    model, answers = GatedModel(), {}
    partial = {"urgency": 2, "is_droppable": True}
    async with open_queue(model, waiting=2) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        await start_and_settle(nursery, ask, "busy")
        await start_and_settle(nursery, ask, "p1", key=1, **partial)
        await start_and_settle(nursery, ask, "p2", key=2, **partial)
        await start_and_settle(nursery, ask, "p3", key=3, **partial)
        assert answers == {"p3": None}
        await start_and_settle(nursery, ask, "final", urgency=0)
        assert answers == {"p3": None, "p2": None}
        assert queue.waiting == 2
        model.open_gate()
    assert model.batches == [["busy"], ["final"], ["p1"]]


async def test_finals_wait_for_a_place_the_most_urgent_first() -> None:
    """Nothing that can't be dropped is refused; places that come free go by urgency."""
    model, answers = GatedModel(), {}
    async with open_queue(model, waiting=1) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        await start_and_settle(nursery, ask, "busy")
        await start_and_settle(nursery, ask, "f1", urgency=0)
        await start_and_settle(nursery, ask, "s1", urgency=1)
        await start_and_settle(nursery, ask, "f2", urgency=0)
        assert queue.waiting == 1
        for _ in range(4):
            await model.wait_until_begun()
            await trio.testing.wait_all_tasks_blocked()
            model.open_gate(1)
    assert model.batches == [["busy"], ["f1"], ["f2"], ["s1"]]


async def test_who_waits_for_a_place_can_be_cancelled() -> None:
    """A submitter that gives up without a place leaves the others' places as they were."""
    model, answers = GatedModel(), {}
    async with open_queue(model, waiting=1) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        await start_and_settle(nursery, ask, "busy")
        await start_and_settle(nursery, ask, "first")
        async with trio.open_nursery() as impatient:
            await start_and_settle(impatient, ask, "impatient")
            impatient.cancel_scope.cancel()
        await start_and_settle(nursery, ask, "last")
        model.open_gate()
    assert model.batches == [["busy"], ["first"], ["last"]]


async def test_a_cancelled_job_is_not_begun() -> None:
    """Cancelling takes a waiting job out of the queue, and its place goes to the next."""
    model, answers = GatedModel(), {}
    async with open_queue(model, waiting=1) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        await start_and_settle(nursery, ask, "busy")
        async with trio.open_nursery() as doomed:
            await start_and_settle(doomed, ask, "doomed")
            await start_and_settle(nursery, ask, "next")
            doomed.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert queue.waiting == 1
        model.open_gate()
    assert model.batches == [["busy"], ["next"]]


async def test_a_job_cancelled_in_its_run_is_told_to_the_model() -> None:
    """The submitter leaves at once, the model learns that nobody waits, and the worker goes on."""
    model, answers = GatedModel(), {}
    async with open_queue(model) as queue, trio.open_nursery() as nursery:
        ask = asker(queue, answers)
        async with trio.open_nursery() as doomed:
            doomed.start_soon(ask, "doomed")
            await model.wait_until_begun()
            doomed.cancel_scope.cancel()
        assert not answers
        model.open_gate()
        await start_and_settle(nursery, ask, "next")
    assert model.abandoned == [[True], [False]]
    assert answers == {"next": "NEXT"}


@attrs.define
class MoodyModel:
    """Raises at any batch with "bad" in it, and gives too few results at "short"."""

    sizes: list[int] = attrs.field(factory=list)

    def run_batch(self, jobs: Sequence[str], _is_abandoned: Callable[[int], bool]) -> list[str]:
        self.sizes.append(len(jobs))
        if "bad" in jobs:
            raise ZeroDivisionError("moody")
        return [] if "short" in jobs else [job.upper() for job in jobs]


async def test_a_model_that_raises_fails_one_job_and_the_worker_lives_on() -> None:
    """The submitter gets our error with the model's as its cause; the next job is done."""
    async with open_queue(MoodyModel()) as queue:
        with pytest.raises(RecognitionFailedError, match="ZeroDivisionError: moody") as caught:
            await queue.submit("bad")
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(RecognitionFailedError, match="0 results for 1 jobs"):
            await queue.submit("short")
        assert await queue.submit("good") == "GOOD"


async def test_one_bad_job_does_not_fail_its_batch() -> None:
    """The members of a failed batch are tried alone: only the bad one fails."""
    model, gated, reports = MoodyModel(), GatedModel(), []
    failed: list[str] = []

    def run_batch(jobs: Sequence[str], is_abandoned: Callable[[int], bool]) -> list[str]:
        if jobs == ["busy"]:
            return gated.run_batch(jobs, is_abandoned)
        return model.run_batch(jobs, is_abandoned)

    answers: Answers = {}
    async with (
        open_work_queue(
            run_batch, worker_threads=1, max_batch=8, max_waiting=8, on_batch=reports.append
        ) as queue,
        trio.open_nursery() as nursery,
    ):

        async def ask(job: str) -> None:
            try:
                answers[job] = await queue.submit(job)
            except RecognitionFailedError:
                failed.append(job)

        nursery.start_soon(ask, "busy")
        await gated.wait_until_begun()
        for job in ("one", "bad", "two"):
            await start_and_settle(nursery, ask, job)
        gated.open_gate()
    assert failed == ["bad"]
    assert answers == {"busy": "BUSY", "one": "ONE", "two": "TWO"}
    assert model.sizes == [3, 1, 1, 1]
    assert [report.has_failed for report in reports] == [False, True]


async def test_a_member_that_gave_up_is_not_tried_again() -> None:
    """After a failed batch, only those that still wait get their second try."""
    model, gate, entered = MoodyModel(), threading.Event(), threading.Event()

    def run_batch(jobs: Sequence[str], is_abandoned: Callable[[int], bool]) -> list[str]:
        entered.set()
        assert gate.wait(PATIENCE_SECONDS)
        return model.run_batch(jobs, is_abandoned)

    answers: Answers = {}
    async with (
        open_work_queue(run_batch, worker_threads=1, max_batch=8, max_waiting=8) as queue,
        trio.open_nursery() as nursery,
    ):
        ask = asker(queue, answers)
        async with trio.open_nursery() as doomed:
            # Both stand in the queue before the worker gets its first turn, so they go together.
            doomed.start_soon(ask, "bad")
            nursery.start_soon(ask, "good")
            await trio.to_thread.run_sync(entered.wait, PATIENCE_SECONDS)
            doomed.cancel_scope.cancel()
        gate.set()
    assert answers == {"good": "GOOD"}
    assert "bad" not in answers


@attrs.define
class PatientModel:
    """Runs until it is told that nobody waits, as a decoder does between its steps."""

    began: threading.Event = attrs.field(factory=threading.Event)
    jobs: list[str] = attrs.field(factory=list)

    def run_batch(self, jobs: Sequence[str], is_abandoned: Callable[[int], bool]) -> list[None]:
        self.jobs.extend(jobs)
        self.began.set()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(is_abandoned(place) for place in range(len(jobs))):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return [None for _ in jobs]


async def test_leaving_abandons_what_runs_and_fails_what_waits() -> None:
    """Submitters outside the block are not left waiting, and the running model is told to stop."""
    model, failed = PatientModel(), []
    async with trio.open_nursery() as outer:
        async with open_queue(model) as queue:

            async def ask(job: str) -> None:
                with pytest.raises(RecognitionFailedError, match="closed"):
                    await queue.submit(job)
                failed.append(job)

            outer.start_soon(ask, "running")
            await trio.to_thread.run_sync(model.began.wait, PATIENCE_SECONDS)
            await start_and_settle(outer, ask, "waiting")
        with pytest.raises(RecognitionFailedError, match="closed"):
            await queue.submit("late")
    assert model.jobs == ["running"]
    assert sorted(failed) == ["running", "waiting"]


async def test_those_without_a_place_are_failed_at_the_close() -> None:
    """A submitter that waits for a place when the queue closes gets the error too."""
    model, failed = PatientModel(), []
    async with trio.open_nursery() as outer, open_queue(model, waiting=1) as queue:

        async def ask(job: str) -> None:
            with pytest.raises(RecognitionFailedError, match="closed"):
                await queue.submit(job)
            failed.append(job)

        outer.start_soon(ask, "running")
        await trio.to_thread.run_sync(model.began.wait, PATIENCE_SECONDS)
        await start_and_settle(outer, ask, "placed")
        await start_and_settle(outer, ask, "without place")
        assert queue.waiting == 1
    assert sorted(failed) == ["placed", "running", "without place"]


async def test_a_thread_that_never_returns_is_abandoned_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Leaving takes the deadline, not for ever, and the submitter of the lost job gets an error."""
    monkeypatch.setattr(batching, "CLOSE_DEADLINE_SECONDS", 0.05)
    model, failed = GatedModel(), []
    async with trio.open_nursery() as outer, open_queue(model) as queue:

        async def ask() -> None:
            with pytest.raises(RecognitionFailedError, match="closed"):
                await queue.submit("stuck")
            failed.append("stuck")

        outer.start_soon(ask)
        await model.wait_until_begun()
    assert failed == ["stuck"]
    model.open_gate()


async def test_cancelling_the_block_ends_it() -> None:
    """A cancelled program leaves as soon as the model has looked up; no deadline is waited for."""
    model = PatientModel()
    with trio.CancelScope() as scope:
        async with open_queue(model, threads=2) as queue, trio.open_nursery() as nursery:
            nursery.start_soon(queue.submit, "running")
            await trio.to_thread.run_sync(model.began.wait, PATIENCE_SECONDS)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert model.jobs == ["running"]


async def test_workers_outlive_a_cancel_while_the_block_still_needs_them() -> None:
    """Shielded work in a cancelled block (the last words of a call) is still done."""
    model = MoodyModel()
    with trio.CancelScope() as scope:
        async with open_queue(model) as queue:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert await queue.submit("last words") == "LAST WORDS"


def request(text: str, urgency: Urgency, utterance: int = 1) -> RecognitionRequest:
    """Make a request whose audio is as long as its text."""
    samples = np.zeros(len(text), np.float32)
    return RecognitionRequest(samples=samples, urgency=urgency, utterance_key=("call", utterance))


@attrs.define
class LengthModel:
    """Recognises the length of the audio."""

    gated: GatedModel

    def recognise_batch(
        self, requests: Sequence[RecognitionRequest], is_abandoned: Callable[[int], bool], /
    ) -> list[Recognition | None]:
        self.gated.run_batch(["" for _ in requests], is_abandoned)
        return [Recognition(text=str(len(request.samples))) for request in requests]


async def test_the_engine_supersedes_partials_only() -> None:
    """An engine's partial gives way to a newer one of its utterance; a speculative final does not."""
    gated = GatedModel()
    found: list[Recognition | None] = []
    reports: list[BatchReport] = []
    async with (
        open_batched_engine(
            LengthModel(gated), worker_threads=1, max_batch=1, max_waiting=4, on_batch=reports.append
        ) as engine,
        trio.open_nursery() as nursery,
    ):

        async def ask(item: RecognitionRequest) -> None:
            found.append(await engine.recognise(item))

        await start_and_settle(nursery, ask, request("busy", Urgency.FINAL, 9))
        await start_and_settle(nursery, ask, request("spec", Urgency.SPECULATIVE, 1))
        await start_and_settle(nursery, ask, request("old", Urgency.PARTIAL, 2))
        await start_and_settle(nursery, ask, request("newer", Urgency.PARTIAL, 2))
        assert found == [None]
        assert engine.waiting == 2
        gated.open_gate()
    assert [item.text for item in found if item is not None] == ["4", "4", "5"]
    assert len(reports) == 3
