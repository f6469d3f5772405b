"""SQLite through what happens to files: killed writers, full disks, damage, other versions, other processes."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from voice_agent.core.errors import StoreCorruptError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.session.store.protocol import Outcome, Write
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
    ],
    ids=["foreign", "overwritten", "newer"],
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
