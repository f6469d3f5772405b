"""Sessions go on behind a lost connection, on real servers: nothing that was said is lost, and nothing is there twice."""

import contextlib
import difflib
import json
import runpy
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from trio_websocket import ConnectionClosed

from voice_agent.audio.files import read_audio
from voice_agent.core.journal import EntryKind, JournalEntry, standing_finals
from voice_agent.session.store.redis import open_redis_store

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 60
SERVERS = runpy.run_path(str(Path(__file__).parents[1] / "redis_servers.py"))
TOLERANCE_SECONDS = 0.4
BYTES_PER_MS = 32
MESSAGE_MS = 200

Connect = Callable[..., AbstractAsyncContextManager[Any]]


@attrs.frozen
class Final:
    """One that a caller was told, or that is kept."""

    start: float
    end: float
    text: str

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Final":
        return cls(fields["start"], fields["end"], fields["text"])

    def is_same_as(self, other: "Final") -> bool:
        """Whether it is of the same words: what was said before helps the model, and is not heard again behind a cut.

        So "fail better" may become "fare better"; where it stands doesn't change.
        """
        alike = difflib.SequenceMatcher(None, self.text.lower(), other.text.lower()).ratio()
        return (
            abs(self.start - other.start) < TOLERANCE_SECONDS
            and abs(self.end - other.end) < TOLERANCE_SECONDS
            and alike > 0.5
        )


def assert_same(found: Sequence[Final], expected: Sequence[Final]) -> None:
    """Each is there, once, in order."""
    assert len(found) == len(expected), (found, expected)
    assert all(one.is_same_as(other) for one, other in zip(found, expected, strict=True)), (found, expected)


@attrs.define
class Caller:
    """One who speaks, loses connections and comes back; keeps all of what it says, and what it was told by number."""

    speech: bytes
    connect: Connect
    told: dict[int, dict[str, Any]] = attrs.field(factory=dict)
    order: list[int] = attrs.field(factory=list)
    session: str = ""
    token: str = ""
    ready: dict[str, Any] = attrs.field(factory=dict)
    sent_ms: int = 0
    is_closed: trio.Event = attrs.field(factory=trio.Event)

    @property
    def last_seq(self) -> int:
        return max(self.told, default=0)

    @property
    def finals(self) -> list[Final]:
        return [Final.of(self.told[seq]) for seq in sorted(self.told) if self.told[seq]["type"] == "final"]

    def resume(self, **changes: Any) -> dict[str, Any]:
        return {"session": self.session, "token": self.token, "last_seq": self.last_seq, **changes}

    @asynccontextmanager
    async def calling(
        self, url: str, resume: dict[str, Any] | None = None, *, partials: bool = True
    ) -> AsyncIterator[Any]:
        async with self.connect(url) as socket:
            start = {"type": "start", "partials": partials, **({} if resume is None else {"resume": resume})}
            await socket.send_message(json.dumps(start))
            await self.read_until(socket, "ready")
            yield socket

    async def read_until(self, socket: Any, kind: str) -> dict[str, Any]:
        while True:
            message = json.loads(await socket.get_message())
            assert message["seq"] not in self.told, "told twice"
            self.told[message["seq"]] = message
            self.order.append(message["seq"])
            if message["type"] == "ready":
                self.ready, self.session = message, message["session"]
                self.token = message["resume"]["token"]
            if message["type"] == kind:
                return message

    async def listen(self, socket: Any) -> None:
        await self.read_until(socket, "closed")
        self.is_closed.set()

    async def speak(self, socket: Any, begin_ms: int, end_ms: int, *, pause_seconds: float = 0.0) -> None:
        for at_ms in range(begin_ms, end_ms, MESSAGE_MS):
            piece = self.speech[at_ms * BYTES_PER_MS : min(at_ms + MESSAGE_MS, end_ms) * BYTES_PER_MS]
            await socket.send_message(piece)
            self.sent_ms = min(at_ms + MESSAGE_MS, end_ms)
            await trio.sleep(pause_seconds)


async def hang_up(socket: Any) -> None:
    """Vanish: the connection is cut, without a close frame."""
    await trio.aclose_forcefully(socket._stream)


@pytest.fixture(scope="module")
def speech(assets: Path) -> bytes:
    """Some 12 seconds of several short sentences, 16 kHz s16le."""
    return read_audio(assets / "beckett.wav").to_s16le()


