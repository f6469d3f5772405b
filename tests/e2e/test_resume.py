"""Sessions go on behind a lost connection, on real servers: nothing that was said is lost, and nothing is there twice."""

import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 60
BYTES_PER_MS = 32
MESSAGE_MS = 200

Connect = Callable[..., AbstractAsyncContextManager[Any]]


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

    @property
    def last_seq(self) -> int:
        return max(self.told, default=0)

    @property
    def finals(self) -> list[str]:
        return [self.told[seq]["text"] for seq in sorted(self.told) if self.told[seq]["type"] == "final"]

    def resume(self, **changes: Any) -> dict[str, Any]:
        return {"session": self.session, "token": self.token, "last_seq": self.last_seq, **changes}

    @asynccontextmanager
    async def calling(self, url: str, resume: dict[str, Any] | None = None) -> AsyncIterator[Any]:
        async with self.connect(url) as socket:
            start = {"type": "start", **({} if resume is None else {"resume": resume})}
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

    async def speak(self, socket: Any, begin_ms: int, end_ms: int) -> None:
        for at_ms in range(begin_ms, end_ms, MESSAGE_MS):
            piece = self.speech[at_ms * BYTES_PER_MS : min(at_ms + MESSAGE_MS, end_ms) * BYTES_PER_MS]
            await socket.send_message(piece)
        self.sent_ms = end_ms


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


async def uninterrupted(url: str, speech: bytes, connect: Connect) -> list[str]:
    """Return the finals of the same speech in one call."""
    whole = Caller(speech, connect)
    async with whole.calling(url) as socket:
        await whole.speak(socket, 0, len(speech) // BYTES_PER_MS)
        await socket.send_message('{"type":"stop"}')
        await whole.read_until(socket, "closed")
    return whole.finals


async def test_a_call_goes_on_where_its_connection_was_lost(
    server: Any, caller: Caller, words: Callable[[str], str]
) -> None:
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
    # Words that were said before help to tell a sentence's beginning; they are not heard again.
    assert [words(final) for final in caller.finals] == [words(final) for final in expected]
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
    over_socket = [m for m in caller.told.values() if m["type"] == "final" and m["start"] >= 90.0]
    assert words(" ".join(m["text"] for m in over_socket)) == (
        "ever tried ever failed no matter try again fail again fail better"
    )
    assert closed["duration_seconds"] > 1
    used = call(server, assets / "beckett.wav", "--resume", json.dumps(wish))
    refused = await trio.to_thread.run_sync(used.wait_for, "refused")
    assert (refused["status"], refused["problem"]["code"]) == (409, "resume_token_used")
