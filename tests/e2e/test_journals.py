"""What a real server keeps, read, exported and deleted over HTTP, and gone by itself when its time is over."""

import json
import runpy
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from voice_agent.access.keys import NewKey, new_key

pytestmark = pytest.mark.e2e

REDIS = runpy.run_path(str(Path(__file__).parents[1] / "redis_servers.py"))
PATIENCE_SECONDS = 60
WORDS = "correct horse battery staple"
KEYS = {name: new_key(name) for name in ("kiosk", "silent", "ops", "stranger")}
FIELDS = {
    "kiosk": 'scopes = ["call"], tenant = "acme", quotas = { retention_hours = 48 }',
    "silent": 'scopes = ["call"], tenant = "acme", quotas = { retention_hours = 0 }',
    "ops": 'scopes = ["observe", "admin"], tenant = "acme"',
    "stranger": 'scopes = ["observe", "admin"], tenant = "other"',
}
KEYS_SETTING = "\n".join(
    f'{name} = {{ sha256 = "{key.sha256}", {FIELDS[name]} }}' for name, key in KEYS.items()
)


def shown(key: NewKey) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {key.text}")]


async def call(connect: Any, server: Any, key: NewKey, texts: Sequence[str]) -> str:
    """Hold a call in which the caller writes texts; return the session's id."""
    headers = [(name.encode(), value.encode()) for name, value in shown(key)]
    async with connect(server.url, headers=headers) as caller:
        await caller.send_message('{"type":"start"}')
        for text in texts:
            await caller.send_message(json.dumps({"type": "text", "text": text}))
        await caller.send_message('{"type":"stop"}')
        session = ""
        while True:
            message = json.loads(await caller.get_message())
            session = message.get("session", session)
            if message["type"] == "closed":
                return session


