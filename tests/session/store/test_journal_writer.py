"""The one task that writes: together what waits together, in order, once, through an outage too."""

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.core.errors import StoreFullError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.session.store.writer import StoreState, WriterHooks, open_journal_writer

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]


class MoodyStore(MemoryStore):
    """A store that is slow, away, or loses its answer, as a test wishes."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.commit_seconds = 0.003
        self.is_away = False
        self.loses_answers = 0

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        await trio.sleep(self.commit_seconds)
        if self.is_away:
            raise StoreUnavailableError("away")
        outcomes = await super().write(batch)
        if self.loses_answers:
            self.loses_answers -= 1
            raise StoreUnavailableError("the answer got lost")
        self.batches.append(len(batch))
        return outcomes


def write(entry: JournalEntry, record: SessionRecord | None = None, epoch: int = 1) -> Write:
    return Write(session_id="s1", epoch=epoch, entries=(entry,), record=record)


async def test_what_waits_together_is_written_together(
    autojump_clock: MockClock, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """The first write goes at once; those that come while it runs share one commit."""
    store = MoodyStore()
    async with open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=1) as writer:
        tickets = [writer.submit(write(make_entry(1), make_record()))]
        await trio.sleep(0.001)
        tickets += [writer.submit(write(make_entry(n))) for n in range(2, 9)]
        began_at = trio.current_time()
        assert [await ticket.wait(1) for ticket in tickets] == [Outcome.ACCEPTED] * 8
        assert trio.current_time() - began_at == pytest.approx(0.005)
    assert store.batches == [1, 7]


async def test_through_an_outage_nothing_is_lost_doubled_or_reordered(
    autojump_clock: MockClock, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Waiters go on after their budget without an outcome; on recovery every entry is there once, in order."""
    store = MoodyStore()
    states: list[StoreState] = []
    hooks = WriterHooks(on_state=states.append)
    async with open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=1, hooks=hooks) as writer:
        assert await writer.submit(write(make_entry(1), make_record())).wait(1) is Outcome.ACCEPTED
        store.is_away = True
        tickets = []
        for number in range(2, 600):
            tickets.append(writer.submit(write(make_entry(number))))
        began_at = trio.current_time()
        assert await tickets[0].wait(0.25) is None
        assert trio.current_time() - began_at == 0.25
        await trio.sleep(30)
        assert states == [StoreState.BUFFERING]
        store.is_away = False
        store.loses_answers = 2
        with trio.fail_after(10):
            await writer.drain()
        assert [ticket.outcome for ticket in tickets] == [Outcome.ACCEPTED] * 598
        assert states == [StoreState.BUFFERING, StoreState.HEALTHY]
    assert [entry.number for entry in await store.journal("s1")] == list(range(1, 600))


async def test_what_waits_is_bounded(
    autojump_clock: MockClock, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Beyond the bound a write is refused, and the state says so until there is room."""
    store = MoodyStore()
    store.is_away = True
    states: list[StoreState] = []
    hooks = WriterHooks(on_state=states.append)
    async with open_journal_writer(store, max_waiting_bytes=10_000, drain_seconds=1, hooks=hooks) as writer:
        accepted = 8
        for number in range(1, accepted + 1):
            writer.submit(write(make_entry(number), make_record() if number == 1 else None))
        with pytest.raises(StoreFullError):
            writer.submit(write(make_entry(accepted + 1, "x" * 2_000)))
        assert states[-1] is StoreState.FULL
        store.is_away = False
        await writer.drain()
        assert states[-1] is StoreState.HEALTHY
    assert len(await store.journal("s1")) == accepted


async def test_leaving_writes_what_waits_within_its_deadline(
    autojump_clock: MockClock, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Also when the block was cancelled; a store that stays away doesn't hold the end up."""
    store = MoodyStore()
    with trio.CancelScope() as scope:
        async with open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=1) as writer:
            for number in range(1, 300):
                writer.submit(write(make_entry(number), make_record() if number == 1 else None))
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert len(await store.journal("s1")) == 299
    store.is_away = True
    began_at = trio.current_time()
    async with open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=1) as writer:
        writer.submit(write(make_entry(300)))
        await wait_all_tasks_blocked()
    assert trio.current_time() - began_at == pytest.approx(1, abs=0.1)
    assert len(await store.journal("s1")) == 299


async def test_a_store_that_lost_a_session_takes_no_other_along(
    autojump_clock: MockClock, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """A journal that would have a hole is given up, with its outcome; the writes around it are kept."""
    store = MoodyStore()
    async with open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=1) as writer:
        await writer.submit(write(make_entry(1), make_record())).wait(1)
        store._sessions.clear()
        others = [
            Write(session_id=f"o{n}", epoch=1, entries=(make_entry(1),), record=make_record(f"o{n}"))
            for n in range(3)
        ]
        tickets = [
            writer.submit(one) for one in (others[0], write(make_entry(2), make_record()), *others[1:])
        ]
        outcomes = [await ticket.wait(1) for ticket in tickets]
        assert outcomes == [Outcome.ACCEPTED, Outcome.LOST, Outcome.ACCEPTED, Outcome.ACCEPTED]
    assert [len(await store.journal(f"o{n}")) for n in range(3)] == [1, 1, 1]
    assert await store.record("s1") is None


async def test_who_waits_for_room_is_told_when_half_of_it_is_free(
    autojump_clock: MockClock, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Not while the queue is nearly full still; and the last write of a session never waits for room."""
    store = MoodyStore()
    store.is_away = True
    told: list[int] = []
    async with open_journal_writer(store, max_waiting_bytes=600_000, drain_seconds=1) as writer:
        number = 0
        with pytest.raises(StoreFullError):  # noqa: PT012 (how many fit is not the point)
            while True:
                writer.submit(write(make_entry(number + 1), make_record() if number == 0 else None))
                number += 1
        writer.when_room(lambda: told.append(writer.waiting))
        last = writer.submit(write(make_entry(number + 1)), is_last=True)
        await trio.sleep(10)
        assert told == []
        store.is_away = False
        await writer.drain()
        assert last.outcome is Outcome.ACCEPTED
    [waiting] = told
    assert 0 < waiting < number / 2
    assert len(await store.journal("s1")) == number + 1