@pytest.fixture
def caller(speech: bytes, connect: Connect) -> Caller:
    return Caller(speech, connect)


async def uninterrupted(url: str, speech: bytes, connect: Connect) -> list[Final]:
    """Return the finals of the same speech in one call."""
    whole = Caller(speech, connect)
    async with whole.calling(url) as socket:
        await whole.speak(socket, 0, len(speech) // BYTES_PER_MS)
        await socket.send_message('{"type":"stop"}')
        await whole.read_until(socket, "closed")
    return whole.finals


async def test_a_call_goes_on_where_its_connection_was_lost(server: Any, caller: Caller) -> None:
    """Cut in mid-sentence and resumed with the last seconds sent again: the finals of the uninterrupted run, each once.

    The same session, a new token, numbers above all before, a clock that goes on.
    """
    end_ms = len(caller.speech) // BYTES_PER_MS
    cut_ms = end_ms // 2
    with trio.fail_after(PATIENCE_SECONDS):
        expected = await uninterrupted(server.url, caller.speech, caller.connect)
        async with caller.calling(server.url) as socket:
            first = caller.ready
            await caller.speak(socket, 0, cut_ms)
            await caller.read_until(socket, "final")
            await hang_up(socket)
        async with caller.calling(server.url, caller.resume(audio_ms=max(0, cut_ms - 10_000))) as socket:
            again = caller.ready
            await caller.speak(socket, max(0, cut_ms - 10_000), end_ms)
            await socket.send_message('{"type":"stop"}')
            closed = await caller.read_until(socket, "closed")
    assert_same(caller.finals, expected)
    for token in (first["resume"]["token"], again["resume"]["token"]):
        assert token not in server.log()
    assert (again["session"], again["resumed"]) == (first["session"], True)
    assert "resumed" not in first
    assert again["resume"]["token"] != first["resume"]["token"]
    assert 0 < again["heard_ms"] <= cut_ms
    assert again["position_ms"] == again["heard_ms"]
    assert again["seq"] > max(seq for seq in caller.order[: caller.order.index(again["seq"])])
    assert closed["reason"] == "stopped"
    assert closed["transcripts"] == len(expected)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": "guessed"}, "resume_token_wrong"),
        ({"session": "unknown"}, "resume_unknown"),
        ({}, "resume_token_used"),
    ],
)
async def test_a_wrong_token_is_told_apart(
    server: Any, caller: Caller, changes: dict[str, str], code: str
) -> None:
    """Each reason has its code, ends the connection with 4404, and leaves the session to whom it belongs."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with caller.calling(server.url):
            first = caller.resume()
        async with caller.calling(server.url, first), caller.connect(server.url) as socket:
            await socket.send_message(json.dumps({"type": "start", "resume": {**first, **changes}}))
            error = json.loads(await socket.get_message())
            closed = json.loads(await socket.get_message())
            with contextlib.suppress(Exception):
                await socket.get_message()
            assert (error["type"], error["code"], error["fatal"]) == ("error", code, True)
            assert closed["type"] == "closed"
            assert "resumable" not in closed
            assert socket.closed.code == 4404


async def test_the_former_connection_is_told_that_it_was_taken_over(server: Any, caller: Caller) -> None:
    """Resumed while the first connection is still there: that one is closed with 4409 at once."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with (
            caller.calling(server.url) as former,
            caller.calling(server.url, caller.resume()) as socket,
        ):
            closed = json.loads(await former.get_message())
            assert (closed["type"], closed["reason"]) == ("closed", "taken_over")
            with contextlib.suppress(Exception):
                await former.get_message()
            assert former.closed.code == 4409
            await socket.send_message('{"type":"text","text":"here I am"}')
            assert (await caller.read_until(socket, "final"))["text"] == "here I am"


