"""SQLite through what happens to files: killed writers, full disks, damage, other versions, other processes."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from voice_agent.core.errors import StoreCorruptError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, RecordState, SessionRecord
from voice_agent.session.store.protocol import Outcome, Selection, Write
from voice_agent.session.store.sqlite import MIGRATIONS, open_sqlite_store

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]
KILLS = 200


@pytest.mark.e2e
def test_killed_writers_leave_no_hole_no_double_and_nothing_torn(tmp_path: Path) -> None:
    """SIGKILL at random moments: the journal is whole each time, and what was said to be kept is there."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("sqlite_victim.py")),
            str(tmp_path / "s.db"),
            str(KILLS),
            "7",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    print(figures)
    assert (figures["holes"], figures["torn"], figures["lost"]) == (0, 0, 0)
    assert figures["kills"] == KILLS
    assert figures["entries"] >= figures["promised"] > 0


SHARERS = 3
COMMITS = 300
LARGEST_LOG_BYTES = 16 * 2**20
"""Several times what a checkpoint leaves: readers may hold one up, but not for ever."""


@pytest.mark.e2e
async def test_several_processes_share_a_file(tmp_path: Path) -> None:
    """They begin at one moment, on no file at all, and commit all the time: nobody is refused, and every journal is whole.

    SQLite has them take turns; who has to wait, waits within the busy time. The write-ahead log stays small.
    """
    path = tmp_path / "s.db"
    script = str(Path(__file__).with_name("sqlite_sharer.py"))
    sharers = [
        subprocess.Popen(  # noqa: ASYNC220 (nothing else runs meanwhile)
            [sys.executable, script, str(path), f"p{number}", str(COMMITS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(SHARERS)
    ]
    largest = 0
    with trio.fail_after(120):
        while any(sharer.poll() is None for sharer in sharers):
            log = path.with_name("s.db-wal")
            largest = max(largest, log.stat().st_size if log.exists() else 0)
            await trio.sleep(0.02)
    said = [sharer.communicate() for sharer in sharers]
    assert [sharer.returncode for sharer in sharers] == [0] * SHARERS, said
    print(said, largest)
    assert largest < LARGEST_LOG_BYTES
    async with open_sqlite_store(path) as store:
        records = (await store.select(Selection(), limit=100)).records
        assert len(records) == SHARERS * 4
        for record in records:
            numbers = [entry.number for entry in await store.journal(record.session_id)]
            assert numbers == list(range(1, COMMITS + 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can't be mounted here (that takes root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_refuses_and_recovers(
    small_disk: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """What doesn't fit is refused whole and typed; with room again the same write is kept, and nothing is torn."""
    ballast = small_disk / "ballast"
    async with open_sqlite_store(small_disk / "s.db") as store:
        await store.write([Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())])
        ballast.write_bytes(b"x" * 400_000)
        number = 1
        with pytest.raises(StoreUnavailableError, match="full"):  # noqa: PT012 (the write that doesn't fit is unknown)
            while True:
                large = make_entry(number + 1, "y" * 20_000)
                await store.write([Write(session_id="s1", epoch=1, entries=(large,))])
                number += 1
        assert number < 100
        assert [entry.number for entry in await store.journal("s1")] == list(range(1, number + 1))
        ballast.unlink()
        large = make_entry(number + 1, "y" * 20_000)
        assert await store.write([Write(session_id="s1", epoch=1, entries=(large,))]) == [Outcome.ACCEPTED]
        assert (await store.journal("s1"))[-1] == large
    async with open_sqlite_store(small_disk / "s.db") as store:
        assert len(await store.journal("s1")) == number + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database, whatever its name says" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192),
        lambda path: _set_version(path, len(MIGRATIONS) + 1),
        lambda path: _set_version(path, 0),
    ],
    ids=["no database", "overwritten", "newer", "of another program"],
)
async def test_a_file_that_can_not_be_trusted_is_refused_at_the_start(
    tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry, damage: Callable[[Path], None]
) -> None:
    """An operator's error that says what is wrong, and the file stays as it is."""
    path = tmp_path / "s.db"
    async with open_sqlite_store(path) as store:
        await store.write([Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())])
    damage(path)
    with pytest.raises(StoreCorruptError):
        async with open_sqlite_store(path):
            pass
    assert path.exists()


def _set_version(path: Path, version: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={version}")
    connection.close()


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The path stands in the message."""
    with pytest.raises(StoreUnavailableError, match="nowhere"):
        async with open_sqlite_store(tmp_path / "nowhere" / "s.db"):
            pass


async def test_what_was_said_is_for_the_owner_alone(
    tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """The file and its log can't be read by others on the machine; a mode that an operator chose stays."""
    path = tmp_path / "s.db"
    write = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())
    async with open_sqlite_store(path) as store:
        await store.write([write])
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        assert modes == {"s.db": 0o600, "s.db-wal": 0o600, "s.db-shm": 0o600}
    path.chmod(0o640)
    async with open_sqlite_store(path):
        assert path.stat().st_mode & 0o777 == 0o640


async def test_another_process_that_holds_the_file_makes_it_unavailable(
    tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the busy timeout a write fails typed, and works again when the other one is done; reads go on."""
    monkeypatch.setattr("voice_agent.session.store.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "s.db"
    write = Write(session_id="s1", epoch=1, record=make_record())
    async with open_sqlite_store(path) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.write([write])
        assert await store.record("s1") is None
        other.execute("ROLLBACK")
        other.close()
        assert await store.write([write]) == [Outcome.ACCEPTED]


async def test_a_cancelled_write_is_kept_or_not_but_never_half(
    tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Cancelled at any moment: the next write of the same entries makes the journal whole."""
    async with open_sqlite_store(tmp_path / "s.db") as store:
        entries = tuple(make_entry(n) for n in range(1, 400))
        for milliseconds in range(12):
            with trio.move_on_after(milliseconds / 1000):
                await store.write(
                    [
                        Write(
                            session_id=f"s{milliseconds}",
                            epoch=1,
                            entries=entries,
                            record=make_record(f"s{milliseconds}"),
                        )
                    ]
                )
            kept = len(await store.journal(f"s{milliseconds}"))
            assert kept in {0, 399}
            again = Write(
                session_id=f"s{milliseconds}",
                epoch=1,
                entries=entries,
                record=make_record(f"s{milliseconds}"),
            )
            assert await store.write([again]) == [Outcome.ACCEPTED]
            assert len(await store.journal(f"s{milliseconds}")) == 399


SECRET = b"correct horse battery staple"


def traces(folder: Path) -> list[str]:
    """Return the files in which the words still stand."""
    return sorted(file.name for file in folder.iterdir() if SECRET in file.read_bytes())


async def test_what_was_deleted_stands_in_no_file_any_more(
    tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Neither in the file nor in its log, short words and such that fill pages of their own; others stay."""
    async with open_sqlite_store(tmp_path / "s.db") as store:
        for session_id, words in (("s1", SECRET.decode()), ("s2", "hello"), ("s3", SECRET.decode() * 1000)):
            record = make_record(session_id)
            await store.write(
                [Write(session_id=session_id, epoch=1, entries=(make_entry(1, words),), record=record)]
            )
        assert traces(tmp_path) == ["s.db-wal"]
        await store.delete("s1")
        await store.scrub()
        assert traces(tmp_path) == ["s.db"]
        await store.delete("s3")
        await store.scrub()
        assert traces(tmp_path) == []
        assert len(await store.journal("s2")) == 1
    assert traces(tmp_path) == []


async def test_traces_that_can_not_be_wiped_now_are_wiped_later(
    tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that reads holds the log: that is said, not passed over, and the next try does it."""
    monkeypatch.setattr("voice_agent.session.store.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
    path = tmp_path / "s.db"
    async with open_sqlite_store(path) as store:
        entries = (make_entry(1, SECRET.decode()),)
        await store.write([Write(session_id="s1", epoch=1, entries=entries, record=make_record())])
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM entries").fetchone()
            await store.delete("s1")
            with pytest.raises(StoreUnavailableError, match="log"):
                await store.scrub()
            assert traces(tmp_path) != []
            reader.execute("ROLLBACK")
        await store.scrub()
        assert traces(tmp_path) == []


VERSION_1 = """
CREATE TABLE sessions(
    id TEXT PRIMARY KEY, place TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
    state TEXT NOT NULL, epoch INTEGER NOT NULL, last_number INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    heard_ms INTEGER NOT NULL, gone_at REAL NOT NULL, record TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX sessions_gone ON sessions(gone_at);
CREATE TABLE entries(
    session_id TEXT NOT NULL, number INTEGER NOT NULL, entry TEXT NOT NULL, PRIMARY KEY(session_id, number)
) WITHOUT ROWID;
INSERT INTO sessions VALUES('s1', '00000000001000.000000:s1', 't1', 'k1', 'ended', 1, 1, 3, 1000, 2000.0,
    '{"session_id":"s1","key_id":"k1","tenant":"t1","transport":"websocket","encoding":"opus","sample_rate":48000,
      "channels":2,"language":"en","settings_version":3,"node":"n1","opened_at":1000.0,"updated_at":2000.0,
      "lease_until":2000.0,"resumable_seconds":0.0,"token_sha256":"","ended_at":2000.0,"close_reason":"stopped",
      "state":"ended","epoch":1}');
INSERT INTO entries VALUES('s1', 1, '{"number":1,"seq":3,"kind":"final","at":1001.0,"position_ms":1000,
    "heard_ms":1000,"body":{"text":"hello"}}');
PRAGMA user_version=1;
"""
"""The first version of the file, with records of version 0 in it."""


async def test_a_file_of_an_earlier_version_is_taken_up(
    tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Its sessions are there, expire, and are written on; the file is of this version then."""
    path = tmp_path / "s.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)
    async with open_sqlite_store(path) as store:
        record = await store.record("s1")
        assert record is not None
        assert (record.wire, record.retention_seconds) == ("websocket", None)
        assert [entry.body["text"] for entry in await store.journal("s1")] == ["hello"]
        assert await store.expired(now=9_000.0, retention_seconds=60.0, limit=10) == (record,)
        more = Write(session_id="s1", epoch=1, entries=(make_entry(2),), record=make_record())
        assert await store.write([more]) == [Outcome.ACCEPTED]
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


async def test_several_servers_may_make_or_take_up_a_file_at_once(tmp_path: Path) -> None:
    """One of them changes it, the others wait; none fails."""
    for script in ("", VERSION_1):
        folder = tmp_path / f"f{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        with closing(sqlite3.connect(folder / "s.db")) as connection:
            connection.executescript(script)

        async def open_it(folder: Path = folder) -> None:
            async with open_sqlite_store(folder / "s.db") as store:
                await store.check()

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(open_it)


async def test_what_can_be_read_of_a_damaged_file_is_saved_as_the_document_says(
    tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """The commands of docs/storage.md make a file that the server takes, with what the damage left."""
    if shutil.which("sqlite3") is None:
        pytest.skip("SQLite's command is not installed (Debian package sqlite3)")
    path = tmp_path / "voice-agent.db"
    async with open_sqlite_store(path) as store:
        batch = [
            Write(
                session_id=f"s{n}", epoch=1, entries=(make_entry(1, "x" * 500),), record=make_record(f"s{n}")
            )
            for n in range(100)
        ]
        await store.write(batch)
    content = bytearray(path.read_bytes())
    content[5 * 4096 : 7 * 4096] = b"\xff" * 8192
    path.write_bytes(content)
    with pytest.raises(StoreCorruptError, match=r"docs/storage\.md"):
        async with open_sqlite_store(path):
            pass
    document = (Path(__file__).parents[3] / "docs/storage.md").read_text()
    [commands] = re.findall(r"```bash\n(.*?)```", document, re.DOTALL)
    done = await trio.run_process(
        ["bash", "-ec", commands], cwd=tmp_path, capture_stdout=True, capture_stderr=True, check=False
    )
    assert done.returncode == 0, done.stderr
    async with open_sqlite_store(path) as store:
        page = await store.select(Selection(), limit=1000)
        assert len(page.records) > 50
        assert path.stat().st_mode & 0o777 == 0o600


async def test_one_damaged_record_hides_no_other(tmp_path: Path, make_record: MakeRecord) -> None:
    """Sessions around it are listed, and expire."""
    path = tmp_path / "s.db"
    async with open_sqlite_store(path) as store:
        for n in range(3):
            record = make_record(f"s{n}", opened_at=float(n), state=RecordState.ENDED, ended_at=5.0)
            await store.write([Write(session_id=f"s{n}", epoch=1, record=record)])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE sessions SET record = '{' WHERE id = 's1'")
        first = await store.select(Selection(), limit=2)
        assert first.next_cursor is not None
        rest = await store.select(Selection(), cursor=first.next_cursor, limit=2)
        assert [one.session_id for one in (*first.records, *rest.records)] == ["s2", "s0"]
        expired = await store.expired(now=1_000.0, retention_seconds=1.0, limit=10)
        assert {one.session_id for one in expired} == {"s0", "s2"}
