"""Operators and a real server process: they see calls, follow them, end them, and drain, and no call waits for them."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed

from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 60
PIECE_BYTES = 200_000
BYTES_PER_SECOND = 32_000


@asynccontextmanager
async def client_of(server: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.http, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        yield client


async def only_session(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the one session that is open; waits for it."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not (sessions := (await client.get("/v1/sessions")).json()["sessions"]):
            pass
    [session] = sessions
    return dict(session)


async def until_heard(client: httpx.AsyncClient, session_id: str, seconds: float) -> None:
    """Wait until the session has heard so much audio, to a tenth of a second."""
    with trio.fail_after(PATIENCE_SECONDS):
        while (await client.get(f"/v1/sessions/{session_id}")).json()["audio_seconds"] < seconds - 0.1:  # noqa: ASYNC110 (another process hears)
            await trio.sleep(0.02)


async def messages_until_close(caller: Any) -> tuple[list[dict[str, Any]], int]:
    messages = []
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            try:
                messages.append(json.loads(await caller.get_message()))
            except ConnectionClosed as closed:
                return messages, closed.reason.code


async def follow(
    client: httpx.AsyncClient,
    session_id: str,
    found: list[dict[str, Any]],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Read a session's events to the end of the stream."""
    with trio.fail_after(PATIENCE_SECONDS):
        async with client.stream("GET", f"/v1/sessions/{session_id}/events") as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if line.startswith(": listening"):
                    task_status.started()
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    told = json.loads(fields["data"])
                    assert (fields["id"], fields["event"]) == (str(told["seq"]), told["type"])
                    found.append(told)
                    fields = {}


async def test_a_call_is_seen_followed_and_ended(start_server: Any, connect: Any, assets: Path) -> None:
    """The operator reads what the caller reads, ends the call, and the caller still gets every word said before."""
    server = start_server()
    speech = read_audio(assets / "beckett.wav").to_s16le()
    followed: list[dict[str, Any]] = []
    async with client_of(server) as client, connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        session = await only_session(client)
        assert (session["wire"], session["state"], session["key"]) == ("websocket", "live", "anonymous")
        async with trio.open_nursery() as nursery:
            await nursery.start(follow, client, session["id"], followed)
            for begin in range(0, len(speech), PIECE_BYTES):
                await caller.send_message(speech[begin : begin + PIECE_BYTES])
            # The request to end it goes another way, and would overtake what was said.
            await until_heard(client, session["id"], len(speech) / BYTES_PER_SECOND)
            answer = await client.delete(f"/v1/sessions/{session['id']}")
            assert (answer.status_code, answer.json()["state"]) == (202, "ending")
            messages, close_code = await messages_until_close(caller)
        with trio.fail_after(PATIENCE_SECONDS):
            while (shown := (await client.get(f"/v1/sessions/{session['id']}")).json())["state"] != "ended":
                pass
        assert (await client.get("/v1/sessions")).json() == {
            "sessions": [],
            "next": None,
            "silent_nodes": [],
        }
        remembered = (await client.get("/v1/sessions?state=ended")).json()["sessions"]
    assert close_code == 4411
    assert messages[-1]["reason"] == "ended_by_operator"
    said = " ".join(message["text"] for message in messages if message["type"] == "final").lower()
    assert "fail better" in said
    assert followed == [message for message in messages if message["seq"] >= followed[0]["seq"]]
    assert shown["close"]["reason"] == "ended_by_operator"
    assert shown["transcripts"] == sum(message["type"] == "final" for message in messages)
    assert [one["id"] for one in remembered] == [session["id"]]
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert "session_end" in server.log()


