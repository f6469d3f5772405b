"""What a caller is told is kept first; a store that is slow or away delays a message by its budget and no more."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.commands import Start, Stop, TypedText
from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.events import Notice, SessionClosed, SessionEvent, Transcript
from voice_agent.core.identity import Hours, Identity, Quotas
from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, transcript_of
from voice_agent.session.keeping import Storage
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.session.store.writer import open_journal_writer
from voice_agent.transports.memory import MemoryCaller, open_memory_pair
from voice_agent.transports.wire import encode_event

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
CALLER = Identity(key_id="k7", tenant="t7", scopes=frozenset())
BUDGET_SECONDS = 0.25


class SlowStore(MemoryStore):
    """Takes its time, or is away."""

    def __init__(self) -> None:
        super().__init__()
        self.commit_seconds = 0.0
        self.is_away = False

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        await trio.sleep(self.commit_seconds)
        if self.is_away:
            raise StoreUnavailableError("away")
        return await super().write(batch)


@attrs.define
class Told:
    """What a caller was told, and what was kept by then."""

    store: SlowStore
    events: list[SessionEvent] = attrs.field(factory=list)
    times: list[float] = attrs.field(factory=list)
    unkept: list[SessionEvent] = attrs.field(factory=list)

    async def listen(self, caller: MemoryCaller) -> None:
        async for event in caller.events():
            self.events.append(event)
            self.times.append(trio.current_time())
            kept = [entry.seq for one in self.store._sessions.values() for entry in one.entries]
            if isinstance(event, Transcript | Notice | SessionClosed) and event.seq not in kept:
                self.unkept.append(event)

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(e.result.text for e in self.events if isinstance(e, Transcript) and e.result.is_final)


async def call(
    open_services: OpenServices,
    store: SlowStore,
    *texts: str,
    max_waiting_bytes: int = 1 << 20,
    pause: float = 0.0,
    identity: Identity = CALLER,
) -> Told:
    """Hold a call in which the caller writes texts, and return what was told."""
    told = Told(store)
    transport, caller = open_memory_pair()
    async with (
        open_journal_writer(store, max_waiting_bytes=max_waiting_bytes, drain_seconds=5) as writer,
        open_services() as plain,
        trio.open_nursery() as nursery,
    ):
        services = attrs.evolve(
            plain, storage=Storage(writer=writer, node="n1", budget_seconds=BUDGET_SECONDS)
        )
        nursery.start_soon(told.listen, caller)
        async with open_session(services, transport, identity=identity):
            await caller.send_command(Start())
            for text in texts:
                await trio.sleep(pause)
                await caller.send_command(TypedText(text=text))
            await caller.send_command(Stop())
    return told


async def test_everything_promised_is_kept_before_it_is_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Finals and the close are in the journal when the caller reads them, in order, and the record says whose they are."""
    store = SlowStore()
    store.commit_seconds = 0.004
    told = await call(open_scripted_services, store, "one", "two", "three")
    assert told.texts == ("one", "two", "three")
    assert told.unkept == []
    [kept] = store._sessions.values()
    assert transcript_of(kept.entries) == told.texts
    assert [entry.number for entry in kept.entries] == [1, 2, 3, 4]
    assert kept.entries[-1].kind is EntryKind.CLOSED
    assert (kept.record.key_id, kept.record.tenant, kept.record.node) == ("k7", "t7", "n1")
    assert (kept.record.state, kept.record.close_reason) == (RecordState.ENDED, "stopped")
    assert all('"stored"' not in encode_event(event) for event in told.events)


async def test_a_slow_store_delays_a_message_by_its_budget_and_marks_it(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Beyond the budget the final is told as not stored; it is kept all the same."""
    store = SlowStore()
    store.commit_seconds = 2.0
    told = await call(open_scripted_services, store, "one")
    [final] = [e for e in told.events if isinstance(e, Transcript)]
    assert not final.is_stored
    assert '"stored":false' in encode_event(final)
    index = told.events.index(final)
    assert told.times[index] - told.times[0] == pytest.approx(BUDGET_SECONDS)
    [kept] = store._sessions.values()
    assert transcript_of(kept.entries) == ("one",)


async def test_through_an_outage_the_call_goes_on_and_its_journal_is_whole(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Told at once as not stored, written on recovery, in order and once."""
    store = SlowStore()
    store.is_away = True

    async def come_back() -> None:
        await trio.sleep(5)
        store.is_away = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_back)
        told = await call(open_scripted_services, store, *map(str, range(8)), pause=1.0)
    assert told.texts == tuple(map(str, range(8)))
    stored = [e.is_stored for e in told.events if isinstance(e, Transcript)]
    assert stored[0] is False
    assert stored[-1] is True
    [kept] = store._sessions.values()
    assert transcript_of(kept.entries) == told.texts
    assert [entry.number for entry in kept.entries] == list(range(1, 10))


