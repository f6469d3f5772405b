"""A real server on a real Redis: calls go on while it is frozen, killed and restarted, and everything is there afterwards."""

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from voice_agent.audio.files import read_audio
from voice_agent.core.journal import EntryKind, RecordState
from voice_agent.session.store.redis import open_redis_store

pytestmark = pytest.mark.e2e

SERVERS = runpy.run_path(str(Path(__file__).parents[1] / "redis_servers.py"))
BYTES_PER_SECOND = 32_000
FINALS = 6
"""Utterances of the recording."""
PATIENCE_SECONDS = 90


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    """A Redis that flushes what it is given before it answers."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with SERVERS["redis_servers"](folder) as servers:
        yield servers.start_durable()


def options_of(redis: Any, tmp_path: Path) -> dict[str, Any]:
    """The settings of a server that keeps its calls there; the address comes from a file, as a mounted secret does."""
    secret = tmp_path / "redis-url"
    secret.write_text(redis.url)
    secret.chmod(0o600)
    return {"store__kind": "redis", "store__redis_url_file": secret}


class Watched:
    """What an operator sees of the store."""

    def __init__(self, server: Any) -> None:
        self.server = server

    async def look(self) -> tuple[int, str, float, float]:
        """Status and words of readiness, the store's state, and how many writes wait."""
        async with httpx.AsyncClient() as client:
            ready = await client.get(f"{self.server.http}/readyz", timeout=30)
            metrics = (await client.get(f"{self.server.http}/metrics", timeout=30)).text
        values = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
        return (
            ready.status_code,
            json.dumps(ready.json()),
            float(values["voice_agent_store_state"]),
            float(values["voice_agent_store_waiting_writes"]),
        )

    async def until_degraded(self, at_least: int) -> None:
        """Ready all the same, but degraded, with so many writes that wait."""
        while True:
            status, words, state, waiting = await self.look()
            assert status == 200
            if "degraded: the store is away" in words and state == 1.0 and waiting >= at_least:
                return
            await trio.sleep(0.1)

    async def until_healthy(self) -> None:
        """Nothing waits any more."""
        while (await self.look())[2:] != (0.0, 0.0):  # noqa: ASYNC110 (it happens in another process)
            await trio.sleep(0.1)


class Speaker:
    """A call: speaks real speech, and notes each final that it is told."""

    def __init__(self, socket_: Any, speech: bytes) -> None:
        self.socket = socket_
        self.speech = speech
        self.session = ""
        self.finals: list[dict[str, Any]] = []

    async def hear(self, kind: str) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(await self.socket.get_message())
            self.session = message.get("session", self.session)
            if message["type"] == "final":
                self.finals.append(message)
            if message["type"] == kind:
                return message

    async def speak(self) -> list[dict[str, Any]]:
        """Say it all, then type a line; return the finals of it, the line's last."""
        begin = len(self.finals)
        for first in range(0, len(self.speech), BYTES_PER_SECOND):
            await self.socket.send_message(self.speech[first : first + BYTES_PER_SECOND])
        while len(self.finals) < begin + FINALS:
            await self.hear("final")
        await self.socket.send_message(json.dumps({"type": "text", "text": f"line {begin}"}))
        while self.finals[-1]["text"] != f"line {begin}":
            await self.hear("final")
        return self.finals[begin:]


async def test_calls_go_on_while_redis_is_frozen_killed_and_restarted(
    start_server: Any, connect: Any, assets: Path, tmp_path: Path, redis: Any
) -> None:
    """Each final is told, marked while it isn't kept; operators see the outage; afterwards all is there, in order, once.

    Real time: speech is recognised four times. A busy machine may mark a final or two of a Redis that is well, for they
    waited longer than their budget; so one that is not marked will do.
    """
    server = start_server(**options_of(redis, tmp_path), readiness__interval_seconds=0.5)
    watched = Watched(server)
    speech = read_audio(assets / "beckett.wav").to_s16le() + bytes(BYTES_PER_SECOND)
    with trio.fail_after(PATIENCE_SECONDS):
        async with connect(server.url) as socket_:
            speaker = Speaker(socket_, speech)
            assert any("stored" not in final for final in await speaker.speak())
            assert (await watched.look())[0] == 200

            redis.freeze()
            assert all(final["stored"] is False for final in await speaker.speak())
            await watched.until_degraded(FINALS)

            redis.thaw()
            await watched.until_healthy()
            assert any("stored" not in final for final in await speaker.speak())

            redis.kill()
            assert all(final["stored"] is False for final in await speaker.speak())
            await watched.until_degraded(FINALS)
            await trio.to_thread.run_sync(redis.start)
            await watched.until_healthy()

            await socket_.send_message(json.dumps({"type": "stop"}))
            assert "stored" not in await speaker.hear("closed")
        async with open_redis_store(redis.url, keep_seconds=3600) as store:
            journal = await store.journal(speaker.session)
            record = await store.record(speaker.session)
    assert [entry.number for entry in journal] == list(range(1, len(journal) + 1))
    finals = [entry for entry in journal if entry.kind is EntryKind.FINAL]
    assert [(entry.seq, entry.body["text"]) for entry in finals] == [
        (final["seq"], final["text"]) for final in speaker.finals
    ]
    assert journal[-1].kind is EntryKind.CLOSED
    assert record is not None
    assert record.state is RecordState.ENDED
    events = [json.loads(line)["event"] for line in server.log().splitlines()]
    assert events.count("store_unavailable") == events.count("store_available") == 2
    assert "Traceback" not in server.log()
    assert redis.url not in server.log()
    assert server.stop() == 0


async def test_a_drain_writes_every_word_to_redis(
    start_server: Any, connect: Any, assets: Path, tmp_path: Path, redis: Any
) -> None:
    """SIGTERM in the middle of speech: what was told and what comes of the last words is kept, and the call may be resumed."""
    server = start_server(**options_of(redis, tmp_path), server__grace_seconds=1)
    speech = read_audio(assets / "beckett.wav").to_s16le()
    with trio.fail_after(PATIENCE_SECONDS):
        async with connect(server.url) as socket_:
            speaker = Speaker(socket_, speech)
            await socket_.send_message(speech[: 3 * BYTES_PER_SECOND])
            await speaker.hear("final")
            await socket_.send_message(speech[3 * BYTES_PER_SECOND : 5 * BYTES_PER_SECOND])
            server.process.terminate()
            closed = await speaker.hear("closed")
        assert await trio.to_thread.run_sync(server.process.wait) == 0
        assert closed["reason"] == "drain"
        async with open_redis_store(redis.url, keep_seconds=3600) as store:
            journal = await store.journal(speaker.session)
            record = await store.record(speaker.session)
    texts = [entry.body["text"] for entry in journal if entry.kind is EntryKind.FINAL]
    assert texts == [final["text"] for final in speaker.finals]
    assert record is not None
    assert record.state is RecordState.DETACHED


def test_a_redis_that_refuses_us_stops_the_start(start_server: Any, tmp_path: Path, redis: Any) -> None:
    """The operator reads why, and no password."""
    url = redis.url.replace("redis://", "redis://someone:wr0ng-word@")
    with pytest.raises(AssertionError, match=r"user and password of store\.redis_url") as caught:
        start_server(store__kind="redis", store__redis_url=url)
    assert "wr0ng-word" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
