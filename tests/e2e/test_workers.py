"""A supervisor and its workers, as real processes on one port, with real speech.

A start takes a few seconds (the models are loaded twice, one worker after the other), so most of the file uses one server.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

MOST_CALLS = 8
WAIT_SECONDS = 60
"""Catches hangs; nothing here takes so long."""


def processes_of(server: Any) -> set[int]:
    """Of its template and its workers."""
    return {line["pid"] for event in ("template_started", "worker_started") for line in lines(server, event)}


def wait_until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


async def becomes_true(holds: Callable[[], object]) -> None:
    await trio.to_thread.run_sync(wait_until, holds)


def lines(server: Any, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, server.log().splitlines()) if line["event"] == event]


def wait_for_line(server: Any, event: str, session: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [line for line in lines(server, event) if line["session"] == session]

    wait_until(found)
    return found()[0]


def samples(server: Any, name: str) -> dict[str, float]:
    """The values of a metric without labels of its own, by worker."""
    text = httpx.get(f"{server.http}/metrics", timeout=WAIT_SECONDS).text
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it waited in the queue when that was closed
    return False


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    return False


class Caller:
    """A call that speaks the recording in two parts."""

    def __init__(self, stream: Any, audio: bytes) -> None:
        self.stream = stream
        self.audio = audio
        self.messages: list[dict[str, Any]] = []

    async def next_of(self, kind: str) -> dict[str, Any]:
        with trio.fail_after(WAIT_SECONDS):
            while True:
                self.messages.append(json.loads(await self.stream.get_message()))
                if self.messages[-1]["type"] == kind:
                    return self.messages[-1]

    async def begin(self) -> str:
        """Return the session's id."""
        await self.stream.send_message('{"type":"start"}')
        return str((await self.next_of("ready"))["session"])

    async def speak_half(self) -> None:
        await self.stream.send_message(self.audio[:60_000])

    async def finish(self) -> str:
        """Speak on to the end, and return every word that came."""
        await self.stream.send_message(self.audio[60_000:])
        await self.stream.send_message('{"type":"stop"}')
        await self.next_of("closed")
        return " ".join(m["text"] for m in self.messages if m["type"] == "final")


@pytest.fixture(scope="module")
def beckett(assets: Path) -> bytes:
    return read_audio(assets / "beckett.wav").to_s16le()


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """The server of this file has two workers."""
    return {"server__workers": 2}


async def two_calls(stack: AsyncExitStack, server: Any, connect: Any, audio: bytes) -> dict[int, Caller]:
    """Open a call to each worker, which has begun to speak; return them by the worker that has them.

    The second call goes to the other worker, unless that one gets no processor for 25 ms, as happens on busy machines; then
    further calls come, which are silent.
    """
    by_worker: dict[int, Caller] = {}
    for _ in range(MOST_CALLS):
        caller = Caller(await stack.enter_async_context(connect(server.url)), audio)
        session = await caller.begin()
        worker = (await trio.to_thread.run_sync(wait_for_line, server, "call_opened", session))["worker"]
        by_worker.setdefault(worker, caller)
        if len(by_worker) == 2:
            break
    assert set(by_worker) == {1, 2}
    for caller in by_worker.values():
        await caller.speak_half()
    return by_worker


async def test_calls_go_to_who_has_least_to_do(
    server: Any, connect: Any, beckett: bytes, words: Any, beckett_words: str
) -> None:
    """Two calls are one for each worker; both are understood, and one page has the figures of both."""
    async with AsyncExitStack() as stack:
        calls = await two_calls(stack, server, connect, beckett)
        assert set(samples(server, "voice_agent_active_sessions")) == {"1", "2"}
        for caller in calls.values():
            assert words(await caller.finish()) == beckett_words
    assert samples(server, "voice_agent_worker_answered") == {"1": 1, "2": 1}
    assert samples(server, "voice_agent_worker_ready") == {"1": 1, "2": 1}
    assert all(value > 0 for value in samples(server, "process_resident_memory_bytes").values())
    assert all(value >= 1 for value in samples(server, "voice_agent_call_seconds_count").values())


async def test_a_reload_reaches_both(server: Any) -> None:
    """By the watched file, and by SIGHUP to the supervisor."""
    settings = Path(f"/proc/{server.process.pid}/cwd/settings.toml")
    settings.write_text("[server]\nmax_calls = 7\n")
    await becomes_true(lambda: samples(server, "voice_agent_settings_version") == {"1": 2, "2": 2})
    server.process.send_signal(signal.SIGHUP)
    await becomes_true(lambda: {x["worker"] for x in lines(server, "settings_unchanged")} == {1, 2})


async def test_a_worker_that_is_killed_costs_its_own_calls_only(
    server: Any, connect: Any, beckett: bytes, words: Any, beckett_words: str
) -> None:
    """After a kill -9 the other's caller notices nothing, the page says who is missing, and soon there are two again."""
    [victim] = [x["pid"] for x in lines(server, "worker_started") if x["worker"] == 1]
    async with AsyncExitStack() as stack:
        calls = await two_calls(stack, server, connect, beckett)
        os.kill(victim, signal.SIGKILL)
        await becomes_true(lambda: lines(server, "worker_ended"))
        # Answered by the one that is left, while the other one is away or starts.
        assert samples(server, "voice_agent_worker_ready") == {"1": 0, "2": 1}
        assert samples(server, "voice_agent_worker_answered") == {"1": 0, "2": 1}
        assert words(await calls[2].finish()) == beckett_words
    await becomes_true(lambda: samples(server, "voice_agent_worker_ready") == {"1": 1, "2": 1})
    [ended] = lines(server, "worker_ended")
    assert (ended["worker"], ended["code"], ended["cause"]) == (1, -signal.SIGKILL, "crashed")
    async with AsyncExitStack() as stack:
        calls = await two_calls(stack, server, connect, beckett)
        for caller in calls.values():
            assert words(await caller.finish()) == beckett_words


