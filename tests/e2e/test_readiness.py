"""Health and readiness of a real server: under load, when something it needs is gone, when it is full, in a drain."""

import json
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import trio

from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

PATIENCE_SECONDS = 60
CHECKS = {"recogniser", "voice_activity", "media_thread", "model_files", "disk_space", "store"}


async def get(server: Any, path: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(server.http + path, timeout=PATIENCE_SECONDS)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it holds; the deadline only catches hangs."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110 (it happens in another process)
            await trio.sleep(0.05)


def only_failed(answer: httpx.Response) -> set[str]:
    return {name for name, check in answer.json()["checks"].items() if not check["ok"]}


async def test_a_server_that_listens_is_warm_and_says_what_it_looked_at(start_server: Any) -> None:
    """The first answer ever is 200: models are warm, and every check has looked once; the clip was understood."""
    server = start_server()
    answer = await get(server, "/readyz")
    body = answer.json()
    assert (answer.status_code, body["ready"]) == (200, True), body
    assert set(body["checks"]) == CHECKS
    assert body["checks"]["recogniser"]["message"] == "a known clip was understood"
    assert {type(check["seconds"]) for check in body["checks"].values()} == {float}
    assert str(Path.cwd()) not in answer.text


async def test_health_is_answered_while_calls_take_all_the_time_there_is(
    start_server: Any, connect: Any, assets: Path
) -> None:
    """Eight callers send as fast as they can; /healthz and /readyz go on answering, and no call is disturbed."""
    server = start_server(
        limits__max_audio_rate=100,
        limits__audio_burst_seconds=600,
        readiness__interval_seconds=0.5,
        session__max_waiting_audio_ms=600_000,
    )
    samples, _ = soundfile.read(assets / "beckett.wav", dtype="int16")
    pcm = np.concatenate([samples, samples]).tobytes()
    finals: list[str] = []
    running = 8

    async def call() -> None:
        nonlocal running
        async with connect(server.url) as connection:
            await connection.send_message(json.dumps({"type": "start", "partials": False}))
            for begin in range(0, len(pcm), 6400):
                await connection.send_message(pcm[begin : begin + 6400])
            await connection.send_message(json.dumps({"type": "stop"}))
            while (event := json.loads(await connection.get_message()))["type"] != "closed":
                if event["type"] == "final":
                    finals.append(event["text"])
        running -= 1

    answers = []
    with trio.fail_after(PATIENCE_SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(running):
                nursery.start_soon(call)
            while running:
                answers.append((await get(server, "/healthz")).status_code)
                ready = await get(server, "/readyz")
                assert ready.status_code == 200, ready.text
                await trio.sleep(0.02)
    assert set(answers) == {200}
    assert len(answers) >= 5
    assert len(finals) >= 8


async def test_a_model_file_that_is_gone_is_noticed_and_so_is_its_return(
    start_server: Any, tmp_path: Path
) -> None:
    """The server would not survive its next start: 503 with the reason, 200 when it is back."""
    models = tmp_path / "models"
    models.mkdir()
    for file in find_models(Settings())[:3]:
        shutil.copy(file.path, models / file.path.name)
    server = start_server(readiness__interval_seconds=0.2, recogniser__model_dir=models)
    assert (await get(server, "/readyz")).status_code == 200
    vocabulary = models / "tokenizer.bin"
    vocabulary.rename(tmp_path / "away")

    async def is_unready() -> bool:
        answer = await get(server, "/readyz")
        return answer.status_code == 503 and only_failed(answer) == {"model_files"}

    await until(is_unready)
    assert "voice_agent_ready 0.0" in (await get(server, "/metrics")).text
    assert (await get(server, "/healthz")).status_code == 200
    (tmp_path / "away").rename(vocabulary)

    async def is_ready() -> bool:
        return (await get(server, "/readyz")).status_code == 200

    await until(is_ready)
    assert "check_recovered" in server.log()


async def test_too_little_disk_space_is_noticed(start_server: Any, tmp_path: Path) -> None:
    """Where the audit is written; it doesn't keep the server from starting."""
    server = start_server(logging__audit_path=tmp_path / "audit.log", readiness__min_free_disk_mib=1_000_000)
    answer = await get(server, "/readyz")
    assert answer.status_code == 503
    assert only_failed(answer) == {"disk_space"}


async def test_full_and_draining_are_told(start_server: Any, connect: Any) -> None:
    """503 while the last place is taken, and from the first signal on; the checks go on being well."""
    server = start_server(server__max_calls=1, server__lame_duck_seconds=5)
    async with connect(server.url) as connection:
        await connection.send_message(json.dumps({"type": "start"}))
        await connection.get_message()
        answer = await get(server, "/readyz")
        assert (answer.status_code, answer.json()["full"], only_failed(answer)) == (503, True, set())
        server.process.send_signal(signal.SIGTERM)

        async def is_draining() -> bool:
            return bool((await get(server, "/readyz")).json()["draining"])

        await until(is_draining)
        answer = await get(server, "/readyz")
        assert (answer.status_code, only_failed(answer)) == (503, set())
        assert "voice_agent_ready 0.0" in (await get(server, "/metrics")).text
