"""Retention: sessions are deleted some time after their end, and those that lost their server are ended first."""

from collections.abc import Callable
from time import time
from typing import Final, NoReturn

import attrs
import structlog
import trio

from voice_agent.core.errors import StoreCorruptError, StoreUnavailableError
from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, SessionRecord
from voice_agent.core.units import MINUTES, SECONDS
from voice_agent.session.store.protocol import Outcome, Store, Write

LOOK_SECONDS: Final = MINUTES
AT_ONCE: Final = 200
"""Sessions of one look; what is left over is for the next one, so that calls never wait for it."""
PAUSE_SECONDS: Final = SECONDS
"""Before the next look where one found as many as it may: the store is for the calls meanwhile."""
LOST: Final = "server_lost"
"""The reason in the close entry of a session whose server went away without one."""

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Expired:
    """What one look did: sessions that were deleted, and those that were ended because their server was lost."""

    deleted: int
    ended: int

    @property
    def may_be_more(self) -> bool:
        """Whether there may be more of them."""
        return self.deleted + self.ended >= AT_ONCE


async def enforce_retention(
    store: Store,
    retention_seconds: Callable[[], float],
    *,
    now: Callable[[], float] = time,
    on_expired: Callable[[Expired], None] = lambda _expired: None,
) -> NoReturn:
    """Look again and again, for ever; ``on_expired`` is told what each look did."""
    # A store that was away lacks what owners could not say meanwhile; by the look after the next they have.
    ends_lost = False
    while True:
        pause_seconds = LOOK_SECONDS
        try:
            expired = await expire(store, now(), retention_seconds(), ends_lost=ends_lost)
            on_expired(expired)
            if expired.may_be_more:
                pause_seconds = PAUSE_SECONDS
            else:
                ends_lost = True
                await store.scrub()
        except (StoreUnavailableError, StoreCorruptError) as error:
            log.warning("retention_postponed", reason=error.message)
            ends_lost = False
        await trio.sleep(pause_seconds)


async def expire(store: Store, now: float, retention_seconds: float, *, ends_lost: bool = True) -> Expired:
    """Delete what is old, end what was left, if ``ends_lost``; return how many of each.

    Several servers may do it side by side for one store: what another one did already is counted by that one.
    """
    found = await store.expired(now=now, retention_seconds=retention_seconds, limit=AT_ONCE)
    deleted = ended = 0
    for record in found:
        if record.state is RecordState.ENDED:
            deleted += await store.delete(record.session_id)
        elif ends_lost:
            [outcome] = await store.write([await _end_of(store, record, now)])
            ended += outcome is Outcome.ACCEPTED
    if deleted or ended:
        log.info("retention", deleted=deleted, ended=ended)
    return Expired(deleted=deleted, ended=ended)


async def _end_of(store: Store, record: SessionRecord, now: float) -> Write:
    last = None
    while batch := await store.journal(record.session_id, after=last.number if last else 0):
        last = batch[-1]
    reason = record.close_reason or LOST
    entry = JournalEntry(
        number=last.number + 1 if last else 1,
        seq=last.seq + 1 if last else 1,
        kind=EntryKind.CLOSED,
        at=now,
        position_ms=last.position_ms if last else 0,
        heard_ms=last.heard_ms if last else 0,
        body={"reason": reason},
    )
    ended = attrs.evolve(
        record,
        state=RecordState.ENDED,
        ended_at=now,
        updated_at=now,
        close_reason=reason,
        epoch=record.epoch + 1,
    )
    return Write(session_id=record.session_id, epoch=ended.epoch, entries=(entry,), record=ended)
