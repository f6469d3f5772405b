"""What a real server keeps: through SIGKILL and SIGTERM, what a caller was told is in the file."""

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e


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
    """Calls that a drain ends: each final that was told, and the close with its reason, are in the file."""
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
                        assert message["reason"] == "drain"
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
        assert journal[-1]["kind"] == "closed"
        assert journal[-1]["body"]["reason"] == "drain"


def test_a_file_that_is_no_database_stops_the_start(start_server: Any, tmp_path: Path) -> None:
    """The operator reads what is wrong, and the file stays."""
    path = tmp_path / "kept.db"
    path.write_text("something else" * 1000)
    with pytest.raises(AssertionError, match=r"no usable database"):
        start_server(store__path=path)
    assert path.read_text().startswith("something else")
