"""Sessions go when their time is over; those that lost their server are ended first."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, SessionRecord
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Store, Write
from voice_agent.session.store.retention import AT_ONCE, LOST, Expired, enforce_retention, expire

OpenStore = Callable[[], AbstractAsyncContextManager[Store]]


async def test_old_sessions_are_deleted_and_lost_ones_ended(
    open_store: OpenStore,
    make_record: Callable[..., SessionRecord],
    make_entry: Callable[..., JournalEntry],
) -> None:
    """One look: what ended an hour ago is gone, what lost its server has a close entry, what lives is as it was."""
    ended = make_record("ended", state=RecordState.ENDED, ended_at=1_000.0)
    lost = make_record("lost", lease_until=2_000.0)
    living = make_record("living", lease_until=9_000.0)
    async with open_store() as store:
        await store.write(
            [
                Write(
                    session_id=record.session_id,
                    epoch=1,
                    entries=(make_entry(1), make_entry(2)),
                    record=record,
                )
                for record in (ended, lost, living)
            ]
        )
        assert await expire(store, 5_000.0, 3_600.0) == Expired(deleted=1, ended=1)
        assert await store.record("ended") is None
        found = await store.record("lost")
        assert found is not None
        assert (found.state, found.close_reason, found.epoch) == (RecordState.ENDED, LOST, 2)
        journal = await store.journal("lost")
        assert [entry.number for entry in journal] == [1, 2, 3]
        assert (journal[-1].kind, journal[-1].body) == (EntryKind.CLOSED, {"reason": LOST})
        assert await store.record("living") == living
        assert await expire(store, 5_000.0, 3_600.0) == Expired(deleted=0, ended=0)
        assert await expire(store, 9_000.0, 3_600.0) == Expired(deleted=1, ended=0)


async def test_in_every_store_sessions_go_by_themselves(
    open_store: OpenStore, make_record: Callable[..., SessionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody touches them: the old one is deleted, the one without a server ended, and deleted by its own time later."""
    monkeypatch.setattr("voice_agent.session.store.retention.LOOK_SECONDS", 0.02)
    clock = 9_000.0
    done: dict[str, int] = {"deleted": 0, "ended": 0}
    changed = trio.Event()

    def note(expired: Expired) -> None:
        nonlocal changed
        if expired.deleted or expired.ended:
            done["deleted"] += expired.deleted
            done["ended"] += expired.ended
            changed.set()
            changed = trio.Event()

    async def until(deleted: int, ended: int) -> None:
        while done != {"deleted": deleted, "ended": ended}:
            await changed.wait()

    records = [
        make_record("old", state=RecordState.ENDED, ended_at=1_000.0, opened_at=1.0),
        make_record("lost", lease_until=2_000.0, retention_seconds=5.0, opened_at=2.0),
        make_record("lives", lease_until=20_000.0, opened_at=3.0),
    ]
    with trio.fail_after(60):
        async with open_store() as store, trio.open_nursery() as nursery:
            await store.write([Write(session_id=one.session_id, epoch=1, record=one) for one in records])
            look = partial(enforce_retention, store, lambda: 3_600.0, now=lambda: clock, on_expired=note)
            nursery.start_soon(look)
            await until(deleted=1, ended=1)
            assert await store.record("old") is None
            lost = await store.record("lost")
            assert lost is not None
            assert (lost.state, lost.close_reason) == (RecordState.ENDED, LOST)
            clock = 9_006.0
            await until(deleted=2, ended=1)
            assert await store.record("lost") is None
            assert await store.record("lives") is not None
            nursery.cancel_scope.cancel()


class MoodyStore(MemoryStore):
    """A store that may be away, and notes when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.looks: list[float] = []
        self.scrubs = 0

    async def expired(self, *, now: float, retention_seconds: float, limit: int) -> Sequence[SessionRecord]:
        self.looks.append(trio.current_time())
        if self.is_away:
            raise StoreUnavailableError("away")
        return await super().expired(now=now, retention_seconds=retention_seconds, limit=limit)

    async def scrub(self) -> None:
        self.scrubs += 1


async def test_sessions_go_by_themselves_a_bounded_number_at_a_time(
    autojump_clock: MockClock, make_record: Callable[..., SessionRecord]
) -> None:
    """Nobody touches them: a look a minute; a full one is followed by the next within a second; an outage ends nothing."""
    store = MoodyStore()
    count = 2 * AT_ONCE + 50
    records = [
        make_record(f"s{n}", state=RecordState.ENDED, ended_at=1_000.0, opened_at=float(n))
        for n in range(count)
    ]
    await store.write([Write(session_id=one.session_id, epoch=1, record=one) for one in records])
    done: list[Expired] = []
    began_at = trio.current_time()
    look = partial(
        enforce_retention,
        store,
        lambda: 150.0,
        now=lambda: 1_000.0 + trio.current_time() - began_at,
        on_expired=done.append,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.sleep(130)
        assert {one.deleted for one in done} == {0}
        store.is_away = True
        await trio.sleep(60)
        store.is_away = False
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert [one.deleted for one in done] == [0, 0, 0, AT_ONCE, AT_ONCE, 50]
    assert store.looks[-1] - began_at == 242.0
    assert store.scrubs == 4
    assert store._sessions == {}


async def test_an_outage_ends_nobody_who_could_not_say_that_it_is_there(
    autojump_clock: MockClock, make_record: Callable[..., SessionRecord]
) -> None:
    """The store was away for longer than lease, window and patience: the look behind it ends nothing yet, the next one does."""
    store = MoodyStore()
    await store.write([Write(session_id="s1", epoch=1, record=make_record("s1"))])
    began_at = trio.current_time()
    done: list[Expired] = []
    store.is_away = True
    look = partial(
        enforce_retention,
        store,
        lambda: 150.0,
        now=lambda: 5_000.0 + trio.current_time() - began_at,
        on_expired=done.append,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await trio.sleep(30)
        store.is_away = False
        await trio.sleep(60)
        assert [one.ended for one in done] == [0]
        await trio.sleep(60)
        assert [one.ended for one in done] == [0, 1]
        nursery.cancel_scope.cancel()