async def test_a_worker_that_is_told_to_end_is_replaced(server: Any) -> None:
    """SIGTERM to one worker renews it."""
    old = [x["pid"] for x in lines(server, "worker_started") if x["worker"] == 2][-1]
    os.kill(old, signal.SIGTERM)
    await becomes_true(
        lambda: [x["pid"] for x in lines(server, "worker_started") if x["worker"] == 2][-1] != old
    )
    assert lines(server, "worker_ended")[-1]["cause"] == "replaced"
    await becomes_true(lambda: samples(server, "voice_agent_worker_ready") == {"1": 1, "2": 1})


async def test_a_template_that_is_killed_is_loaded_again(server: Any) -> None:
    """The workers, its copies, go on without it; the next one that is needed has a new one."""
    [template] = [line["pid"] for line in lines(server, "template_started")]
    os.kill(template, signal.SIGKILL)
    await becomes_true(lambda: not is_alive(template))
    assert samples(server, "voice_agent_worker_ready") == {"1": 1, "2": 1}
    for number in (1, 2):
        old = [x["pid"] for x in lines(server, "worker_started") if x["worker"] == number][-1]
        os.kill(old, signal.SIGKILL)
    await becomes_true(lambda: len(lines(server, "template_started")) == 2)
    await becomes_true(lambda: samples(server, "voice_agent_worker_ready") == {"1": 1, "2": 1})


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A stand-in for systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(WAIT_SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", sock.getsockname())
        yield sock


def told(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())


async def test_sigterm_drains_both_and_no_word_is_lost(
    start_server: Any,
    connect: Any,
    beckett: bytes,
    words: Any,
    beckett_words: str,
    manager: socket.socket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both callers are told, speak on and get every word; new ones are refused; systemd hears one service; nothing is left."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    server = start_server(server__workers=2, server__grace_seconds=60)
    assert told(manager)["READY"] == "1"
    assert len(list((tmp_path / "workers").glob("worker-*.sock"))) == 2
    workers = processes_of(server)
    async with AsyncExitStack() as stack:
        calls = await two_calls(stack, server, connect, beckett)
        server.process.send_signal(signal.SIGTERM)
        for caller in calls.values():
            assert (await caller.next_of("notice"))["code"] == "draining"
        # No process holds the port any more, or callers would wait in its queue for nobody.
        await becomes_true(lambda: is_refused(server.port))
        stopping = told(manager)
        assert stopping["STOPPING"] == "1"
        assert int(stopping["EXTEND_TIMEOUT_USEC"]) > 60e6
        for caller in calls.values():
            assert words(await caller.finish()) == beckett_words
    assert await trio.to_thread.run_sync(server.process.wait, WAIT_SECONDS) == 0
    assert not any(map(is_alive, workers))
    assert not (tmp_path / "workers").exists()


async def test_a_supervisor_that_is_killed_leaves_nobody_behind(
    start_server: Any,
    connect: Any,
    beckett: bytes,
    words: Any,
    beckett_words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After a kill -9 the workers close the port at once, let their calls finish, and end."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    server = start_server(server__workers=2, server__grace_seconds=60)
    workers = processes_of(server)
    async with AsyncExitStack() as stack:
        calls = await two_calls(stack, server, connect, beckett)
        server.process.kill()
        for caller in calls.values():
            assert (await caller.next_of("notice"))["code"] == "draining"
        for caller in calls.values():
            assert words(await caller.finish()) == beckett_words
    await becomes_true(lambda: not any(map(is_alive, workers)))
    assert {line["worker"] for line in lines(server, "supervisor_gone")} == {1, 2}
    assert not (tmp_path / "workers").exists()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", server.port))


async def test_a_second_signal_ends_all_of_them(start_server: Any, connect: Any, beckett: bytes) -> None:
    """75, as a server alone; nobody waits for the calls."""
    server = start_server(server__workers=2, server__grace_seconds=600)
    workers = processes_of(server)
    async with AsyncExitStack() as stack:
        calls = await two_calls(stack, server, connect, beckett)
        server.process.send_signal(signal.SIGTERM)
        for caller in calls.values():
            await caller.next_of("notice")
        server.process.send_signal(signal.SIGINT)
        assert await trio.to_thread.run_sync(server.process.wait, WAIT_SECONDS) == 75
    assert not any(map(is_alive, workers))


def test_what_is_wrong_is_told_once(tmp_path: Path) -> None:
    """A model that is not there stops the start with 78, by the words of one worker."""
    done = subprocess.run(
        [sys.executable, "-m", "voice_agent", "serve", "--workers", "3", "--port", "0"],
        env={**os.environ, "VOICE_AGENT__RECOGNISER__MODEL_DIR": str(tmp_path / "nowhere")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 78
    assert len(re.findall(r"voice-agent: recogniser\.model_dir", done.stderr)) == 1
    assert done.stdout == ""