async def test_what_was_told_and_got_lost_is_told_again(server: Any, caller: Caller) -> None:
    """Finals behind the last number that the caller saw come again in order, with the numbers that they had."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with caller.calling(server.url) as socket:
            for text in ("one", "two", "three"):
                await socket.send_message(json.dumps({"type": "text", "text": text}))
                await caller.read_until(socket, "final")
            await hang_up(socket)
        numbers = {m["text"]: seq for seq, m in caller.told.items() if m["type"] == "final"}
        wish = caller.resume(last_seq=numbers["one"])
        caller.told = {seq: m for seq, m in caller.told.items() if seq <= numbers["one"]}
        async with caller.calling(server.url, wish) as socket:
            again = [await caller.read_until(socket, "final") for _ in range(2)]
            await socket.send_message('{"type":"text","text":"four"}')
            four = await caller.read_until(socket, "final")
    assert [(m["text"], m["seq"]) for m in again] == [("two", numbers["two"]), ("three", numbers["three"])]
    assert four["seq"] > caller.ready["seq"] > numbers["three"]


async def test_a_call_goes_on_after_a_restart(start_server: Any, caller: Caller, tmp_path: Path) -> None:
    """The drain ends the call and says that it is resumable; the next process, with the same file, goes on with it."""
    path = tmp_path / "kept.db"
    server = start_server(store__path=path, server__grace_seconds=0.5)
    with trio.fail_after(PATIENCE_SECONDS):
        async with caller.calling(server.url) as socket:
            await socket.send_message('{"type":"text","text":"before"}')
            await caller.read_until(socket, "final")
            server.process.send_signal(signal.SIGTERM)
            closed = await caller.read_until(socket, "closed")
        assert (closed["reason"], closed["resumable"]) == ("drain", True)
        assert await trio.to_thread.run_sync(server.process.wait) == 0
        server = await trio.to_thread.run_sync(lambda: start_server(store__path=path))
        async with caller.calling(server.url, caller.resume(last_seq=1)) as socket:
            again = json.loads(await socket.get_message())
            await socket.send_message('{"type":"text","text":"behind"}')
            behind = await caller.read_until(socket, "final")
    assert (again["text"], behind["text"]) == ("before", "behind")
    assert behind["seq"] > closed["seq"] > again["seq"]


async def test_a_session_goes_on_over_the_other_wire_and_back(
    server: Any, caller: Caller, call: Any, assets: Path, words: Callable[[str], str]
) -> None:
    """WebSocket, WebRTC, WebSocket: one session, its clock and its numbers; a lost WebRTC call is resumed too."""
    end_ms = len(caller.speech) // BYTES_PER_MS
    with trio.fail_after(2 * PATIENCE_SECONDS):
        async with caller.calling(server.url) as socket:
            await socket.send_message('{"type":"text","text":"by socket"}')
            await caller.read_until(socket, "final")
            await hang_up(socket)
        wish = caller.resume(audio_ms=60_000)
        peer = call(server, assets / "beckett.wav", "--hold", "--resume", json.dumps(wish))
        ready = await trio.to_thread.run_sync(peer.wait_for, "ready")
        final = await trio.to_thread.run_sync(peer.wait_for, "final")
        await trio.to_thread.run_sync(peer.end)
        for message in (ready, final):
            caller.told[message["seq"]] = message
        again = caller.resume(token=ready["resume"]["token"], last_seq=final["seq"])
        async with caller.calling(server.url, {**again, "audio_ms": 90_000}) as socket:
            await caller.speak(socket, 0, end_ms)
            await socket.send_message('{"type":"stop"}')
            closed = await caller.read_until(socket, "closed")
    assert (ready["session"], ready["resumed"]) == (caller.session, True)
    assert ready["seq"] > wish["last_seq"]
    assert 60.0 <= final["start"] < 64.0
    assert words(final["text"]).startswith("ever tried")
    over_socket = [one for one in caller.finals if one.start >= 90.0]
    assert len(over_socket) == 6
    assert words(over_socket[0].text) == "ever tried"
    assert closed["duration_seconds"] > 1
    used = call(server, assets / "beckett.wav", "--resume", json.dumps(wish))
    refused = await trio.to_thread.run_sync(used.wait_for, "refused")
    assert (refused["status"], refused["problem"]["code"]) == (409, "resume_token_used")


@attrs.frozen
class Nodes:
    """Two servers that keep their sessions in one Redis, and how to start another."""

    redis: Any
    start: Callable[[str], Any]
    a: Any
    b: Any

    async def journal(self, session: str) -> list[JournalEntry]:
        """Return what is kept of a session, without holes or doubles, by one owner after the other."""
        async with open_redis_store(self.redis.url, prefix="voice-agent", keep_seconds=3600) as store:
            entries = list(await store.journal(session, limit=10_000))
        assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
        assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})
        return entries


@pytest.fixture(scope="module")
def nodes(start_shared_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Real servers and a real Redis."""
    with SERVERS["redis_servers"](tmp_path_factory.mktemp("redis")) as servers:
        redis = servers.start()

        def start(name: str) -> Any:
            return start_shared_server(
                store__kind="redis", store__redis_url=redis.url, cluster__node_name=name, server__max_calls=32
            )

        yield Nodes(redis, start, start("a"), start("b"))


