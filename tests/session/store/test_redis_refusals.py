"""What Redis refuses: each reason in words, tried again where that can help, and at the start where only its operator can."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from voice_agent.core.errors import StoreCorruptError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.session.store.protocol import Outcome, Selection, Write
from voice_agent.session.store.redis import RedisStore, open_redis_store
from voice_agent.session.store.redis_faults import FaultKind, fault_of

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]

LIMIT_SECONDS = 30
"""Catches hangs."""
USER = "redis://someone:word@127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def server(shared_redis: Any) -> Any:
    """A Redis whose settings the tests of this file change and put back."""
    server = shared_redis.start("--busy-reply-threshold", "20", "--maxmemory-policy", "noeviction")
    server.cli("ACL", "SETUSER", "someone", "on", ">word", "~*", "+@all")
    return server


def open_as_someone(server: Any, prefix: str) -> AbstractAsyncContextManager[RedisStore]:
    return open_redis_store(USER.format(port=server.port), prefix=prefix, keep_seconds=3600)


@attrs.frozen
class Refusal:
    """Something that an operator or the machine does to a server, what is said of it, and what ends it."""

    words: str
    begin: tuple[str, ...]
    end: tuple[str, ...]


REFUSALS = {
    "OOM": Refusal(
        "may drop nothing", ("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")
    ),
    "READONLY": Refusal("is a replica by now", ("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "NOREPLICAS": Refusal(
        "fewer replicas",
        ("CONFIG", "SET", "min-replicas-to-write", "1"),
        ("CONFIG", "SET", "min-replicas-to-write", "0"),
    ),
    "NOPERM": Refusal(
        "rights in docs/storage.md",
        ("ACL", "SETUSER", "someone", "-evalsha"),
        ("ACL", "SETUSER", "someone", "+evalsha"),
    ),
    "NOPERM in a script": Refusal(
        "rights in docs/storage.md",
        ("ACL", "SETUSER", "someone", "-xadd"),
        ("ACL", "SETUSER", "someone", "+xadd"),
    ),
    "NOPERM for a key": Refusal(
        "rights in docs/storage.md",
        ("ACL", "SETUSER", "someone", "resetkeys", "~other:*"),
        ("ACL", "SETUSER", "someone", "~*"),
    ),
    "NOSCRIPT": Refusal(
        "rights in docs/storage.md",
        ("ACL", "SETUSER", "someone", "-script|load"),
        ("ACL", "SETUSER", "someone", "+script|load"),
    ),
    "WRONGPASS": Refusal(
        "user and password",
        ("ACL", "SETUSER", "someone", "resetpass", ">another"),
        ("ACL", "SETUSER", "someone", "resetpass", ">word"),
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_what_passes_is_told_in_words_and_the_same_write_is_kept_afterwards(
    server: Any, make_record: MakeRecord, make_entry: MakeEntry, name: str
) -> None:
    """Each reason is the same error, which is tried again, and its message says what an operator may do."""
    refusal = REFUSALS[name]
    with trio.fail_after(LIMIT_SECONDS):
        async with open_as_someone(server, name) as store:
            begin = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())
            assert await store.write([begin]) == [Outcome.ACCEPTED]
            server.cli(*refusal.begin)
            try:
                match name:
                    case "WRONGPASS":
                        server.cli("CLIENT", "KILL", "USER", "someone")
                    case "NOSCRIPT":
                        server.cli("SCRIPT", "FLUSH")
                more = Write(session_id="s1", epoch=1, entries=(make_entry(2),))
                for _ in range(2):
                    with pytest.raises(StoreUnavailableError, match=refusal.words) as caught:
                        await written(store, more)
                assert "word@" not in str(caught.value)
            finally:
                server.cli(*refusal.end)
            assert await written(store, more) == [Outcome.ACCEPTED]
            assert [entry.number for entry in await store.journal("s1")] == [1, 2]


async def written(store: RedisStore, write: Write) -> Any:
    """Write; a connection that has just been broken is no answer yet."""
    while True:
        try:
            return await store.write([write])
        except StoreUnavailableError as error:
            if "Connection" not in error.message:
                raise


async def test_somebody_elses_long_script_is_waited_out(
    server: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """BUSY: Redis answers nothing else meanwhile."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_as_someone(server, "busy") as store:
            begin = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())
            with socket.create_connection(("127.0.0.1", server.port)) as other:
                other.sendall(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile 1 do end --\r\n$1\r\n0\r\n")
                await trio.sleep(0.1)
                with pytest.raises(StoreUnavailableError, match="long script"):
                    await store.write([begin])
                server.cli("SCRIPT", "KILL")
            assert await patiently(store, begin) == [Outcome.ACCEPTED]


@pytest.mark.parametrize("part", ["record", "journal"])
async def test_a_key_that_is_not_ours_loses_that_session_and_no_other(
    server: Any, make_record: MakeRecord, make_entry: MakeEntry, part: str
) -> None:
    """WRONGTYPE is not tried again: nothing would change it."""
    server.cli("SET", f"types-{part}:{{bad}}:{part}", "a string")
    with trio.fail_after(LIMIT_SECONDS):
        async with open_as_someone(server, f"types-{part}") as store:
            bad, good = (
                Write(session_id=name, epoch=1, entries=(make_entry(1),), record=make_record(name))
                for name in ("bad", "good")
            )
            with pytest.raises(StoreCorruptError, match="holds something else"):
                await store.write([bad])
            assert await store.write([good]) == [Outcome.ACCEPTED]


async def test_a_journal_ahead_of_its_record_is_damaged(
    server: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Redis refuses an id that is not above the last; the entry is never put elsewhere."""
    with trio.fail_after(LIMIT_SECONDS):
        async with open_as_someone(server, "ahead") as store:
            begin = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())
            assert await store.write([begin]) == [Outcome.ACCEPTED]
            server.cli("XADD", "ahead:{s1}:journal", "9-0", "entry", "{}")
            with pytest.raises(StoreCorruptError):
                await store.write([attrs.evolve(begin, entries=(make_entry(2),))])


async def test_a_redis_that_still_reads_its_file_is_waited_for(
    redis_servers: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """LOADING after a restart: tried again, and everything is there."""
    server = redis_servers.start_durable()
    begin = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())
    with trio.fail_after(LIMIT_SECONDS):
        async with open_redis_store(server.url, keep_seconds=3600) as store:
            await store.write([begin])
            # It looks at its connections after each 1024 commands that it has read.
            server.cli("EVAL", "for n = 1, 8000 do redis.call('SET', 'other:' .. n, n) end", "0")
            server.kill()
            server.options += ("--key-load-delay", "150")
            server.launch()
            reasons = set()
            while True:
                try:
                    await store.check()
                    break
                except StoreUnavailableError as error:
                    print(repr(error))
                    reasons.add(error.message.partition(" (")[0])
                await trio.sleep(0.01)
            assert "Redis reads its file after a start" in reasons
            assert len(await store.journal("s1")) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system can't be mounted here (that takes root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_disk_of_redis_is_waited_for(
    redis_servers: Any, small_disk: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """MISCONF: its append-only file can't grow; with room again the journal goes on, whole."""
    server = redis_servers.start("--appendonly", "yes", "--dir", str(small_disk))
    number = 1
    with trio.fail_after(LIMIT_SECONDS):
        async with open_redis_store(server.url, keep_seconds=3600) as store:
            await store.write(
                [Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())]
            )
            ballast = small_disk / "ballast"
            ballast.write_bytes(b"x" * 1_500_000)
            with pytest.raises(StoreUnavailableError, match="can't write its file"):  # noqa: PT012 (which write it is, is unknown)
                while number < 200:
                    entry = make_entry(number + 1, "y" * 20_000)
                    await store.write([Write(session_id="s1", epoch=1, entries=(entry,))])
                    number += 1
            ballast.unlink()
            entry = make_entry(number + 1)
            while True:
                try:
                    await store.write([Write(session_id="s1", epoch=1, entries=(entry,))])
                    break
                except StoreUnavailableError:
                    await trio.sleep(0.05)  # Redis looks once a second
            numbers = [entry.number for entry in await store.journal("s1")]
            server.kill()
            await trio.to_thread.run_sync(server.start)
            await trio.sleep(0.05)
            while True:
                try:
                    assert [entry.number for entry in await store.journal("s1")] == numbers
                    break
                except StoreUnavailableError:
                    await trio.sleep(0.05)
    assert numbers == list(range(1, number + 2))


async def test_a_cluster_with_a_dead_server_comes_back(
    redis_servers: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """One of three masters is killed: its sessions and, once the others know, all of them wait; restarted, they go on.

    Real time: the others take a second or two to agree.
    """
    nodes = await trio.to_thread.run_sync(redis_servers.start_cluster, "--appendonly", "yes")
    url = f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}"
    names = [f"s{n}" for n in range(12)]
    entries = tuple(make_entry(n) for n in (1, 2, 3))
    writes = [
        Write(session_id=name, epoch=1, entries=entries[:1], record=make_record(name)) for name in names
    ]
    with trio.fail_after(LIMIT_SECONDS):
        async with open_redis_store(url, keep_seconds=3600) as store:
            assert await store.write(writes) == [Outcome.ACCEPTED] * 12
            nodes[2].kill()
            reasons: set[str] = set()
            while not any("slots have no server" in reason for reason in reasons):
                for write in writes:
                    try:
                        await store.write([attrs.evolve(write, entries=entries[:2])])
                    except StoreUnavailableError as error:
                        reasons.add(error.message)
            nodes[2].launch()
            for write in writes:
                assert await patiently(store, attrs.evolve(write, entries=entries)) == [Outcome.ACCEPTED]
                assert tuple(await store.journal(write.session_id)) == entries
            page = await store.select(Selection(), limit=50)
            assert {record.session_id for record in page.records} == set(names)


async def patiently(store: RedisStore, write: Write) -> Any:
    while True:
        try:
            return await store.write([write])
        except StoreUnavailableError:
            await trio.sleep(0.05)


def test_an_error_that_is_not_of_redis_is_no_fault_of_it() -> None:
    """A defect of ours is not taken for an outage, which would be tried for ever."""
    assert fault_of(KeyError("x")) is None
    assert fault_of(ExceptionGroup("", [ValueError("x")])) is None
    found = fault_of(ExceptionGroup("", [OSError("x")]))
    assert found is not None
    assert found[0].kind is FaultKind.AWAY
