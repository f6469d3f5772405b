"""SqliteStore: keeps sessions in one file on this machine; the default of a server that stands alone.

Write-ahead logging, so that readers never wait for the writer (https://www.sqlite.org/wal.html), and one commit for a
whole batch. ``synchronous=FULL`` puts each commit on the disk before it counts; ``NORMAL`` leaves the last ones to the
operating system, which survives a killed process but not a power cut.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import trio

from voice_agent.core.errors import JournalHoleError, StoreCorruptError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, RecordState, SessionRecord
from voice_agent.core.units import SECONDS
from voice_agent.session.store.codec import dump_entry, dump_record, load_entry, load_record, load_records
from voice_agent.session.store.ownership import judge
from voice_agent.session.store.protocol import (
    Claim,
    Claimed,
    Outcome,
    Page,
    Selection,
    Write,
    cursor_of,
)

BUSY_TIMEOUT_SECONDS: Final = 2 * SECONDS
"""Another process that holds the file, a backup for instance, is waited for so long."""
CHECKPOINT_PAGES: Final = 1000

MIGRATIONS: Final = (
    (
        """
        CREATE TABLE sessions(
            id TEXT PRIMARY KEY, place TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
            state TEXT NOT NULL, epoch INTEGER NOT NULL, last_number INTEGER NOT NULL, last_seq INTEGER NOT NULL,
            heard_ms INTEGER NOT NULL, gone_at REAL NOT NULL, record TEXT NOT NULL
        ) WITHOUT ROWID
        """,
        "CREATE INDEX sessions_gone ON sessions(gone_at)",
        """
        CREATE TABLE entries(
            session_id TEXT NOT NULL, number INTEGER NOT NULL, entry TEXT NOT NULL, PRIMARY KEY(session_id, number)
        ) WITHOUT ROWID
        """,
    ),
    (
        # Sessions that say themselves how long they are kept; and one index that finds those without an owner among
        # any number of ended ones.
        "ALTER TABLE sessions ADD COLUMN expires_at REAL",
        "CREATE INDEX sessions_expire ON sessions(expires_at) WHERE expires_at IS NOT NULL",
        "DROP INDEX sessions_gone",
        "CREATE INDEX sessions_gone ON sessions(state, gone_at)",
    ),
    ("CREATE TABLE nodes(node TEXT PRIMARY KEY, put_at REAL NOT NULL, beat TEXT NOT NULL) WITHOUT ROWID",),
    # A tenant with a few sessions among 100,000 of others is listed in 1.5 ms; without, in 170 ms.
    ("CREATE INDEX sessions_tenant ON sessions(tenant, place)",),
)
"""From each version of the file to the next one; ``user_version`` says how many have been done."""

_Result = TypeVar("_Result")
Synchronous = Literal["full", "normal"]


class SqliteStore:
    """A :class:`~voice_agent.session.store.protocol.Store`; use :func:`open_sqlite_store` to get one.

    One thread at a time writes, another one reads; SQLite's own locks are only met by other processes.
    """

    def __init__(self, path: Path, synchronous: Synchronous) -> None:
        self._path = path
        _make_private(path)
        self._writer = _connect(path, synchronous)
        _migrate(self._writer)
        self._reader = _connect(path, synchronous)
        self._has_traces = False
        """Something was deleted whose words may still stand in the log."""
        self._one_writer = trio.CapacityLimiter(1)
        self._one_reader = trio.CapacityLimiter(1)

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """As the protocol says."""
        return await self._change(partial(_write, batch=batch))

    async def claim(self, claim: Claim) -> Claimed:
        """As the protocol says."""
        return await self._change(partial(_claim, claim=claim))

    async def delete(self, session_id: str) -> bool:
        """As the protocol says."""
        self._has_traces = True
        return await self._change(partial(_delete, session_id=session_id))

    async def scrub(self) -> None:
        """Empty the log: what was deleted stands in it as it was, while in the file zeros stand by then."""
        if self._has_traces:
            self._has_traces = False
            try:
                await trio.to_thread.run_sync(
                    _translated, self._path, self._writer, _empty_log, limiter=self._one_writer
                )
            except BaseException:
                self._has_traces = True
                raise

    async def record(self, session_id: str) -> SessionRecord | None:
        """As the protocol says."""
        return await self._look(partial(_record, session_id=session_id))

    async def journal(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """As the protocol says."""
        return await self._look(partial(_journal, session_id=session_id, after=after, limit=limit))

    async def select(self, selection: Selection, *, cursor: str | None = None, limit: int = 100) -> Page:
        """As the protocol says."""
        return await self._look(partial(_select, selection=selection, cursor=cursor, limit=limit))

    async def expired(self, *, now: float, retention_seconds: float, limit: int) -> Sequence[SessionRecord]:
        """As the protocol says."""
        return await self._look(partial(_expired, now=now, ended_before=now - retention_seconds, limit=limit))

    async def check(self) -> None:
        """Begin and end a write, and read."""
        await self._change(_nothing)
        await self._look(_nothing)

    async def change(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Let another room write to the file, in this store's turn and in a transaction of its own."""
        return await self._change(job)

    async def look(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        """Let another room read from the file, in this store's turn."""
        return await self._look(job)

    def close(self) -> None:
        """Close the file; what was committed is in it."""
        self._reader.close()
        self._writer.close()

    async def _change(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        return await trio.to_thread.run_sync(
            _in_transaction, self._path, self._writer, job, limiter=self._one_writer
        )

    async def _look(self, job: Callable[[sqlite3.Connection], _Result]) -> _Result:
        return await trio.to_thread.run_sync(
            _translated, self._path, self._reader, job, limiter=self._one_reader
        )


@asynccontextmanager
async def open_sqlite_store(path: Path, *, synchronous: Synchronous = "full") -> AsyncIterator[SqliteStore]:
    """Open the file, made anew where there is none, checked where there is one; close it behind the block.

    Raises:
        StoreCorruptError: the file is damaged, is no database, or was written by a newer version.
        StoreUnavailableError: it can't be opened or made.
    """
    store = await trio.to_thread.run_sync(SqliteStore, path, synchronous)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True):
            # Closing moves the log into the file; bounded by CHECKPOINT_PAGES.
            await trio.to_thread.run_sync(store.close)


def _make_private(path: Path) -> None:
    """Make the file for its owner alone, where there is none: it holds what was said. SQLite's log takes its mode over."""
    try:
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(f"the store's file {path} can't be made: {error.strerror}") from error


def _connect(path: Path, synchronous: Synchronous) -> sqlite3.Connection:
    with _translating(path):
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA synchronous={synchronous.upper()}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            # What is deleted or replaced is overwritten with zeros.
            connection.execute("PRAGMA secure_delete=ON")
        except BaseException:
            connection.close()
            raise
        return connection


def _migrate(connection: sqlite3.Connection) -> None:
    with _translating(None):
        [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise StoreCorruptError(
                f"the store's file is damaged: {found}; docs/storage.md says how to save what can be read"
            )
        # Another process may begin at the same moment: the version is read when nobody else can change it.
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statements in MIGRATIONS[_version_of(connection) :]:
                for statement in statements:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version_of(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise StoreCorruptError(
            f"the store's file has version {version}, and this program knows no later one than {len(MIGRATIONS)}: "
            "a newer program wrote it; run that one, or name another file in store.path"
        )
    if version == 0 and connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sessions'").fetchone():
        raise StoreCorruptError(
            "the store's file is the database of another program; name another one in store.path"
        )
    return version


@contextmanager
def _translating(path: Path | None) -> Iterator[None]:
    """Turn SQLite's errors into ours: what can pass is unavailable, what can't is corrupt."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise StoreUnavailableError(f"the store's file {path or ''} can't be used now: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreCorruptError(f"the store's file {path or ''} is no usable database: {error}") from error


def _translated(
    path: Path, connection: sqlite3.Connection, job: Callable[[sqlite3.Connection], _Result]
) -> _Result:
    with _translating(path):
        return job(connection)


def _in_transaction(
    path: Path, connection: sqlite3.Connection, job: Callable[[sqlite3.Connection], _Result]
) -> _Result:
    with _translating(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = job(connection)
            connection.execute("COMMIT")
        except BaseException:
            # A full disk rolls back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result


def _write(connection: sqlite3.Connection, batch: Sequence[Write]) -> list[Outcome]:
    return [_write_one(connection, write) for write in batch]


def _write_one(connection: sqlite3.Connection, write: Write) -> Outcome:
    row = connection.execute(
        "SELECT epoch, last_number, last_seq, heard_ms, record FROM sessions WHERE id = ?",
        (write.session_id,),
    ).fetchone()
    if row is None and write.record is None:
        return Outcome.FENCED  # it was deleted
    epoch, last_number, last_seq, heard_ms, text = row or (0, 0, 0, 0, "")
    if epoch > write.epoch:
        return Outcome.FENCED
    for entry in write.entries:
        if entry.number <= last_number:
            continue
        if entry.number != last_number + 1:
            raise JournalHoleError(f"entry {entry.number} came where {last_number + 1} was expected")
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?)", (write.session_id, entry.number, dump_entry(entry))
        )
        last_number, last_seq, heard_ms = entry.number, entry.seq, entry.heard_ms
    _put(connection, write.record or load_record(text), last_number, last_seq, heard_ms)
    return Outcome.ACCEPTED


def _put(
    connection: sqlite3.Connection, record: SessionRecord, last_number: int, last_seq: int, heard_ms: int
) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            record.session_id,
            cursor_of(record),
            record.tenant,
            record.key_id,
            record.state.value,
            record.epoch,
            last_number,
            last_seq,
            heard_ms,
            record.ended_at if record.ended_at is not None else record.abandoned_at,
            dump_record(record),
            record.expires_at,
        ),
    )


def _claim(connection: sqlite3.Connection, claim: Claim) -> Claimed:
    row = connection.execute(
        "SELECT last_number, last_seq, heard_ms, record FROM sessions WHERE id = ?", (claim.session_id,)
    ).fetchone()
    record = judge(claim, None if row is None else load_record(row[3]))
    last_number, last_seq, heard_ms, _ = row
    _put(connection, record, last_number, last_seq, heard_ms)
    return Claimed(record=record, last_number=last_number, last_seq=last_seq, heard_ms=heard_ms)


def _delete(connection: sqlite3.Connection, session_id: str) -> bool:
    connection.execute("DELETE FROM entries WHERE session_id = ?", (session_id,))
    return connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,)).rowcount > 0


def _record(connection: sqlite3.Connection, session_id: str) -> SessionRecord | None:
    row = connection.execute("SELECT record FROM sessions WHERE id = ?", (session_id,)).fetchone()
    return None if row is None else load_record(row[0])


def _journal(
    connection: sqlite3.Connection, session_id: str, after: int, limit: int
) -> tuple[JournalEntry, ...]:
    rows = connection.execute(
        "SELECT entry FROM entries WHERE session_id = ? AND number > ? ORDER BY number LIMIT ?",
        (session_id, after, limit),
    )
    return tuple(load_entry(text) for (text,) in rows)


def _select(connection: sqlite3.Connection, selection: Selection, cursor: str | None, limit: int) -> Page:
    wanted: list[tuple[str, Any]] = [
        (condition, value)
        for condition, value in (
            ("tenant = ?", selection.tenant),
            ("key_id = ?", selection.key_id),
            ("state = ?", selection.state),
            ("place < ?", cursor),
        )
        if value is not None
    ]
    where = " AND ".join(condition for condition, _ in wanted) or "TRUE"
    rows = connection.execute(
        f"SELECT record, place FROM sessions WHERE {where} ORDER BY place DESC LIMIT ?",  # noqa: S608 (fixed conditions)
        (*(value for _, value in wanted), limit + 1),
    ).fetchall()
    page = tuple(load_records(text for text, _ in rows[:limit]))
    return Page(records=page, next_cursor=rows[limit - 1][1] if len(rows) > limit else None)


def _expired(
    connection: sqlite3.Connection, now: float, ended_before: float, limit: int
) -> tuple[SessionRecord, ...]:
    # First those that lost their server: many that are to be deleted must not hide them.
    rows = connection.execute(
        "SELECT record FROM sessions WHERE state IN (?, ?) AND gone_at < ? "
        "UNION ALL SELECT record FROM sessions WHERE expires_at < ? "
        "UNION ALL SELECT record FROM sessions WHERE state = ? AND gone_at < ? AND expires_at IS NULL LIMIT ?",
        (RecordState.OPEN, RecordState.DETACHED, now, now, RecordState.ENDED, ended_before, limit),
    )
    return tuple(load_records(text for (text,) in rows))


def _empty_log(connection: sqlite3.Connection) -> None:
    # https://www.sqlite.org/pragma.html#pragma_wal_checkpoint: waits for readers as long as the busy timeout.
    [is_busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if is_busy:
        raise StoreUnavailableError(
            "the log of the store's file can't be emptied now: another process reads it"
        )


def _nothing(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT count(*) FROM sessions WHERE id = ''").fetchone()
