"""Work from many calls, in order of urgency, for a few threads that run a synchronous model on batches of it.

Batching is natural: what came while the threads were busy goes together, and nothing ever waits for company.

The rules:

* Lower ``urgency`` goes first; within one urgency, who came first.
* A droppable job (a partial, a probe) is answered with None when there is no place for it, when a newer job of its key comes,
  or when its place is needed by one that can't be dropped. The newer job of a key takes the older one's turn, so
  that a call whose partials keep being replaced still gets one.
* Other jobs wait for a place.
* A submitter that is cancelled takes its job along: out of the queue, or the model is told by ``is_abandoned``.
* A model that raises fails the job that it raised for: the members of a failed batch are tried once more, alone.
* A worker lives until :meth:`WorkQueue.close`, also while everything around it is being cancelled, so that no
  submitter is left waiting. A thread that does not return by the deadline of the close is abandoned.
"""

from bisect import insort
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, Protocol, TypeVar

import attrs
import trio

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.core.units import SECONDS
from voice_agent.speech.engine import Recognition, RecognitionRequest, Urgency
from voice_agent.speech.work_meter import WorkMeter

CLOSE_DEADLINE_SECONDS: Final = 2 * SECONDS
"""The encoder on 30 s of speech takes under half a second, and the decoder looks up after each token."""

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")

RunBatch = Callable[[Sequence[JobT], Callable[[int], bool]], Sequence[ResultT | None]]
"""A synchronous model: takes jobs and ``is_abandoned(place)``, returns one result for each job."""


@attrs.frozen(kw_only=True)
class BatchReport:
    """What one batch took; ``queue_seconds`` and ``jobs`` have one entry for each member."""

    size: int
    queue_seconds: tuple[float, ...]
    run_seconds: float
    has_failed: bool
    jobs: tuple[Any, ...] = attrs.field(default=(), eq=False, repr=False)


def report_to_nobody(report: BatchReport) -> None:
    """Report to nobody."""


def _unwatched() -> None:
    """Nobody wants to know when."""


@attrs.define(eq=False)
class _Ticket(Generic[JobT, ResultT]):
    """One submitted job; ``is_abandoned`` is written by the Trio thread and read by the worker's."""

    job: JobT
    urgency: int
    turn: int
    key: Hashable | None
    is_droppable: bool
    submitted_at: float
    on_taken: Callable[[], None]
    settled: trio.Event = attrs.field(factory=trio.Event)
    is_abandoned: bool = False
    result: ResultT | None = None
    failure: RecognitionFailedError | None = None

    @property
    def order(self) -> tuple[int, int]:
        return self.urgency, self.turn

    def settle(self, result: ResultT | None = None, failure: RecognitionFailedError | None = None) -> None:
        self.result = result
        self.failure = failure
        self.settled.set()


