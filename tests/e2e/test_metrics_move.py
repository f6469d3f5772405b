"""Every instrument moves: a real server is driven through all that there is to see, and each figure is looked at.

An instrument that nothing updates is worse than none: a graph of it says that all is well.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
import trio
import trustme
from prometheus_client.parser import text_string_to_metric_families

from voice_agent.cluster.handles import Handles
from voice_agent.cluster.names import tag_of
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 90
FAULTS = Path(__file__).with_name("faults")
SECRET = "a secret that all nodes have in common"  # noqa: S105 (made up)
CONSTANT = {"voice_agent_build_info"}

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Observer:
    """Scrapes a server all the time, and remembers which families had another value than at the first look."""

    def __init__(self, http: str, verify: Any = True) -> None:
        self._http = http
        self._verify = verify
        self.first: Values = {}
        self.now: Values = {}
        self.families: set[str] = set()
        self.moved: set[str] = set()

    async def look(self) -> None:
        async with httpx.AsyncClient(verify=self._verify) as client:
            answer = await client.get(f"{self._http}/metrics", timeout=PATIENCE_SECONDS)
        is_first = not self.first
        for family in text_string_to_metric_families(answer.text):
            if not family.name.startswith("voice_agent_") or family.name.endswith("_created"):
                continue
            name = family.name + ("_total" if family.type == "counter" else "")
            self.families.add(name)
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                self.now[key] = sample.value
                if is_first:
                    self.first[key] = sample.value
                # A series that was not there had counted nothing.
                elif sample.value != self.first.get(key, 0.0):
                    self.moved.add(name)

    async def run(self) -> None:
        while True:
            await self.look()
            await trio.sleep(0.05)

    def value(self, name: str, **labels: str) -> float:
        return self.now.get((f"voice_agent_{name}", frozenset(labels.items())), 0.0)

    async def until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while not holds():
                await self.look()
                await trio.sleep(0.05)


@contextlib.asynccontextmanager
async def observed(http: str, verify: Any = True) -> AsyncIterator[Observer]:
    observer = Observer(http, verify)
    await observer.look()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(observer.run)
        yield observer
        nursery.cancel_scope.cancel()


def models_of_its_own(folder: Path) -> Path:
    folder.mkdir()
    for file in find_models(Settings())[:3]:
        shutil.copy(file.path, folder / file.path.name)
    return folder


async def send(connection: Any, pcm: bytes, *, message_bytes: int = 6400) -> None:
    for begin in range(0, len(pcm), message_bytes):
        await connection.send_message(pcm[begin : begin + message_bytes])


async def read_until(connection: Any, kind: str) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    while not messages or messages[-1]["type"] != kind:
        messages.append(json.loads(await connection.get_message()))
    return messages


async def call_while_the_store_is_away(
    server: Any, connect: Any, seen: Observer, folder: Path, pcm: bytes
) -> None:
    """At its own pace, with partials; meanwhile the server is full, and somebody comes with a wrong key."""
    async with connect(server.url) as connection:
        await connection.send_message(json.dumps({"type": "start"}))
        await read_until(connection, "ready")
        async with httpx.AsyncClient() as client:
            full = await client.get(f"{server.http}/readyz", timeout=PATIENCE_SECONDS)
            assert full.status_code == 503
            wrong = await client.get(f"{server.http}/v1/sessions", headers={"x-api-key": "va_wrong_key"})
            assert wrong.status_code == 401
        with pytest.raises(Exception, match="503"):
            async with connect(server.url):
                pass
        with contextlib.closing(sqlite3.connect(folder / "voice-agent.db")) as store:
            store.execute("BEGIN EXCLUSIVE")
            for begin in range(0, len(pcm), 6400):
                await connection.send_message(pcm[begin : begin + 6400])
                await trio.sleep(0.1)
            await seen.until(lambda: "voice_agent_store_state" in seen.moved)
        await connection.send_message(json.dumps({"type": "stop"}))
        messages = await read_until(connection, "closed")
    assert {"partial", "final"} <= {message["type"] for message in messages}


async def call_that_is_resumed(server: Any, connect: Any, seen: Observer) -> None:
    """A lost connection, another one, and one with a token that is none."""
    async with connect(server.url) as connection:
        await connection.send_message(json.dumps({"type": "start"}))
        [ready] = await read_until(connection, "ready")
    for token, ending in ((ready["resume"]["token"], "ready"), ("none", "closed")):
        await until_there_is_room(server)
        async with connect(server.url) as connection:
            resume = {"session": ready["session"], "token": token}
            await connection.send_message(json.dumps({"type": "start", "resume": resume}))
            await read_until(connection, ending)
    await until_there_is_room(server)


async def until_there_is_room(server: Any) -> None:
    """A call's place is free a moment after its session has ended."""
    async with httpx.AsyncClient() as client:
        while (await client.get(f"{server.http}/readyz", timeout=PATIENCE_SECONDS)).status_code != 200:  # noqa: ASYNC110
            await trio.sleep(0.05)