async def test_a_frozen_owner_that_wakes_up_writes_nothing(
    nodes: Nodes, caller: Caller, speech: bytes, connect: Connect
) -> None:
    """Frozen in mid-sentence, resumed elsewhere, thawed: both believe that the session is theirs, and one can write.

    The former owner's caller gets 4409; every final of the uninterrupted run is there once.
    """
    end_ms = len(speech) // BYTES_PER_MS
    with trio.fail_after(2 * PATIENCE_SECONDS):
        expected = await uninterrupted(nodes.b.url, speech, connect)
        async with caller.calling(nodes.a.url) as frozen:
            await caller.speak(frozen, 0, 4000)
            await caller.read_until(frozen, "final")
            nodes.a.process.send_signal(signal.SIGSTOP)
            # This reaches its socket: words that it will recognise when it wakes up.
            for at_ms in range(4000, 7000, MESSAGE_MS):
                await frozen.send_message(speech[at_ms * BYTES_PER_MS : (at_ms + MESSAGE_MS) * BYTES_PER_MS])
            async with caller.calling(nodes.b.url, caller.resume(audio_ms=0)) as socket:
                await caller.speak(socket, 0, end_ms)
                nodes.a.process.send_signal(signal.SIGCONT)
                with contextlib.suppress(Exception):
                    while True:
                        last = json.loads(await frozen.get_message())
                        assert last["type"] != "final"
                assert (last["type"], last["reason"]) == ("closed", "taken_over")
                assert frozen.closed.code == 4409
                await socket.send_message('{"type":"stop"}')
                await caller.read_until(socket, "closed")
    assert_same(caller.finals, expected)
    entries = await nodes.journal(caller.session)
    assert_same([Final.of(entry.body) for entry in standing_finals(entries)], expected)
    assert entries[-1].kind is EntryKind.CLOSED


async def test_ten_calls_go_on_when_a_server_is_killed(nodes: Nodes, speech: bytes, connect: Connect) -> None:
    """Ten calls stream speech to two servers; one is killed in mid-sentence, and its calls go on at the other.

    Every final of the uninterrupted run is there once, with the callers and in the journals. Speech is sent as fast as it
    is spoken, which takes its time.
    """
    end_ms = len(speech) // BYTES_PER_MS
    victim = nodes.start("victim")
    callers = [Caller(speech, connect) for _ in range(10)]
    resumed: list[Caller] = []

    async def stream(caller: Caller, url: str, begin_ms: int, resume: dict[str, Any] | None) -> None:
        async with caller.calling(url, resume, partials=False) as socket, trio.open_nursery() as nursery:
            nursery.start_soon(caller.listen, socket)
            await caller.speak(socket, begin_ms, end_ms, pause_seconds=MESSAGE_MS / 1000)
            await socket.send_message('{"type":"stop"}')
            await caller.is_closed.wait()

    async def hold(caller: Caller, server: Any) -> None:
        try:
            await stream(caller, server.url, 0, None)
        except* (ConnectionClosed, trio.BrokenResourceError):
            begin_ms = max(0, caller.sent_ms - 5000)
            resumed.append(caller)
            await stream(caller, nodes.b.url, begin_ms, caller.resume(audio_ms=begin_ms))

    with trio.fail_after(2 * PATIENCE_SECONDS):
        expected = await uninterrupted(nodes.b.url, speech, connect)
        async with trio.open_nursery() as nursery:
            for number, one in enumerate(callers):
                nursery.start_soon(hold, one, (victim, nodes.b)[number % 2])
            await trio.sleep(end_ms / 2000)
            victim.process.kill()
    assert len(resumed) == 5
    for one in callers:
        assert_same(one.finals, expected)
        entries = await nodes.journal(one.session)
        assert_same([Final.of(entry.body) for entry in standing_finals(entries)], expected)