async def call_beyond_the_bound(
    open_services: OpenServices, store: SlowStore, *, back_after: float
) -> tuple[Told, Sequence[JournalEntry]]:
    """Hold a call of 80 s whose store is away from the start; return what was told and kept."""
    store.is_away = True

    async def come_back() -> None:
        await trio.sleep(back_after)
        store.is_away = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(come_back)
        texts = [f"{n:03}" + "x" * 500 for n in range(40)]
        told = await call(open_services, store, *texts, max_waiting_bytes=16_384, pause=2.0)
    assert len(told.texts) == 40
    [kept] = store._sessions.values()
    assert [entry.number for entry in kept.entries] == list(range(1, len(kept.entries) + 1))
    return told, kept.entries


def unstored(events: Iterable[SessionEvent]) -> list[SessionEvent]:
    return [e for e in events if isinstance(e, Transcript | Notice | SessionClosed) and not e.is_stored]


async def test_beyond_the_bound_the_journal_goes_on_when_the_store_is_back(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """What could not wait is told and marked, and counted in one entry where it is missing; all behind it is kept again."""
    told, kept = await call_beyond_the_bound(open_scripted_services, SlowStore(), back_after=50)
    [gap] = [entry for entry in kept if entry.kind is EntryKind.GAP]
    kept_seqs = {entry.seq for entry in kept if entry.kind is not EntryKind.GAP}
    lost = [event for event in unstored(told.events) if event.seq not in kept_seqs]
    assert gap.body == {
        "messages": len(lost),
        "first_seq": lost[0].seq,
        "last_seq": lost[-1].seq,
        "seconds": pytest.approx(gap.body["seconds"]),
    }
    assert gap.seq == lost[-1].seq
    assert 10 < len(lost) <= 20
    assert [entry.seq for entry in kept] == sorted(entry.seq for entry in kept)
    texts = transcript_of(kept)
    assert set(told.texts) - set(texts) == {e.result.text for e in lost if isinstance(e, Transcript)}
    assert texts[-10:] == told.texts[-10:]
    # The caller is told once when it begins, and once when it is over, as soon as it is and not at the next word.
    notices = [(e, at) for e, at in zip(told.events, told.times, strict=True) if isinstance(e, Notice)]
    [(begin, _), (end, ended_at)] = notices
    assert (begin.code, begin.detail, begin.is_stored) == ("not_kept", {"first_seq": lost[0].seq}, False)
    assert (end.code, end.detail, end.is_stored) == ("kept_again", gap.body, True)
    assert 49 < ended_at - told.times[0] < 53
    assert kept[-1].kind is EntryKind.CLOSED
    assert told.events[-1].is_stored


async def test_beyond_the_bound_the_end_of_a_call_finds_room(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A store that comes back behind the call's end has how it ended, and how much is missing before."""
    told, kept = await call_beyond_the_bound(open_scripted_services, SlowStore(), back_after=81)
    assert [entry.kind for entry in kept][-3:] == [EntryKind.FINAL, EntryKind.GAP, EntryKind.CLOSED]
    assert kept[-1].body["reason"] == "stopped"
    assert told.events[-1].is_stored is False
    assert [e.code for e in told.events if isinstance(e, Notice)] == ["not_kept"]
    assert kept[-2].body["messages"] == len(unstored(told.events)) - (len(kept) - 1)


async def test_a_key_may_say_how_long_its_calls_are_kept(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """It stands in the record; a key that keeps nothing reaches the store with no word, and is promised nothing."""
    store = SlowStore()
    hourly = attrs.evolve(CALLER, quotas=Quotas(retention_hours=Hours(1)))
    await call(open_scripted_services, store, "one", identity=hourly)
    [kept] = store._sessions.values()
    assert kept.record.retention_seconds == 3600.0
    nothing = attrs.evolve(CALLER, quotas=Quotas(retention_hours=Hours(0)))
    store = SlowStore()
    told = await call(open_scripted_services, store, "one", identity=nothing)
    assert told.texts == ("one",)
    assert unstored(told.events) == []
    assert store._sessions == {}


async def test_what_a_caller_is_too_slow_to_read_is_kept(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Nobody reads: the call ends, and its words are in the journal."""
    store = SlowStore()
    transport, caller = open_memory_pair(max_events=1)
    async with (
        open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=5) as writer,
        open_scripted_services() as plain,
    ):
        services = attrs.evolve(
            plain, storage=Storage(writer=writer, node="n1", budget_seconds=BUDGET_SECONDS)
        )
        async with open_session(services, transport, identity=CALLER):
            await caller.send_command(Start())
            for text in ("one", "two", "three"):
                await caller.send_command(TypedText(text=text))
            await caller.send_command(Stop())
    [kept] = store._sessions.values()
    assert transcript_of(kept.entries) == ("one", "two", "three")
    assert kept.entries[-1].kind is EntryKind.CLOSED
