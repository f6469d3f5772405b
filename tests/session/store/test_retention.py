"""Sessions go when their time is over; those that lost their server are ended first."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, SessionRecord
from voice_agent.session.store.protocol import Store, Write
from voice_agent.session.store.retention import LOST, expire

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
        assert await expire(store, 5_000.0, 3_600.0) == (1, 1)
        assert await store.record("ended") is None
        found = await store.record("lost")
        assert found is not None
        assert (found.state, found.close_reason, found.epoch) == (RecordState.ENDED, LOST, 2)
        journal = await store.journal("lost")
        assert [entry.number for entry in journal] == [1, 2, 3]
        assert (journal[-1].kind, journal[-1].body) == (EntryKind.CLOSED, {"reason": LOST})
        assert await store.record("living") == living
        assert await expire(store, 5_000.0, 3_600.0) == (0, 0)
        assert await expire(store, 9_000.0, 3_600.0) == (1, 0)