async def open_deaf_follower(server: Any, session_id: str) -> trio.SocketStream:
    """Ask for a session's events, and read none of them."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    await stream.send_all(
        f"GET /v1/sessions/{session_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    )
    with trio.fail_after(PATIENCE_SECONDS):
        received = b""
        while b"listening" not in received:
            piece = await stream.receive_some(256)
            assert piece, received
            received += piece
    return stream


async def flood(caller: Any, rounds: int) -> int:
    """Have the server tell much, and read all of it; return how many answers came."""
    answers = 0
    ping = json.dumps({"type": "ping", "id": "x" * 128})
    with trio.fail_after(PATIENCE_SECONDS * 2):
        for _ in range(rounds):
            for _ in range(100):
                await caller.send_message(ping)
            for _ in range(100):
                answers += json.loads(await caller.get_message())["type"] == "pong"
    return answers


async def test_a_follower_that_does_not_read_delays_nobody(start_server: Any, connect: Any) -> None:
    """The caller gets every answer, and the follower is cut off."""
    server = start_server(server__send_timeout_seconds=1, limits__max_messages_per_second=100_000)
    async with client_of(server) as client, connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await caller.get_message()
        session = await only_session(client)
        async with await open_deaf_follower(server, session["id"]):
            assert (await only_session(client))["listeners"] == 1
            rounds = 0
            while (await only_session(client))["listeners"]:
                assert await flood(caller, 10) == 1000
                rounds += 1
                assert rounds < 60, "the follower was never cut off"
        await caller.send_message('{"type":"stop"}')
        _, close_code = await messages_until_close(caller)
    assert close_code == 1000
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert "Traceback" not in server.log()


@pytest.mark.parametrize("is_deaf", [False, True])
async def test_followers_do_not_delay_a_drain(start_server: Any, connect: Any, is_deaf: bool) -> None:
    """A drain by request ends the call at its deadline, the stream behind it, and the process with 0."""
    server = start_server(server__grace_seconds=1, limits__max_messages_per_second=100_000)
    followed: list[dict[str, Any]] = []
    async with client_of(server) as client, connect(server.url) as caller, trio.open_nursery() as nursery:
        await caller.send_message('{"type":"start"}')
        await caller.get_message()
        session = await only_session(client)
        if is_deaf:
            stream = await open_deaf_follower(server, session["id"])
            await flood(caller, 10)
        else:
            await nursery.start(follow, client, session["id"], followed)
        answer = await client.post("/v1/drain")
        began = trio.current_time()
        assert (answer.status_code, answer.json()["calls"]) == (202, 1)
        messages, close_code = await messages_until_close(caller)
        with trio.fail_after(PATIENCE_SECONDS):
            code = await trio.to_thread.run_sync(server.process.wait)
        print(f"exit {trio.current_time() - began:.2f} s after the request, with 1 s of grace")
        if is_deaf:
            await trio.aclose_forcefully(stream)
    assert code == 0, server.log()
    assert [message["code"] for message in messages if message["type"] == "notice"] == ["draining"]
    assert (messages[-1]["reason"], close_code) == ("drain", 1012)
    if not is_deaf:
        assert [told["type"] for told in followed] == ["notice", "closed"]
    assert "Traceback" not in server.log()


async def test_who_stops_following_is_forgotten(start_server: Any, connect: Any) -> None:
    """A follower that hangs up leaves nothing behind, and another takes its place."""
    server = start_server()
    async with client_of(server) as client, connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        session = await only_session(client)
        for _ in range(20):
            stream = await open_deaf_follower(server, session["id"])
            await trio.aclose_forcefully(stream)
        with trio.fail_after(PATIENCE_SECONDS):
            while (await only_session(client))["listeners"]:
                pass
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert "Traceback" not in server.log()


async def test_settings_are_shown(start_server: Any) -> None:
    """What is in force in the process, with a secret redacted."""
    server = start_server(session__idle_timeout_seconds=42, webrtc__turn_secret="never-to-be-shown" * 3)
    async with client_of(server) as client:
        answer = await client.get("/v1/settings")
    assert answer.json()["settings"]["session.idle_timeout_seconds"]["value"] == 42
    assert "never-to-be-shown" not in answer.text
    assert await trio.to_thread.run_sync(server.stop) == 0
