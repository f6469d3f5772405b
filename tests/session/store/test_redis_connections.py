"""One connection of many: what arrives late, and what is given up half-way, leaves nothing behind."""

from collections.abc import Callable
from typing import Any, Self

import attrs
import pytest
import trio

from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord, transcript_of
from voice_agent.session.store.protocol import Claim, Outcome, Write
from voice_agent.session.store.redis import RedisStore, open_redis_store
from voice_agent.session.store.redis_link import RedisLink
from voice_agent.session.store.writer import open_journal_writer

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]

LIMIT_SECONDS = 60
"""Catches hangs."""


async def test_a_write_that_arrives_late_changes_nothing(
    redis_server: Any, make_record: MakeRecord, make_entry: MakeEntry, open_proxy: Any, quick: None
) -> None:
    """What the network held back is carried out after later writes: entries are passed over, and so is the older record."""
    early, late = make_record(updated_at=1_001.0), make_record(updated_at=1_002.0, close_reason="stop")
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_proxy(redis_server.port) as network,
            open_redis_store(network.url, prefix="late", keep_seconds=3600) as held,
            open_redis_store(redis_server.url, prefix="late", keep_seconds=3600) as store,
        ):
            await held.check()
            runs = calls_of(redis_server, "evalsha")
            network.hold()
            first = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=early)
            with pytest.raises(StoreUnavailableError, match="no answer"):
                await held.write([first])
            second = attrs.evolve(first, entries=(make_entry(1), make_entry(2)), record=late)
            assert await store.write([second]) == [Outcome.ACCEPTED]
            network.release()
            while calls_of(redis_server, "evalsha") < runs + 2:  # noqa: ASYNC110 (in another process)
                await trio.sleep(0.01)
            assert await store.record("s1") == late
            assert len(await store.journal("s1")) == 2


def calls_of(server: Any, command: str) -> int:
    found = [
        x for x in server.cli("INFO", "commandstats").splitlines() if x.startswith(f"cmdstat_{command}:")
    ]
    return int(found[0].partition("calls=")[2].partition(",")[0]) if found else 0


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope when its task is about to be scheduled for the n-th time."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.scope = trio.CancelScope()
        self.task = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.steps -= 1
            if self.steps == 0:
                self.scope.cancel()


@pytest.mark.parametrize("is_cut", [False, True], ids=["connected", "while connecting"])
async def test_cancelled_at_each_step_an_operation_leaves_the_store_usable(
    redis_server: Any,
    make_record: MakeRecord,
    make_entry: MakeEntry,
    open_proxy: Any,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_cut: bool,
) -> None:
    """At whichever checkpoint a write, claim or read is given up, later ones work, and a session is kept or not, never half."""
    monkeypatch.setattr("voice_agent.session.store.redis_link.REOPEN_SECONDS", 0.001)

    async def claim() -> None:
        record = await store.record("s1")
        assert record is not None
        await store.claim(
            Claim(
                session_id="s1", key_id="k1", tenant="t1", token_sha256=record.token_sha256, node="n", now=1_000.0,
                new_token_sha256=f"token-{record.epoch}", lease_seconds=10.0,
            )
        )  # fmt: skip

    write = Write(
        session_id="s1", epoch=1_000, entries=tuple(make_entry(n) for n in range(1, 40)), record=make_record()
    )
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_proxy(redis_server.port) as network,
            open_redis_store(network.url, prefix=f"cancel-{is_cut}", keep_seconds=3600) as store,
        ):
            operations: list[Callable[[], Any]] = [
                lambda: store.write([write]), claim, lambda: store.journal("s1"), store.check,
            ]  # fmt: skip
            cancelled = 0
            for operation in operations:
                for step in range(1, 1_000):
                    if is_cut:
                        network.cut()
                        await trio.testing.wait_all_tasks_blocked(0.002)
                    instrument = CancelAtStep(step)
                    is_done = False
                    trio.lowlevel.add_instrument(instrument)
                    try:
                        with instrument.scope:
                            await operation()
                            is_done = True
                    except StoreUnavailableError:
                        pass  # the connection was cut under it
                    finally:
                        trio.lowlevel.remove_instrument(instrument)
                    assert len(await until_available(store)) in {0, 39}
                    if is_done:
                        break
                    cancelled += instrument.scope.cancelled_caught
                else:
                    raise AssertionError
            print(
                {"cancelled": cancelled, "clients": store._link.clients, "connections": network.connections}
            )
            assert cancelled >= len(operations)
            assert transcript_of(await store.journal("s1")) == ("hello",) * 39
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(store.check)


