"""Store: keeps records and journals. Every store passes the same tests, and differs in what it survives."""

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

import attrs

from voice_agent.core.journal import JournalEntry, RecordState, SessionRecord


class Outcome(Enum):
    """What became of a write."""

    ACCEPTED = auto()
    """It is kept: a crash of this process doesn't undo it."""
    FENCED = auto()
    """Somebody else owns the session by now; nothing was written."""
    LOST = auto()
    """It can't be kept: what the store has of the session is damaged, or gone. Only the writer says so."""


@attrs.frozen(kw_only=True)
class Write:
    """One session's part of a commit: all of it is kept, or nothing.

    ``record`` replaces the session's record, or begins the session where there is none. Entries that are kept already
    are passed over, so that a write whose outcome got lost can be sent again.
    """

    session_id: str
    epoch: int
    entries: tuple[JournalEntry, ...] = ()
    record: SessionRecord | None = None


@attrs.frozen(kw_only=True)
class Claimed:
    """A session that has a new owner: its record as it is now, and the last number and position of its journal."""

    record: SessionRecord
    last_number: int
    last_seq: int
    heard_ms: int


@attrs.frozen(kw_only=True)
class Claim:
    """Who wants to own a session, and by what right. ``now`` is Unix time."""

    session_id: str
    key_id: str
    tenant: str
    token_sha256: str = attrs.field(repr=False)
    new_token_sha256: str = attrs.field(repr=False)
    node: str
    now: float
    lease_seconds: float


@attrs.frozen(kw_only=True)
class Selection:
    """Which sessions are asked for; None doesn't restrict."""

    tenant: str | None = None
    key_id: str | None = None
    state: RecordState | None = None


@attrs.frozen(kw_only=True)
class Page:
    """Some records, the newest first, and where to go on; None after the last.

    There may be fewer than were asked for, or none, where many were looked at that don't match.
    """

    records: tuple[SessionRecord, ...]
    next_cursor: str | None


def cursor_of(record: SessionRecord) -> str:
    """Return where a record stands among all: by its beginning, then by its id; grows with time."""
    return f"{record.opened_at:020.6f}:{record.session_id}"


def is_expired(record: SessionRecord, *, now: float, retention_seconds: float) -> bool:
    """Whether a session ended longer ago than it is kept, or has had neither owner nor resumption for too long.

    ``retention_seconds`` holds for sessions that don't say it themselves.
    """
    if record.state is not RecordState.ENDED:
        return record.abandoned_at < now
    if record.expires_at is not None:
        return record.expires_at < now
    return (record.ended_at or record.updated_at) < now - retention_seconds


def matches(selection: Selection, record: SessionRecord) -> bool:
    """Whether the record is one of those asked for."""
    return (
        selection.tenant in {None, record.tenant}
        and selection.key_id in {None, record.key_id}
        and selection.state in {None, record.state}
    )


class Store(Protocol):
    """Keeps sessions.

    Every method may raise :class:`StoreUnavailableError`: it could not be done now, and may or may not have been done;
    it is safe to do it again. Cancelling a method leaves the store as it was, or as it would have become.
    """

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """Commit a batch in one go; return an outcome for each. A session's writes keep their order.

        Raises:
            JournalHoleError: an entry's number is not the next one; a defect of the writer, and that write is not kept.
        """
        ...

    async def claim(self, claim: Claim) -> Claimed:
        """Give a session another owner, if the claim is good: the epoch grows, the token is used up.

        Raises:
            ResumeRefusedError: one of its kinds says why not.
        """
        ...

    async def record(self, session_id: str) -> SessionRecord | None:
        """Return a session's record."""
        ...

    async def journal(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """Return entries in order, those numbered above ``after``."""
        ...

    async def select(self, selection: Selection, *, cursor: str | None = None, limit: int = 100) -> Page:
        """Return records, the newest first."""
        ...

    async def delete(self, session_id: str) -> bool:
        """Remove a session and all of its journal; whether there was one. :meth:`scrub` finishes the work."""
        ...

    async def scrub(self) -> None:
        """Make sure that nothing of what was deleted stands in files of the store any more, as far as it can."""
        ...

    async def expired(self, *, now: float, retention_seconds: float, limit: int) -> Sequence[SessionRecord]:
        """Return some of the sessions whose time is over: see :func:`is_expired`."""
        ...

    async def check(self) -> None:
        """Write and read something small, for readiness."""
        ...
