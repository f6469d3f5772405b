"""JournalWriter: the one task of a process that writes to the store.

What queued up while a commit ran goes together into the next one (group commit, without timers). While the store can't
be reached entries wait here, in order, within a bound; when it is back all of them are written, exactly once, because a
store passes over what it has already.
"""

import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Final

import attrs
import structlog
import trio

from voice_agent.core.errors import (
    JournalHoleError,
    StoreCorruptError,
    StoreFullError,
    StoreUnavailableError,
)
from voice_agent.core.units import KIB, MS, SECONDS
from voice_agent.session.store.protocol import Outcome, Store, Write

MAX_BATCH_WRITES: Final = 256
FIRST_RETRY_SECONDS: Final = 50 * MS
LAST_RETRY_SECONDS: Final = 2 * SECONDS
WRITE_BYTES: Final = KIB
"""What a write is counted as beside its text; an estimate of what it holds in memory."""

log = structlog.get_logger(__name__)


class StoreState(Enum):
    """How the store fares."""

    HEALTHY = 0
    BUFFERING = 1
    """It can't be reached; entries wait here."""
    FULL = 2
    """As before, and no more can wait: no new sessions."""


class Ticket:
    """One write on its way: when it is done, and how."""

    def __init__(self, write: Write, size_bytes: int) -> None:
        self.write = write
        self.size_bytes = size_bytes
        self.outcome: Outcome | None = None
        """None until it is done."""
        self._done = trio.Event()

    def finish(self, outcome: Outcome) -> None:
        """Say how it went."""
        self.outcome = outcome
        self._done.set()

    async def wait(self, seconds: float) -> Outcome | None:
        """Wait at most so long for the outcome; None when it isn't known yet."""
        with trio.move_on_after(seconds):
            await self._done.wait()
        return self.outcome


def _untold(state: StoreState) -> None:
    """Nobody wants to know."""


@attrs.frozen(kw_only=True)
class WriterHooks:
    """Who is told what: the state when it changes, and each commit's size and seconds."""

    on_state: Callable[[StoreState], None] = _untold
    on_commit: Callable[[int, float], None] = lambda _writes, _seconds: None


class JournalWriter:
    """Use :func:`open_journal_writer` to get one."""

    def __init__(self, store: Store, *, max_waiting_bytes: int, hooks: WriterHooks) -> None:
        self._store = store
        self._max_waiting_bytes = max_waiting_bytes
        self._hooks = hooks
        self._waiting: deque[Ticket] = deque()
        self._waiting_bytes = 0
        self._has_work = trio.Event()
        self._is_empty = trio.Event()
        self._is_empty.set()
        self._want_room: list[Callable[[], None]] = []
        self.state = StoreState.HEALTHY

    @property
    def store(self) -> Store:
        """Where it writes to."""
        return self._store

    @property
    def waiting(self) -> int:
        """Writes that are not kept yet."""
        return len(self._waiting)

    def submit(self, write: Write, *, is_last: bool = False) -> Ticket:
        """Queue a write behind all others; wait for it with :meth:`Ticket.wait`.

        The last write of a session always finds room, so that its end is kept: while no more can wait no sessions
        begin, so that there are no more of these than there are calls.

        Raises:
            StoreFullError: the store has been away for so long that no more can wait.
        """
        size_bytes = WRITE_BYTES + sum(len(str(entry.body)) for entry in write.entries)
        if not is_last and self._waiting_bytes + size_bytes > self._max_waiting_bytes:
            self._become(StoreState.FULL)
            raise StoreFullError("the store can't be reached, and no more can wait for it")
        ticket = Ticket(write, size_bytes)
        self._waiting.append(ticket)
        self._waiting_bytes += size_bytes
        self._is_empty = trio.Event() if self._is_empty.is_set() else self._is_empty
        self._has_work.set()
        return ticket

    def when_room(self, go_on: Callable[[], None]) -> None:
        """Have a function called once, as soon as half of the room is free again; it may submit, and must not raise."""
        self._want_room.append(go_on)

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._has_work.wait()
            self._has_work = trio.Event()
            while self._waiting:
                await self._commit()
            self._is_empty.set()

    async def drain(self) -> None:
        """Wait until everything is kept; set a deadline."""
        while self._waiting:
            await self._is_empty.wait()

    async def _commit(self) -> None:
        """Write what waits now, and try until it is done; the order never changes."""
        retry_seconds = FIRST_RETRY_SECONDS
        size = MAX_BATCH_WRITES
        while True:
            batch = [ticket for ticket, _ in zip(self._waiting, range(size), strict=False)]
            began_at = trio.current_time()
            try:
                outcomes = await self._store.write([ticket.write for ticket in batch])
            except StoreUnavailableError as error:
                if self.state is StoreState.HEALTHY:
                    log.warning("store_unavailable", reason=error.message, waiting=len(self._waiting))
                    self._become(StoreState.BUFFERING)
                await trio.sleep(retry_seconds * random.uniform(0.5, 1))  # noqa: S311 (spreads retries)
                retry_seconds = min(LAST_RETRY_SECONDS, retry_seconds * 2)
                continue
            except (JournalHoleError, StoreCorruptError):
                if len(batch) > 1:
                    # Which one it is shows when they go one by one.
                    size = 1
                    continue
                log.exception("journal_broken", session=batch[0].write.session_id)
                outcomes = [Outcome.LOST]
            self._hooks.on_commit(len(batch), trio.current_time() - began_at)
            for ticket, outcome in zip(batch, outcomes, strict=True):
                self._waiting.popleft()
                self._waiting_bytes -= ticket.size_bytes
                ticket.finish(outcome)
            if self.state is not StoreState.HEALTHY:
                log.info("store_available", waiting=len(self._waiting))
                self._become(StoreState.HEALTHY)
            self._tell_room()
            return

    def _tell_room(self) -> None:
        """Tell those who wait for room, while there is some; the others are told later."""
        while self._want_room and self._waiting_bytes <= self._max_waiting_bytes // 2:
            self._want_room.pop(0)()

    def _become(self, state: StoreState) -> None:
        if state is not self.state:
            self.state = state
            self._hooks.on_state(state)


@asynccontextmanager
async def open_journal_writer(
    store: Store,
    *,
    max_waiting_bytes: int,
    drain_seconds: float | Callable[[], float],
    hooks: WriterHooks | None = None,
) -> AsyncIterator[JournalWriter]:
    """Write for as long as the block lasts; then what waits is written within ``drain_seconds``, or named as lost.

    A function is asked for them then.
    """
    writer = JournalWriter(store, max_waiting_bytes=max_waiting_bytes, hooks=hooks or WriterHooks())
    # The task goes on when the block is cancelled, for the last writes come then; the scope ends it in any case.
    writing = trio.CancelScope(shield=True)

    async def write() -> None:
        with writing:
            await writer.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, name="journal writer")
        try:
            yield writer
        finally:
            seconds = drain_seconds() if callable(drain_seconds) else drain_seconds
            with trio.move_on_after(seconds, shield=True):
                await writer.drain()
            if writer.waiting:
                log.error("journal_lost", writes=writer.waiting)
            writing.cancel()