async def calls_that_go_wrong(server: Any, connect: Any, seen: Observer, folder: Path, pcm: bytes) -> None:
    """A flood, which is dropped first and then ended, with a recognition that fails; and a close that can't be forced."""
    (folder / "fail-recognition").touch()
    async with connect(server.url) as connection:
        await connection.send_message(json.dumps({"type": "start"}))
        with contextlib.suppress(Exception):
            for _ in range(20):
                await send(connection, pcm, message_bytes=64_000)
        with contextlib.suppress(Exception):
            await read_until(connection, "closed")
    await seen.until(lambda: seen.value("active_sessions") == 0)
    await seen.until(lambda: not (folder / "fail-recognition").exists())
    (folder / "ignore-cancellation").touch()
    async with connect(server.url) as connection:
        await connection.send_message(json.dumps({"type": "start"}))
        await send(connection, pcm[: len(pcm) // 2])
        await connection.send_message(json.dumps({"type": "stop"}))
        await seen.until(lambda: seen.value("stuck_closes") == 1)
    (folder / "ignore-cancellation").unlink()
    await seen.until(lambda: seen.value("stuck_closes") == 0)
    await seen.until(lambda: seen.value("active_sessions") == 0)


async def call_over_a_lossy_network(
    server: Any, call: Any, network: Any, seen: Observer, speech: Path
) -> None:
    """WebRTC, with a packet in ten lost."""
    relay = network("--loss", "0.1", "--seed", "5")
    caller = call(server, speech, "--through", relay.place, "--hold")
    await trio.to_thread.run_sync(lambda: relay.lead_to(caller.wait_for("answered")["answer"]))
    await seen.until(lambda: "voice_agent_webrtc_concealed_seconds_total" in seen.moved)
    caller.tell("quit")


async def what_is_no_call(server: Any, seen: Observer, folder: Path) -> None:
    """Bytes that the guard refuses, settings that change, a file that is gone, collectors that are not there."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 200_000)
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    await stream.aclose()
    (folder / "settings.toml").write_text("[limits]\nmax_audio_rate = 3.0\n")
    server.process.send_signal(signal.SIGHUP)
    (folder / "models" / "tokenizer.bin").rename(folder / "away")
    await seen.until(lambda: seen.value("check_ok", check="model_files") == 0)
    await seen.until(lambda: seen.value("key_set_fetches_total", outcome="failed") > 0)
    await seen.until(lambda: seen.value("spans_total", outcome="failed") > 0)
    await seen.until(lambda: seen.value("settings_version") > 1)


async def test_every_instrument_moves(
    start_server: Any,
    connect: Any,
    call: Any,
    network: Any,
    assets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Calls good and bad over both wires, refusals, faults, reloads, certificates: no figure is still where it was."""
    monkeypatch.setenv("PYTHONPATH", f"{FAULTS}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        dead = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    server = start_server(
        server__max_calls=1,
        session__max_waiting_audio_ms=2000,
        session__finish_timeout_seconds=0.5,
        session__close_timeout_seconds=0.5,
        session__slow_close_seconds=0.1,
        readiness__interval_seconds=0.2,
        recogniser__model_dir=models_of_its_own(tmp_path / "models"),
        tracing__endpoint=f"{dead}/v1/traces",
        tracing__timeout_seconds=0.5,
        access__anonymous="loopback",
        access__jwks_url=f"{dead}/jwks",
        access__jwt_issuer="https://id.example.org/",
        access__jwt_audience="voice-agent",
        limits__audio_burst_seconds=20,
        cluster__node_name="plain",
        cluster__secret=SECRET,
    )
    samples, _ = soundfile.read(assets / "beckett.wav", dtype="int16")
    pcm = samples.tobytes()
    with trio.fail_after(3 * PATIENCE_SECONDS):
        async with observed(server.http) as seen:
            await call_while_the_store_is_away(server, connect, seen, tmp_path, pcm)
            await call_that_is_resumed(server, connect, seen)
            await calls_that_go_wrong(server, connect, seen, tmp_path, pcm)
            await call_over_a_lossy_network(server, call, network, seen, assets / "beckett.wav")
            await what_is_no_call(server, seen, tmp_path)
        moved = seen.moved | await moved_with_tls(start_server, tmp_path, seen)
    print(f"{len(moved)} of {len(seen.families)} instruments moved")
    assert sorted(seen.families - moved - CONSTANT) == []


async def moved_with_tls(start_server: Any, tmp_path: Path, plain: Observer) -> set[str]:
    """What only a server with certificates moves."""
    authority = trustme.CA()

    def write() -> None:
        issued = authority.issue_cert("127.0.0.1")
        key = tmp_path / "tls.key"
        key.touch(0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        (tmp_path / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))

    import ssl

    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    write()
    server = start_server(
        server__tls_certificate_file=tmp_path / "tls.crt",
        server__tls_key_file=tmp_path / "tls.key",
        # The calls of the first server ended long enough ago to be deleted at the start.
        store__retention_hours=0.001,
        cluster__secret=SECRET,
    )
    seen = Observer(server.http, trust)
    seen.first = dict(plain.first)
    # The first server is another node; it advertises no address, so nothing can be passed on to it.
    async with httpx.AsyncClient(verify=trust) as client:
        call_of_plain = Handles(tag_of("plain"), SECRET).new()
        answer = await client.get(f"{server.http}/v1/webrtc/{call_of_plain}", timeout=PATIENCE_SECONDS)
        assert (answer.status_code, answer.json()["code"]) == (502, "node_away")
    await seen.look()
    write()
    await seen.until(lambda: "voice_agent_tls_reloads_total" in seen.moved)
    return seen.moved
