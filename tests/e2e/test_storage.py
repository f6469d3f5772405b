"""What a real server keeps: through SIGKILL and SIGTERM, what a caller was told is in the file."""

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def kept(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return each session's journal as it stands in the file."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT session_id, number, entry FROM entries ORDER BY session_id, number"
        ).fetchall()
    journals: dict[str, list[dict[str, Any]]] = {}
    for session_id, number, text in rows:
        journals.setdefault(session_id, []).append(json.loads(text))
        assert number == len(journals[session_id])
    return journals


async def test_what_was_told_is_there_after_the_server_was_killed(
    start_server: Any, connect: Any, assets: Path, tmp_path: Path
) -> None:
    """SIGKILL right behind a final, in mid-sentence: each final that reached the caller is in the file, once."""
    path = tmp_path / "kept.db"
    server = start_server(store__path=path)
    speech = read_audio(assets / "beckett.wav").to_s16le()
    finals: list[str] = []
    session = ""
    with trio.fail_after(60):
        async with connect(server.url) as socket_:
            for begin in range(0, len(speech), 32_000):
                await socket_.send_message(speech[begin : begin + 32_000])
            while len(finals) < 4:
                message = json.loads(await socket_.get_message())
                session = message.get("session", session)
                if message["type"] == "final":
                    assert "stored" not in message
                    finals.append(message["text"])
            server.process.send_signal(signal.SIGKILL)
            await trio.to_thread.run_sync(server.process.wait)
    journal = kept(path)[session]
    texts = [entry["body"]["text"] for entry in journal if entry["kind"] == "final"]
    assert texts[: len(finals)] == finals
    # A next server takes the file up as it is.
    second = start_server(store__path=path)
    assert second.stop() == 0
    assert kept(path)[session] == journal


async def test_a_drained_server_has_kept_every_word(
    start_server: Any, connect: Any, assets: Path, tmp_path: Path
) -> None:
    """Calls that a drain ends: each final that was told, and the reason, are in the file; they can be resumed elsewhere."""
    path = tmp_path / "kept.db"
    server = start_server(store__path=path, server__grace_seconds=1)
    speech = read_audio(assets / "beckett.wav").to_s16le()
    told: dict[str, list[str]] = {}

    async def call(spoken: trio.Event) -> None:
        session = ""
        async with connect(server.url) as socket_:
            await socket_.send_message(speech[:60_000])
            while True:
                message = json.loads(await socket_.get_message())
                match message["type"]:
                    case "ready":
                        session = message["session"]
                        told[session] = []
                    case "final":
                        told[session].append(message["text"])
                        spoken.set()
                    case "closed":
                        assert (message["reason"], message["resumable"]) == ("drain", True)
                        return

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for event in [trio.Event() for _ in range(4)]:
                nursery.start_soon(call, event)
                await event.wait()
            server.process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(server.process.wait) == 0
    journals = kept(path)
    assert len(told) == 4
    for session, texts in told.items():
        journal = journals[session]
        assert [entry["body"]["text"] for entry in journal if entry["kind"] == "final"] == texts
        assert journal[-1]["kind"] == "heard"
        assert journal[-1]["body"]["detached"] == "drain"


def test_a_file_that_is_no_database_stops_the_start(start_server: Any, tmp_path: Path) -> None:
    """The operator reads what is wrong, and the file stays."""
    path = tmp_path / "kept.db"
    path.write_text("something else" * 1000)
    with pytest.raises(AssertionError, match=r"no usable database"):
        start_server(store__path=path)
    assert path.read_text().startswith("something else")


async def test_a_call_is_told_that_it_is_not_kept_and_when_it_is_again(
    start_server: Any, connect: Any, tmp_path: Path
) -> None:
    """Another program locks the file until no more can wait: one notice each way, and the journal counts what is missing."""
    path = tmp_path / "kept.db"
    server = start_server(store__path=path, store__max_waiting_bytes=65_536, store__latency_budget_ms=100)
    messages: list[dict[str, Any]] = []

    async def until(caller: Any, kind: str, code: str | None = None) -> None:
        while True:
            messages.append(json.loads(await caller.get_message()))
            if messages[-1]["type"] == kind and messages[-1].get("code") == code:
                return

    async def say(caller: Any, text: str) -> None:
        await caller.send_message(json.dumps({"type": "text", "text": text}))
        await until(caller, "final")

    with trio.fail_after(60):
        async with connect(server.url) as caller:
            await caller.send_message('{"type":"start"}')
            await until(caller, "ready")
            session = messages[-1]["session"]
            await say(caller, "kept")
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                while not any(message.get("code") == "not_kept" for message in messages):
                    await say(caller, "x" * 4000)
                await say(caller, "not kept")
                assert "stored" not in messages[1]
                assert messages[-1]["stored"] is False
                async with httpx.AsyncClient(trust_env=False) as client:
                    refused = await client.get(server.http + "/v1/ws", headers=HANDSHAKE)
                assert (refused.status_code, refused.json()["code"]) == (503, "store_full")
                other.execute("ROLLBACK")
            await until(caller, "notice", "kept_again")
            await say(caller, "kept too")
            assert "stored" not in messages[-1]
            await caller.send_message('{"type":"stop"}')
            await until(caller, "closed")
    journal = kept(path)[session]
    [gap] = [entry for entry in journal if entry["kind"] == "gap"]
    [again] = [message for message in messages if message.get("code") == "kept_again"]
    assert gap["body"] == again["detail"]
    said = {message["seq"]: message["text"] for message in messages if message["type"] == "final"}
    found = {entry["seq"]: entry["body"]["text"] for entry in journal if entry["kind"] == "final"}
    missing = {seq for seq in said if gap["body"]["first_seq"] <= seq <= gap["body"]["last_seq"]}
    assert found == {seq: text for seq, text in said.items() if seq not in missing}
    assert "not kept" in {said[seq] for seq in missing}
    assert "kept too" in found.values()