async def terminal(server: Any, folder: Path, *arguments: str) -> Any:
    """Run `voice-agent journals` as an operator does."""
    key_file = folder / "ops.key"
    key_file.write_text(KEYS["ops"].text)
    return await trio.run_process(
        [
            sys.executable,
            "-m",
            "voice_agent",
            "journals",
            *arguments,
            "--server",
            server.http,
            "--key-file",
            str(key_file),
        ],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


def traces(folder: Path) -> list[str]:
    """Return the store's files in which the words stand."""
    return sorted(file.name for file in folder.iterdir() if WORDS.encode() in file.read_bytes())


async def test_a_call_is_read_exported_and_deleted(start_server: Any, connect: Any, tmp_path: Path) -> None:
    """While it runs and afterwards; deleted words stand in none of the store's files; who keeps nothing left nothing."""
    folder = tmp_path / "kept"
    folder.mkdir()
    server = start_server(store__path=folder / "kept.db", access__keys=KEYS_SETTING)
    with trio.fail_after(PATIENCE_SECONDS):
        async with httpx.AsyncClient(
            base_url=f"{server.http}/v1/journals",
            headers=shown(KEYS["ops"]),
            trust_env=False,
            timeout=PATIENCE_SECONDS,
        ) as ops:
            other = await call(connect, server, KEYS["kiosk"], ["something else"])
            session = await call(connect, server, KEYS["kiosk"], [f"{WORDS} {n}" for n in range(120)])
            silent = await call(connect, server, KEYS["silent"], [WORDS])
            listed = (await ops.get(f"{server.http}/v1/journals")).json()["journals"]
            assert [one["id"] for one in listed] == [session, other]
            assert (listed[0]["key"], listed[0]["state"]) == ("kiosk", "ended")
            lasts = _seconds(listed[0]["delete_at"]) - _seconds(listed[0]["ended_at"])
            assert lasts == pytest.approx(48 * 3600)
            text = (await ops.get(f"/{session}/transcript?format=text")).text
            assert text.splitlines() == [f"{WORDS} {n}" for n in range(120)]
            async with ops.stream("GET", f"/{session}/export") as answer:
                lines = [json.loads(line) async for line in answer.aiter_lines()]
            assert lines[0]["record"] == listed[0]
            assert lines[-1] == {"end": {"entries": len(lines) - 2}}
            assert [line["entry"]["number"] for line in lines[1:-1]] == list(range(1, 122))
            assert (await ops.get(f"/{silent}")).status_code == 404
            stranger = await ops.get(f"/{session}/export", headers=shown(KEYS["stranger"]))
            assert stranger.status_code == 404

            headers = [(name.encode(), value.encode()) for name, value in shown(KEYS["kiosk"])]
            async with connect(server.url, headers=headers) as caller:
                await caller.send_message('{"type":"start"}')
                await caller.send_message('{"type":"text","text":"still here"}')
                running = ""
                while (message := json.loads(await caller.get_message()))["type"] != "final":
                    running = message.get("session", running)
                refused = await ops.delete(f"/{running}")
                assert (refused.status_code, refused.json()["code"]) == (409, "session_running")
                await caller.send_message('{"type":"stop"}')
                while json.loads(await caller.get_message())["type"] != "closed":
                    pass

            told = await terminal(server, tmp_path, "export", session, "-o", str(tmp_path / "call.ndjson"))
            assert told.returncode == 0, told.stderr
            exported = (tmp_path / "call.ndjson").read_text().splitlines()
            assert [json.loads(line) for line in exported] == lines

            assert traces(folder)
            told = await terminal(server, tmp_path, "delete", "--yes", session)
            assert told.returncode == 0, told.stderr
            assert traces(folder) == []
            assert (await ops.get(f"/{session}")).status_code == 404
            assert (await ops.get(f"/{other}/transcript?format=text")).text == "something else\n"
    assert server.stop() == 0
    assert traces(folder) == []


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


async def test_sessions_go_by_themselves(start_server: Any, connect: Any, tmp_path: Path) -> None:
    """A server that takes a file up deletes what is old, words and all, and nothing that isn't; a killed one's calls stay."""
    folder = tmp_path / "kept"
    folder.mkdir()
    path = folder / "kept.db"
    first = start_server(store__path=path, access__keys=KEYS_SETTING)
    # A wipe that found the file busy is tried again after a minute.
    with trio.fail_after(2 * PATIENCE_SECONDS):
        old = await call(connect, first, KEYS["kiosk"], [WORDS])
        headers = [(name.encode(), value.encode()) for name, value in shown(KEYS["kiosk"])]
        async with connect(first.url, headers=headers) as caller:
            await caller.send_message('{"type":"start"}')
            await caller.send_message('{"type":"text","text":"cut off"}')
            lost = ""
            while (message := json.loads(await caller.get_message()))["type"] != "final":
                lost = message.get("session", lost)
            first.process.send_signal(signal.SIGKILL)
            await trio.to_thread.run_sync(first.process.wait)
        days_ago = time.time() - 49 * 3_600
        with closing(sqlite3.connect(path)) as file, file:
            # Let the time pass that this would take.
            file.execute(
                "UPDATE sessions SET expires_at = ?, record = json_set(record, '$.ended_at', ?) WHERE id = ?",
                (days_ago + 48 * 3_600, days_ago, old),
            )
        second = start_server(store__path=path, access__keys=KEYS_SETTING)
        async with httpx.AsyncClient(
            base_url=f"{second.http}/v1/journals",
            headers=shown(KEYS["ops"]),
            trust_env=False,
            timeout=PATIENCE_SECONDS,
        ) as ops:

            async def is_done() -> bool:
                return (await ops.get(f"/{old}")).status_code == 404 and not traces(folder)

            while True:
                if await is_done():
                    break
                await trio.sleep(0.05)
            assert (await ops.get(f"/{lost}")).json()["state"] == "open"
            transcript = (await ops.get(f"/{lost}/transcript")).json()
            assert [line["text"] for line in transcript["lines"]] == ["cut off"]
            metrics = await ops.get(f"{second.http}/metrics")
        assert 'voice_agent_store_expired_total{what="deleted"} 1.0' in metrics.text
        [told] = [one for one in map(json.loads, second.log().splitlines()) if one["event"] == "retention"]
        assert (told["deleted"], told["ended"]) == (1, 0)


async def test_in_redis_too_and_a_store_that_is_away_is_told(
    start_server: Any, connect: Any, tmp_path: Path
) -> None:
    """Deleted keys are gone from Redis; when Redis is killed, every request is answered 503, typed, and works afterwards."""
    folder = tmp_path / "redis"
    folder.mkdir()
    with REDIS["redis_servers"](folder) as servers:
        redis = servers.start_durable()
        secret = tmp_path / "redis-url"
        secret.write_text(redis.url)
        secret.chmod(0o600)
        server = start_server(store__kind="redis", store__redis_url_file=secret, access__keys=KEYS_SETTING)
        with trio.fail_after(PATIENCE_SECONDS):
            async with httpx.AsyncClient(
                base_url=f"{server.http}/v1/journals",
                headers=shown(KEYS["ops"]),
                trust_env=False,
                timeout=PATIENCE_SECONDS,
            ) as ops:
                session = await call(connect, server, KEYS["kiosk"], [WORDS])
                other = await call(connect, server, KEYS["kiosk"], ["something else"])
                assert (await ops.get(f"/{session}/transcript?format=text")).text == f"{WORDS}\n"
                assert session in redis.cli("KEYS", "*")
                assert (await ops.delete(f"/{session}")).status_code == 204
                keys = redis.cli("KEYS", "*")
                assert (session in keys, other in keys) == (False, True)
                redis.kill()
                for path in (
                    "",
                    f"/{other}",
                    f"/{other}/entries",
                    f"/{other}/transcript",
                    f"/{other}/export",
                ):
                    refused = await ops.get(f"{server.http}/v1/journals{path}")
                    assert (refused.status_code, refused.json()["code"]) == (503, "journals_unavailable")
                refused = await ops.delete(f"/{other}")
                assert (refused.status_code, refused.json()["code"]) == (503, "journals_unavailable")
                redis.start()
                while True:
                    answer = await ops.get(f"/{other}/transcript?format=text")
                    if answer.status_code == 200:
                        break
                    await trio.sleep(0.05)
                assert answer.text == "something else\n"
        assert server.stop() == 0
