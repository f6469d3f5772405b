"""A real server process under a stand-in for systemd: a Unix socket that it is told to notify."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

WATCHDOG_SECONDS = 1.0


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", sock.getsockname())
        monkeypatch.setenv("WATCHDOG_USEC", str(round(WATCHDOG_SECONDS * 1e6)))
        yield sock


def next_but_watchdog(manager: socket.socket) -> dict[str, str]:
    while True:
        message = dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())
        if "WATCHDOG" not in message:
            return message


def test_a_service_tells_its_life(manager: socket.socket, start_server: Any) -> None:
    """Ready when it listens, alive by its watchdog, reloading at SIGHUP and ready again, stopping with its time."""
    server = start_server(server__grace_seconds=20)
    assert next_but_watchdog(manager)["READY"] == "1"
    server.process.send_signal(signal.SIGHUP)
    reloading = next_but_watchdog(manager)
    assert reloading["RELOADING"] == "1"
    assert int(reloading["MONOTONIC_USEC"]) > 0
    assert next_but_watchdog(manager)["READY"] == "1"
    assert [manager.recv(4096) for _ in range(4)] == [b"WATCHDOG=1"] * 4
    server.process.send_signal(signal.SIGTERM)
    stopping = next_but_watchdog(manager)
    assert stopping["STOPPING"] == "1"
    assert 20e6 < int(stopping["EXTEND_TIMEOUT_USEC"]) <= 28e6
    assert server.process.wait(30) == 0


def test_a_hung_event_loop_is_silent(manager: socket.socket, start_server: Any) -> None:
    """A process that is stopped as a whole stands for a loop that hangs: systemd hears nothing more of it."""
    server = start_server()
    assert next_but_watchdog(manager)["READY"] == "1"
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        manager.settimeout(WATCHDOG_SECONDS * 2)
        with pytest.raises(TimeoutError):  # noqa: PT012 (what was sent before is read first)
            while True:
                manager.recv(4096)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert server.stop() == 0