class WorkQueue(Generic[JobT, ResultT]):
    """The waiting jobs, and the workers that take them; :func:`open_work_queue` makes one."""

    def __init__(
        self,
        run_batch: RunBatch[JobT, ResultT],
        *,
        worker_threads: int,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[BatchReport], None],
        meter: WorkMeter,
    ) -> None:
        self._run_batch = run_batch
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._on_batch = on_batch
        self._meter = meter
        meter.attach(self._oldest_submitted_at)
        self._limiter = trio.CapacityLimiter(worker_threads)
        self._waiting: list[_Ticket[JobT, ResultT]] = []
        self._running: set[_Ticket[JobT, ResultT]] = set()
        self._turns = 0
        self._idle_workers = trio.lowlevel.ParkingLot()
        self._without_place: dict[int, trio.lowlevel.ParkingLot] = {}
        self._worker_scopes: list[trio.CancelScope] = []
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Jobs that have a place and wait for a worker."""
        return len(self._waiting)

    def _oldest_submitted_at(self) -> float | None:
        return min((ticket.submitted_at for ticket in self._waiting if not ticket.is_droppable), default=None)

    async def submit(
        self,
        job: JobT,
        *,
        urgency: int = 0,
        key: Hashable | None = None,
        is_droppable: bool = False,
        on_taken: Callable[[], None] = _unwatched,
    ) -> ResultT | None:
        """Have ``job`` done; None when it was dropped, or when the model gave none.

        ``on_taken`` is called when a worker takes it up.

        Raises:
            RecognitionFailedError: the model raised, or the queue is closed.
        """
        turn = self._next_turn()
        for older in [waiting for waiting in self._waiting if waiting.is_droppable and waiting.key == key]:
            if is_droppable:
                turn = older.turn
            self._remove(older)
            older.settle()
        while len(self._waiting) >= self._max_waiting and not self._is_closed:
            last = self._waiting[-1]
            if is_droppable:
                await trio.lowlevel.checkpoint()
                return None
            if last.is_droppable:
                self._remove(last)
                last.settle()
            else:
                await self._without_place.setdefault(urgency, trio.lowlevel.ParkingLot()).park()
        if self._is_closed:
            raise _closed()
        ticket: _Ticket[JobT, ResultT] = _Ticket(
            job, urgency, turn, key, is_droppable, trio.current_time(), on_taken
        )
        insort(self._waiting, ticket, key=lambda waiting: waiting.order)
        self._idle_workers.unpark()
        try:
            await ticket.settled.wait()
        finally:
            ticket.is_abandoned = True
            if ticket in self._waiting:
                self._remove(ticket)
        if ticket.failure is not None:
            raise ticket.failure
        return ticket.result

    async def work(self) -> None:
        """Be one of the workers, until the close."""
        with trio.CancelScope(shield=True) as scope:
            self._worker_scopes.append(scope)
            while not self._is_closed:
                if self._waiting:
                    await self._run(self._take())
                else:
                    await self._idle_workers.park()

    def close(self) -> None:
        """Abandon everything; the workers end now, or when their thread returns, or at the deadline."""
        self._is_closed = True
        for ticket in self._running:
            ticket.is_abandoned = True
        for ticket in self._waiting:
            ticket.settle(failure=_closed())
        self._waiting.clear()
        for lot in self._without_place.values():
            lot.unpark_all()
        self._idle_workers.unpark_all()
        for scope in self._worker_scopes:
            scope.deadline = trio.current_time() + CLOSE_DEADLINE_SECONDS

    def _next_turn(self) -> int:
        self._turns += 1
        return self._turns

    def _take(self) -> list[_Ticket[JobT, ResultT]]:
        batch = self._waiting[: self._max_batch]
        del self._waiting[: self._max_batch]
        self._give_places()
        return batch

    def _remove(self, ticket: _Ticket[JobT, ResultT]) -> None:
        self._waiting.remove(ticket)
        self._give_places()

    def _give_places(self) -> None:
        """Wake as many as there are places, the most urgent first; who finds none left waits again."""
        places = self._max_waiting - len(self._waiting)
        for _, lot in sorted(self._without_place.items()):
            places -= len(lot.unpark(count=max(places, 0)))

    async def _run(self, batch: list[_Ticket[JobT, ResultT]]) -> None:
        started_at = trio.current_time()
        for ticket in batch:
            if not ticket.is_droppable:
                self._meter.note_wait(started_at - ticket.submitted_at, started_at)
        self._meter.begin(started_at)
        self._running.update(batch)
        for ticket in batch:
            ticket.on_taken()
        try:
            is_done = await self._attempt(batch)
            if not is_done and len(batch) > 1:
                for ticket in batch:
                    if not ticket.is_abandoned:
                        await self._attempt([ticket])
        finally:
            self._meter.end(trio.current_time())
            self._running.difference_update(batch)
            for ticket in batch:
                if not ticket.settled.is_set():
                    ticket.settle(failure=_closed())
        self._on_batch(
            BatchReport(
                size=len(batch),
                queue_seconds=tuple(started_at - ticket.submitted_at for ticket in batch),
                run_seconds=trio.current_time() - started_at,
                has_failed=not is_done,
                jobs=tuple(ticket.job for ticket in batch),
            )
        )

    async def _attempt(self, batch: list[_Ticket[JobT, ResultT]]) -> bool:
        """Run ``batch`` in a thread and settle its tickets; return whether the model held."""
        try:
            results = await trio.to_thread.run_sync(
                self._call_model, batch, abandon_on_cancel=True, limiter=self._limiter
            )
        except Exception as error:  # noqa: BLE001 - whatever a model raises, its worker lives on
            if len(batch) == 1:
                failure = RecognitionFailedError(f"the speech model failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                batch[0].settle(failure=failure)
            return False
        for ticket, result in zip(batch, results, strict=True):
            # Who still waits for an abandoned job was cut off by the close.
            was_cut_off = result is None and ticket.is_abandoned
            ticket.settle(result, failure=_closed() if was_cut_off else None)
        return True

    def _call_model(self, batch: list[_Ticket[JobT, ResultT]]) -> Sequence[ResultT | None]:
        """Run the model; this is on the worker's thread."""
        results = self._run_batch([ticket.job for ticket in batch], lambda place: batch[place].is_abandoned)
        if len(results) != len(batch):
            raise ValueError(f"{len(results)} results for {len(batch)} jobs")
        return results