async def until_available(store: RedisStore) -> Any:
    while True:
        try:
            return await store.journal("s1")
        except StoreUnavailableError:
            await trio.sleep(0.01)


async def test_what_waits_is_written_when_everything_around_is_cancelled(
    redis_server: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """The connection outlives the cancellation of a server for as long as its last writes take."""
    with trio.fail_after(LIMIT_SECONDS):
        with trio.CancelScope() as program:
            async with (
                open_redis_store(redis_server.url, prefix="last", keep_seconds=3600) as store,
                open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=10) as writer,
            ):
                await store.check()
                for number in range(1, 50):
                    writer.submit(
                        Write(session_id="s1", epoch=1, entries=(make_entry(number),), record=make_record())
                    )
                program.cancel()
                await trio.sleep_forever()
        async with open_redis_store(redis_server.url, prefix="last", keep_seconds=3600) as store:
            assert len(await store.journal("s1")) == 49


class DyingClient:
    """A client whose background tasks die of something that nobody foresaw."""

    def __init__(self, lives: list[int]) -> None:
        self.lives = lives

    async def __aenter__(self) -> Self:
        self.lives.append(1)
        if len(self.lives) < 3:
            raise KeyError("in the library")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        return None


async def test_a_client_that_dies_of_a_defect_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library's own tasks raise ends that client, and neither the link nor the server."""
    monkeypatch.setattr("voice_agent.session.store.redis_link.REOPEN_SECONDS", 0.001)
    lives: list[int] = []
    link = RedisLink(lambda: DyingClient(lives))  # type: ignore[arg-type]
    with trio.fail_after(LIMIT_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.keep)

            async def answer(_client: object) -> str:
                await trio.lowlevel.checkpoint()
                return "alive"

            while True:
                try:
                    assert await link.ask(answer) == "alive"
                    break
                except StoreUnavailableError:
                    pass
            nursery.cancel_scope.cancel()
    assert len(lives) == 3


async def test_attempts_without_a_master_never_use_the_pool_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fortieth attempt is answered as the first one is: a pool of sixteen that loses a place each time would be empty."""
    monkeypatch.setattr("voice_agent.session.store.redis_link.REOPEN_SECONDS", 0.001)
    with trio.fail_after(LIMIT_SECONDS):
        async with open_redis_store("redis+sentinel://127.0.0.1:1/calls", keep_seconds=3600) as store:
            for _ in range(40):
                with pytest.raises(StoreUnavailableError, match="know no master"):
                    await store.check()


async def test_connections_that_are_given_up_while_they_are_made_never_use_the_pool_up(
    redis_server: Any, open_proxy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty operations are cancelled before their connection is there, and end as cancelled; the next one is served."""
    monkeypatch.setattr("voice_agent.session.store.redis_link.REOPEN_SECONDS", 0.001)
    with trio.fail_after(LIMIT_SECONDS):
        async with (
            open_proxy(redis_server.port) as network,
            open_redis_store(network.url, prefix="given-up", keep_seconds=3600) as store,
        ):
            network.cut()
            network.hold()
            await trio.testing.wait_all_tasks_blocked(0.01)
            for _ in range(40):
                with trio.move_on_after(0.02) as given_up:
                    await store.check()
                assert given_up.cancelled_caught
            network.release()
            await store.check()
