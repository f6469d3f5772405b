"""Redis through what happens to servers and networks: the journal has no hole, no double, nothing torn, and all that was told."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest
import trio

from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.session.store.redis import RedisStore, open_redis_store
from voice_agent.session.store.writer import JournalWriter, StoreState, WriterHooks, open_journal_writer

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]

KILLS = 12
RECONNECTS = 200
LIMIT_SECONDS = 60
"""Catches hangs."""


@attrs.define
class Caller:
    """A call whose finals are kept, and what its caller was told to be kept."""

    session_id: str
    make_record: MakeRecord
    make_entry: MakeEntry
    writer: JournalWriter
    budget_seconds: float = 0.05
    said: list[JournalEntry] = attrs.field(factory=list)
    told: list[int] = attrs.field(factory=list)
    outcomes: set[Outcome | None] = attrs.field(factory=set)

    async def say(self) -> Outcome | None:
        number = len(self.said) + 1
        entry = self.make_entry(number, f"{self.session_id} says {number} " + "x" * (number % 300))
        self.said.append(entry)
        record = self.make_record(self.session_id, updated_at=1_000.0 + number)
        outcome = await self.writer.submit(
            Write(session_id=self.session_id, epoch=1, entries=(entry,), record=record)
        ).wait(self.budget_seconds)
        self.outcomes.add(outcome)
        if outcome is Outcome.ACCEPTED:
            self.told.append(number)
        return outcome

    async def talk(self, pause_seconds: float = 0.004) -> None:
        rng = random.Random(self.session_id)
        while True:
            await self.say()
            await trio.sleep(rng.uniform(0, pause_seconds))

    async def verify(self, store: RedisStore, *, is_over: bool = True) -> None:
        """What was told is there; when all is over, everything that was said is, once and in order."""
        told = self.told[-1] if self.told else 0
        journal = list(await store.journal(self.session_id, limit=1_000_000))
        assert [entry.number for entry in journal] == list(range(1, len(journal) + 1))
        assert journal == self.said[: len(journal)]
        assert len(journal) >= told
        if is_over:
            assert journal == self.said
            record = await store.record(self.session_id)
            assert record is not None
            assert record.updated_at == 1_000.0 + len(journal)


@contextmanager
def bounded() -> Iterator[None]:
    with trio.fail_after(LIMIT_SECONDS):
        yield


async def until(is_so: Callable[[], bool]) -> None:
    """Look again and again; what changes is in another process, or has no event."""
    while not is_so():  # noqa: ASYNC110
        await trio.sleep(0.002)


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_killed_in_mid_write_nothing_that_was_told_is_lost(
    redis_servers: Any,
    programs: Callable[[str], str],
    make_record: MakeRecord,
    make_entry: MakeEntry,
    kind: str,
) -> None:
    """SIGKILL at random moments and a restart from the append-only file, while four calls are kept: all is there, once."""
    server = redis_servers.start_durable(program=programs(kind))
    rng = random.Random(7)
    states: list[StoreState] = []
    with bounded():
        async with (
            open_redis_store(server.url, keep_seconds=3600) as store,
            open_journal_writer(
                store, max_waiting_bytes=1 << 24, drain_seconds=20, hooks=WriterHooks(on_state=states.append)
            ) as writer,
        ):
            callers = [Caller(f"s{n}", make_record, make_entry, writer) for n in range(4)]
            async with trio.open_nursery() as nursery:
                for caller in callers:
                    nursery.start_soon(caller.talk)
                for _ in range(KILLS):
                    goal = sum(len(caller.told) for caller in callers) + 4
                    await until(lambda goal=goal: sum(len(caller.told) for caller in callers) >= goal)
                    await trio.sleep(rng.uniform(0, 0.04))
                    server.kill()
                    await trio.to_thread.run_sync(server.start)
                    async with open_redis_store(server.url, keep_seconds=3600) as other:
                        for caller in callers:
                            await caller.verify(other, is_over=False)
                nursery.cancel_scope.cancel()
            await writer.drain()
            for caller in callers:
                await caller.verify(store)
                assert Outcome.LOST not in caller.outcomes
    said, told = (
        sum(len(numbers) for numbers in of) for of in zip(*((c.said, c.told) for c in callers), strict=True)
    )
    print({"kills": KILLS, "said": said, "told": told, "outages": states.count(StoreState.BUFFERING)})
    assert states[-1] is StoreState.HEALTHY


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_frozen_the_budget_passes_and_all_is_written_after_the_thaw(
    redis_servers: Any,
    programs: Callable[[str], str],
    make_record: MakeRecord,
    make_entry: MakeEntry,
    quick: None,
    kind: str,
) -> None:
    """SIGSTOP: callers go on after their budget, untold; SIGCONT: what waited is there in order and once."""
    server = redis_servers.start(program=programs(kind))
    states: list[StoreState] = []
    hooks = WriterHooks(on_state=states.append)
    with bounded():
        async with (
            open_redis_store(server.url, keep_seconds=3600) as store,
            open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=10, hooks=hooks) as writer,
        ):
            callers = [Caller(f"s{n}", make_record, make_entry, writer, 2.0) for n in range(3)]
            for caller in callers:
                assert await caller.say() is Outcome.ACCEPTED
                caller.budget_seconds = 0.02
            server.freeze()
            while len(states) == 0 or len(callers[0].said) < 20:
                for caller in callers:
                    assert await caller.say() is None
            assert states == [StoreState.BUFFERING]
            # Several attempts have reached the frozen server by now, and all of them are carried out.
            await trio.sleep(0.8)
            server.thaw()
            await writer.drain()
            for caller in callers:
                await caller.verify(store)
                caller.budget_seconds = 2.0
                assert await caller.say() is Outcome.ACCEPTED
    assert states == [StoreState.BUFFERING, StoreState.HEALTHY]


async def test_restarted_empty_the_running_calls_are_lost_and_new_ones_kept(
    redis_servers: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """A Redis without persistence forgets: who was in the middle is told, nothing crashes, and no journal gets a hole."""
    server = redis_servers.start()
    with bounded():
        async with (
            open_redis_store(server.url, keep_seconds=3600) as store,
            open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=5) as writer,
        ):
            old, new = (Caller(name, make_record, make_entry, writer, 5.0) for name in ("old", "new"))
            assert [await old.say() for _ in range(3)] == [Outcome.ACCEPTED] * 3
            server.kill()
            await trio.to_thread.run_sync(server.start)
            assert await old.say() is Outcome.LOST
            assert await new.say() is Outcome.ACCEPTED
            assert await old.say() is Outcome.LOST
            assert list(await store.journal("old")) == []
            await new.verify(store)


async def test_out_of_memory_writes_wait_until_there_is_room(
    redis_servers: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """With noeviction a full Redis refuses whole writes and still answers reads; with room again all of them are there."""
    server = redis_servers.start("--maxmemory-policy", "noeviction")
    states: list[StoreState] = []
    hooks = WriterHooks(on_state=states.append)
    with bounded():
        async with (
            open_redis_store(server.url, keep_seconds=3600) as store,
            open_journal_writer(store, max_waiting_bytes=1 << 22, drain_seconds=10, hooks=hooks) as writer,
        ):
            caller = Caller("s1", make_record, make_entry, writer, 2.0)
            await caller.say()
            server.cli("CONFIG", "SET", "maxmemory", str(int(server.info("used_memory")) + 200_000))
            caller.budget_seconds = 0.01
            async with trio.open_nursery() as nursery:
                nursery.start_soon(caller.talk, 0.001)
                while not states:
                    await trio.sleep(0.01)
                    ballast = "y" * 20_000
                    server.cli("SET", f"other:{len(caller.said)}", ballast, check=False)
                nursery.cancel_scope.cancel()
            assert states == [StoreState.BUFFERING]
            await caller.verify(store, is_over=False)
            server.cli("CONFIG", "SET", "maxmemory", "0")
            await writer.drain()
            await caller.verify(store)


async def test_a_failover_loses_nothing_that_replicas_had_confirmed(
    redis_servers: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """The master is killed while two calls are kept; Sentinels promote a replica, and the calls are kept there in full.

    Real time: Sentinels need a second or two to agree.
    """
    group = await trio.to_thread.run_sync(redis_servers.start_sentinels, "redis-server", 2)
    with bounded():
        async with (
            open_redis_store(group.url, keep_seconds=3600, wait_replicas=1) as store,
            open_journal_writer(store, max_waiting_bytes=1 << 24, drain_seconds=20) as writer,
        ):
            callers = [Caller(f"s{n}", make_record, make_entry, writer) for n in range(2)]
            async with trio.open_nursery() as nursery:
                for caller in callers:
                    nursery.start_soon(caller.talk, 0.02)
                await trio.sleep(0.5)
                group.master.kill()
                goal = len(callers[0].told) + 20
                await until(lambda: len(callers[0].told) >= goal)
                nursery.cancel_scope.cancel()
            await writer.drain()
            for caller in callers:
                assert None in caller.outcomes
                assert Outcome.LOST not in caller.outcomes
                await caller.verify(store)


async def test_without_waiting_for_replicas_a_failover_may_lose_what_was_told(
    redis_servers: Any, make_record: MakeRecord, make_entry: MakeEntry, open_proxy: Any
) -> None:
    """Replication is behind, the master dies, its replica takes over: a final that was told is gone, as documented.

    With ``wait_replicas`` the same final is not told to be kept.
    """
    with bounded():
        master = redis_servers.start("--repl-diskless-sync-delay", "0")
        async with open_proxy(master.port) as between:
            replica = redis_servers.make("--replicaof", "127.0.0.1", str(between.port))
            await trio.to_thread.run_sync(replica.start)
            await trio.to_thread.run_sync(
                replica.wait_until, lambda: replica.info("master_link_status") == "up"
            )
            begin = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())
            unlucky = Write(session_id="s1", epoch=1, entries=(make_entry(2),))
            async with (
                open_redis_store(master.url, keep_seconds=3600, wait_replicas=1) as careful,
                open_redis_store(master.url, keep_seconds=3600) as careless,
            ):
                assert await careful.write([begin]) == [Outcome.ACCEPTED]
                between.hold()
                with pytest.raises(StoreUnavailableError, match="too few replicas"):
                    await careful.write([unlucky])
                assert await careless.write([unlucky]) == [Outcome.ACCEPTED]
                master.kill()
        replica.cli("REPLICAOF", "NO", "ONE")
        async with open_redis_store(replica.url, keep_seconds=3600) as store:
            assert len(await store.journal("s1")) == 1


async def test_a_network_that_drops_again_and_again_leaves_nothing_behind(
    redis_server: Any,
    make_record: MakeRecord,
    make_entry: MakeEntry,
    open_proxy: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """200 broken connections under a call: everything is kept, and neither tasks nor connections have grown."""
    monkeypatch.setattr("voice_agent.session.store.redis_link.REOPEN_SECONDS", 0.01)
    monkeypatch.setattr("voice_agent.session.store.writer.FIRST_RETRY_SECONDS", 0.01)
    with bounded():
        async with (
            open_proxy(redis_server.port) as network,
            open_redis_store(network.url, prefix="drops", keep_seconds=3600) as store,
            open_journal_writer(store, max_waiting_bytes=1 << 24, drain_seconds=10) as writer,
        ):
            caller = Caller("s1", make_record, make_entry, writer, 2.0)
            await caller.say()
            tasks, clients = tasks_now(), int(redis_server.info("connected_clients"))
            for _ in range(RECONNECTS):
                network.cut()
                assert await caller.say() is Outcome.ACCEPTED
            await caller.verify(store)
            assert network.connections > RECONNECTS
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert tasks_now() <= tasks
            assert int(redis_server.info("connected_clients")) <= clients


def tasks_now() -> int:
    """Tasks of this run; the statistics count finished ones no more."""
    return trio.lowlevel.current_statistics().tasks_living
