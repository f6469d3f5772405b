"""A real server process and real signals: nothing hangs, nothing is lost, the exit code tells."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from voice_agent.audio.files import read_audio
from voice_agent.core.frames import AudioFrame
from voice_agent.server.signals import EXIT_CUT_SHORT

pytestmark = pytest.mark.e2e

NOTHING_KEPT = {"VOICE_AGENT__STORE__KIND": "none"}
"""For servers that run in the folder of whoever runs the tests."""


def speech(assets: Path) -> AudioFrame:
    return read_audio(assets / "beckett.wav")


async def next_of(socket_: Any, kind: str) -> dict[str, Any]:
    """Return the next message of a type."""
    with trio.fail_after(30):
        while True:
            message: dict[str, Any] = json.loads(await socket_.get_message())
            if message["type"] == kind:
                return message


async def test_sigterm_without_calls_ends_at_once(start_server: Any, connect: Any) -> None:
    """Nobody to wait for: exit code 0."""
    assert await trio.to_thread.run_sync(start_server().stop) == 0


async def test_sigint_is_the_same(start_server: Any, connect: Any) -> None:
    """Ctrl-C drains like SIGTERM."""
    assert await trio.to_thread.run_sync(start_server().stop, signal.SIGINT) == 0


async def test_a_call_may_finish_within_the_grace_time(start_server: Any, connect: Any, assets: Path) -> None:
    """SIGTERM in mid-sentence: the caller is told, speaks on, stops, gets every word; new calls are refused."""
    server = start_server(server__grace_seconds=60)
    data = speech(assets).to_s16le()
    async with connect(server.url) as caller:
        await caller.send_message(data[:60_000])
        await next_of(caller, "ready")
        server.process.send_signal(signal.SIGTERM)
        notice = await next_of(caller, "notice")
        assert notice["code"] == "draining"
        await refused_by_tcp(server)  # no lame-duck seconds here: the listener closes at once
        await caller.send_message(data[60_000:])
        await caller.send_message('{"type":"stop"}')
        closed = await next_of(caller, "closed")
    assert closed["reason"] == "stopped"
    assert closed["transcripts"] >= 5
    assert await trio.to_thread.run_sync(server.process.wait, 30) == 0


async def refused_by_tcp(server: Any) -> None:
    """Wait until nobody listens."""
    with trio.fail_after(30), contextlib.suppress(ConnectionRefusedError):
        while True:
            # What waits in the listener's queue when it closes is reset.
            with contextlib.suppress(ConnectionResetError):
                await request(server, "GET", "/healthz")


async def request(server: Any, method: str, path: str) -> tuple[int, dict[str, str]]:
    """Make one request on a connection of its own; return status and headers."""

    def ask() -> tuple[int, dict[str, str]]:
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
            connection.request(method, path, headers={"Content-Type": "application/sdp"})
            with connection.getresponse() as answer:
                answer.read()
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}

    return await trio.to_thread.run_sync(ask)


async def test_a_lame_duck_answers_and_refuses_on_every_wire(start_server: Any, connect: Any) -> None:
    """While load balancers look: not ready at once, alive, new calls get 503 and Retry-After; then TCP refuses.

    The open call is told until when it may go on, and goes on.
    """
    server = start_server(server__grace_seconds=60, server__lame_duck_seconds=4)
    assert (await request(server, "GET", "/readyz"))[0] == 200
    async with connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await next_of(caller, "ready")
        server.process.send_signal(signal.SIGTERM)
        notice = await next_of(caller, "notice")
        assert notice["code"] == "draining"
        assert 50 < notice["detail"]["grace_seconds"] <= 60
        until_deadline = datetime.fromisoformat(notice["detail"]["deadline"]) - datetime.now(UTC)
        assert timedelta() < until_deadline <= timedelta(seconds=60)
        assert (await request(server, "GET", "/readyz"))[0] == 503
        assert (await request(server, "GET", "/healthz"))[0] == 200
        status, headers = await request(server, "POST", "/v1/webrtc")
        assert (status, headers["retry-after"]) == (503, "5")
        with pytest.raises(ConnectionRejected) as refused:
            async with connect(server.url):
                pass
        assert refused.value.status_code == 503
        assert (b"retry-after", b"5") in refused.value.headers
        await refused_by_tcp(server)
        await caller.send_message('{"type":"ping","id":"1"}')
        assert (await next_of(caller, "pong"))["id"] == "1"
        await caller.send_message('{"type":"stop"}')
        assert (await next_of(caller, "closed"))["reason"] == "stopped"
    assert await trio.to_thread.run_sync(server.process.wait, 30) == 0


async def test_after_the_grace_time_last_words_are_recognised_and_the_call_closed(
    start_server: Any, connect: Any, assets: Path
) -> None:
    """A caller who goes on is ended with 1012, and what was said by then is told first."""
    server = start_server(server__grace_seconds=0.5)
    data = speech(assets).to_s16le()
    async with connect(server.url) as caller:
        await caller.send_message(data[:36_000])
        await next_of(caller, "speech_started")
        server.process.send_signal(signal.SIGTERM)
        final = await next_of(caller, "final")
        assert "tried" in final["text"].lower()
        closed = await next_of(caller, "closed")
        assert closed["reason"] == "drain"
        with pytest.raises(ConnectionClosed):
            await caller.get_message()
        assert caller.closed.code == 1012
    assert await trio.to_thread.run_sync(server.process.wait, 30) == 0


async def test_a_second_signal_ends_the_process_at_once(start_server: Any, connect: Any) -> None:
    """The operator insists: a code of its own, whatever calls are open."""
    server = start_server(server__grace_seconds=600)
    async with connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await next_of(caller, "ready")
        server.process.send_signal(signal.SIGTERM)
        await next_of(caller, "notice")
        server.process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(server.process.wait, 30) == EXIT_CUT_SHORT


async def test_a_drain_by_request_is_not_cut_short_by_the_signal_after_it(
    start_server: Any, connect: Any
) -> None:
    """An operator drains, then the orchestrator sends its SIGTERM: the call goes on; only one more signal ends it."""
    server = start_server(server__grace_seconds=600)
    async with connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        await next_of(caller, "ready")
        status, _ = await request(server, "POST", "/v1/drain")
        assert status == 202
        assert (await next_of(caller, "notice"))["code"] == "draining"
        server.process.send_signal(signal.SIGTERM)
        while '"event": "signal"' not in server.log():  # noqa: ASYNC110 (another process writes it)
            await trio.sleep(0.02)
        await caller.send_message('{"type":"ping","id":"1"}')
        assert (await next_of(caller, "pong"))["id"] == "1"
        server.process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(server.process.wait, 30) == EXIT_CUT_SHORT


async def test_a_slow_reader_does_not_hold_the_shutdown(start_server: Any, connect: Any) -> None:
    """A caller who floods pings and reads nothing blocks the server's sends; the process still ends, with 0.

    The last resort would end it three seconds after the time that is promised, with another code.
    """
    server = start_server(
        server__grace_seconds=0.2,
        server__send_timeout_seconds=60,
        limits__max_messages_per_second=100_000,
    )
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await stream.send_all(
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await stream.receive_some(1024)
    body = json.dumps({"type": "ping", "id": "x" * 60}).encode()
    frame = bytes([0x81, 0x80 | len(body)]) + b"\0\0\0\0" + body
    is_stuck = False
    while not is_stuck:
        with trio.move_on_after(2) as sending:
            await stream.send_all(frame * 50)
        is_stuck = sending.cancelled_caught
    server.process.send_signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(server.process.wait, 30) == 0
    await trio.aclose_forcefully(stream)


async def test_a_full_server_refuses_with_503(start_server: Any, connect: Any) -> None:
    """The handshake is answered with 503 and Retry-After; the call that is there goes on."""
    server = start_server(server__max_calls=1)
    async with connect(server.url) as first:
        await first.send_message('{"type":"start"}')
        await next_of(first, "ready")
        with pytest.raises(ConnectionRejected) as refused:
            async with connect(server.url):
                pass
        assert refused.value.status_code == 503
        assert (b"retry-after", b"5") in refused.value.headers
        await first.send_message('{"type":"ping","id":"1"}')
        assert (await next_of(first, "pong"))["id"] == "1"


def test_a_signal_while_the_models_load_ends_the_start() -> None:
    """There is nothing to drain yet; the process ends with 0, and onnxruntime does not abort it."""
    with subprocess.Popen(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0", "--log-format", "json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **NOTHING_KEPT},
    ) as process:
        assert process.stderr is not None
        assert "models_loading" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    assert "Traceback" not in rest


def serve_with_full_log() -> tuple[subprocess.Popen[str], str]:
    """Start a server whose standard error is a full disk; return it with its address."""
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "voice_agent", "serve", "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=full,
            text=True,
            env={**os.environ, **NOTHING_KEPT, "VOICE_AGENT__SERVER__LAME_DUCK_SECONDS": "0"},
        )
    assert process.stdout is not None
    return process, process.stdout.readline().split("http://")[1].split()[0]


async def test_a_log_that_cant_be_written_does_not_end_the_server(connect: Any) -> None:
    """Standard error on a full disk: lines are lost, calls are not."""
    process, address = await trio.to_thread.run_sync(serve_with_full_log)
    with process:
        async with connect(f"ws://{address}/v1/ws") as caller:
            await caller.send_message('{"type":"stop"}')
            assert (await next_of(caller, "closed"))["reason"] == "stopped"
        process.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(process.wait, 60) == 0


def run_serve(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "voice_agent", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", **NOTHING_KEPT, **environ},
    )


def test_listening_beyond_loopback_is_refused() -> None:
    """Not a warning: an error that names the setting, before anything is bound."""
    done = run_serve("--host", "0.0.0.0", "--port", "0")  # noqa: S104 (it is what must be refused)
    assert done.returncode == 78
    assert "server.host" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_a_clear_error() -> None:
    """Exit code 1, the address, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_serve("--port", str(port))
    assert done.returncode == 1
    assert str(port) in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_and_models_stop_the_start(tmp_path: Path) -> None:
    """Exit code 78; every wrong setting is named, and so is a model path that leads nowhere."""
    done = run_serve(VOICE_AGENT__SERVER__PORT="many", VOICE_AGENT__VAD__THRESHOLD="7")
    assert done.returncode == 78
    assert "server.port" in done.stderr
    assert "vad.threshold" in done.stderr
    done = run_serve("--port", "0", VOICE_AGENT__VAD__MODEL_PATH=str(tmp_path / "none.onnx"))
    assert done.returncode == 78
    assert "vad.model_path" in done.stderr
    assert "Traceback" not in done.stderr
