"""MemoryStore: keeps sessions in this process; they are gone with it."""

from collections.abc import Sequence

import attrs
import trio

from voice_agent.core.errors import JournalHoleError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.session.store.ownership import judge
from voice_agent.session.store.protocol import (
    Claim,
    Claimed,
    Outcome,
    Page,
    Selection,
    Write,
    cursor_of,
    is_expired,
    matches,
)


@attrs.define
class _Kept:
    record: SessionRecord
    entries: list[JournalEntry] = attrs.field(factory=list)


class MemoryStore:
    """A :class:`~voice_agent.session.store.protocol.Store`; every method is one step, so nothing can come between."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Kept] = {}

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        changed: dict[str, _Kept] = {}
        outcomes = [self._apply(write, changed) for write in batch]
        self._sessions.update(changed)
        return outcomes

    def _apply(self, write: Write, changed: dict[str, _Kept]) -> Outcome:
        """Apply one write to a copy, so that a batch that can't be applied leaves everything as it was."""
        kept = changed.get(write.session_id) or self._sessions.get(write.session_id)
        if kept is None and write.record is None:
            return Outcome.FENCED  # it was deleted
        if kept is not None and kept.record.epoch > write.epoch:
            return Outcome.FENCED
        entries = list(kept.entries) if kept else []
        for entry in write.entries:
            if entry.number > len(entries) + 1:
                raise JournalHoleError(f"entry {entry.number} came where {len(entries) + 1} was expected")
            if entry.number == len(entries) + 1:
                entries.append(entry)
        record = write.record or (kept.record if kept else None)
        assert record is not None  # noqa: S101 (one of the two is there)
        changed[write.session_id] = _Kept(record, entries)
        return Outcome.ACCEPTED

    async def claim(self, claim: Claim) -> Claimed:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        kept = self._sessions.get(claim.session_id)
        record = judge(claim, None if kept is None else kept.record)
        assert kept is not None  # noqa: S101 (judged)
        kept.record = record
        last = kept.entries[-1] if kept.entries else None
        return Claimed(
            record=record,
            last_number=last.number if last else 0,
            last_seq=last.seq if last else 0,
            heard_ms=last.heard_ms if last else 0,
        )

    async def record(self, session_id: str) -> SessionRecord | None:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        kept = self._sessions.get(session_id)
        return kept.record if kept else None

    async def journal(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        kept = self._sessions.get(session_id)
        return tuple(kept.entries[after : after + limit]) if kept else ()

    async def select(self, selection: Selection, *, cursor: str | None = None, limit: int = 100) -> Page:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        found = sorted(
            (kept.record for kept in self._sessions.values() if matches(selection, kept.record)),
            key=cursor_of,
            reverse=True,
        )
        if cursor is not None:
            found = [record for record in found if cursor_of(record) < cursor]
        page = tuple(found[:limit])
        return Page(records=page, next_cursor=cursor_of(page[-1]) if len(found) > limit else None)

    async def delete(self, session_id: str) -> bool:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        return self._sessions.pop(session_id, None) is not None

    async def scrub(self) -> None:
        """There are no files."""
        await trio.lowlevel.checkpoint()

    async def expired(self, *, now: float, retention_seconds: float, limit: int) -> Sequence[SessionRecord]:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        found = (
            kept.record
            for kept in self._sessions.values()
            if is_expired(kept.record, now=now, retention_seconds=retention_seconds)
        )
        return tuple(record for record, _ in zip(found, range(limit), strict=False))

    async def check(self) -> None:
        """Memory is there."""
        await trio.lowlevel.checkpoint()
