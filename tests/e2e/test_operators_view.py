"""What a real server tells its operator: who did what, and which call does not end."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from voice_agent.access.keys import NewKey, new_key
from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

FAULTS = Path(__file__).with_name("faults")
PATIENCE_SECONDS = 60


def line(key: NewKey, *scopes: str) -> str:
    return f'{key.key_id} = {{ sha256 = "{key.sha256}", scopes = {json.dumps(scopes)} }}'


def events(server: Any, name: str) -> list[dict[str, Any]]:
    records = [json.loads(one) for one in server.log().splitlines()]
    return [record for record in records if record["event"] == name]


async def test_who_did_what_stands_in_the_audit_and_no_secret(
    start_server: Any, connect: Any, tmp_path: Path
) -> None:
    """A wrong key, and an operator who ends a call: one JSON object each, with actor, action, outcome and address."""
    kiosk, boss = new_key("kiosk"), new_key("boss")
    path = tmp_path / "audit.log"
    server = start_server(
        access__keys="\n".join([line(kiosk, "call"), line(boss, "admin", "observe")]),
        logging__audit_path=path,
    )
    wrong = "va_kiosk_" + 64 * "0"
    async with httpx.AsyncClient(base_url=server.http, timeout=30) as client:
        refused = await client.post("/v1/tickets", headers={"Authorization": f"Bearer {wrong}"})
        assert refused.status_code == 401
        granted = await client.post("/v1/tickets", headers={"Authorization": f"Bearer {kiosk.text}"})
        with trio.fail_after(PATIENCE_SECONDS):
            async with connect(f"{server.url}?ticket={granted.json()['ticket']}") as socket_:
                await socket_.send_message('{"type": "start"}')
                session = json.loads(await socket_.get_message())["session"]
                ended = await client.delete(
                    f"/v1/sessions/{session}", headers={"Authorization": f"Bearer {boss.text}"}
                )
                assert ended.status_code in {202, 204}
    assert await trio.to_thread.run_sync(server.stop) == 0
    text = path.read_text()
    entries = [json.loads(one) for one in text.splitlines()]
    assert all({"actor", "action", "outcome", "address"} <= entry.keys() for entry in entries)
    assert all(entry["address"] == "127.0.0.1" for entry in entries)
    assert any(entry["outcome"] != "ok" and "boss" not in str(entry["actor"]) for entry in entries)
    [end] = [entry for entry in entries if entry.get("target") == session]
    assert end["actor"] == "boss"
    for secret in (wrong, kiosk.text, boss.text, granted.json()["ticket"]):
        assert secret not in text
        assert secret not in server.log()


async def test_a_close_that_hangs_is_named_and_forced(
    start_server: Any, connect: Any, assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recognition that can't be cancelled holds a close up: its tasks and stage are logged, the caller is let go."""
    monkeypatch.setenv("PYTHONPATH", f"{FAULTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    server = start_server(
        session__slow_close_seconds=0.2,
        session__finish_timeout_seconds=0.5,
        session__close_timeout_seconds=0.5,
    )
    speech = read_audio(assets / "beckett.wav").to_s16le()
    fault = server.log_path.parent / "ignore-cancellation"
    with trio.fail_after(PATIENCE_SECONDS):
        async with connect(server.url) as socket_:
            # Before the speech: a quick machine would have recognised all of it by the time it is said to have begun.
            fault.touch()
            await socket_.send_message(speech[:60_000])
            while json.loads(await socket_.get_message())["type"] != "speech_started":
                pass
            await socket_.send_message('{"type": "stop"}')
            while not events(server, "close_overdue"):  # noqa: ASYNC110  # the log is another process's
                await trio.sleep(0.05)
        fault.unlink()
        while not events(server, "call_closed"):  # noqa: ASYNC110  # the log is another process's
            await trio.sleep(0.05)
    slow = events(server, "close_slow")[0]
    assert slow["stage"] == "transcribe"
    assert any("transcribe" in json.dumps(task) for task in slow["tasks"])
    assert await trio.to_thread.run_sync(server.stop) == 0