def _closed() -> RecognitionFailedError:
    return RecognitionFailedError("the speech engine is closed")


@asynccontextmanager
async def open_work_queue(
    run_batch: RunBatch[JobT, ResultT],
    *,
    worker_threads: int,
    max_batch: int,
    max_waiting: int,
    on_batch: Callable[[BatchReport], None] = report_to_nobody,
    meter: WorkMeter | None = None,
) -> AsyncIterator[WorkQueue[JobT, ResultT]]:
    """Open a queue with its workers; leaving abandons what is waiting or running.

    ``on_batch`` is told of each batch, on the Trio thread; ``meter`` measures the workers. An exception of the body comes out in a group, as from
    any nursery.
    """
    queue = WorkQueue(
        run_batch,
        worker_threads=worker_threads,
        max_batch=max_batch,
        max_waiting=max_waiting,
        on_batch=on_batch,
        meter=meter or WorkMeter(worker_threads),
    )
    async with trio.open_nursery() as nursery:
        for _ in range(worker_threads):
            nursery.start_soon(queue.work)
        try:
            yield queue
        finally:
            queue.close()


class BatchRecogniser(Protocol):
    """A synchronous speech model, such as ``MoonshineModel``; several threads call it at once."""

    def recognise_batch(
        self, requests: Sequence[RecognitionRequest], is_abandoned: Callable[[int], bool], /
    ) -> Sequence[Recognition | None]:
        """Recognise ``requests`` together; None for one that was abandoned."""
        ...


@attrs.frozen
class BatchedEngine:
    """An :class:`~voice_agent.speech.engine.Engine` over a synchronous model."""

    _queue: WorkQueue[RecognitionRequest, Recognition]

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return self._queue.waiting

    async def recognise(self, request: RecognitionRequest) -> Recognition | None:
        """Recognise; None for a partial or a probe that a newer one of its utterance, or a full queue, made pointless.

        Raises:
            RecognitionFailedError: the model raised, or the engine is closed.
        """
        return await self._queue.submit(
            request,
            urgency=request.urgency,
            key=request.utterance_key,
            is_droppable=request.urgency >= Urgency.PARTIAL,
            on_taken=request.on_taken,
        )


@asynccontextmanager
async def open_batched_engine(
    model: BatchRecogniser,
    *,
    worker_threads: int,
    max_batch: int,
    max_waiting: int,
    on_batch: Callable[[BatchReport], None] = report_to_nobody,
    meter: WorkMeter | None = None,
) -> AsyncIterator[BatchedEngine]:
    """Open an engine that runs ``model`` in ``worker_threads`` threads; :func:`open_work_queue` says more."""
    async with open_work_queue(
        model.recognise_batch,
        worker_threads=worker_threads,
        max_batch=max_batch,
        max_waiting=max_waiting,
        on_batch=on_batch,
        meter=meter,
    ) as queue:
        yield BatchedEngine(queue)
