"""What systemd is told, over a real Unix socket; and the unit file."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from voice_agent.server.systemd import ServiceManager

UNIT = Path(__file__).parents[2] / "deploy/systemd/voice-agent.service"


@pytest.fixture
def manager_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """Stands for systemd."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        yield sock


def told(sock: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in sock.recv(4096).decode().splitlines())


def test_each_message_is_one_datagram(manager_socket: socket.socket) -> None:
    """Ready with a status that lasts, a reload with the monotonic time, a stop with the time that it takes."""
    manager = ServiceManager(manager_socket.getsockname())
    manager.ready("taking calls")
    assert told(manager_socket) == {"READY": "1", "STATUS": "taking calls"}
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.reloading()
    message = told(manager_socket)
    assert message["RELOADING"] == "1"
    assert before <= int(message["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.ready()
    assert told(manager_socket) == {"READY": "1", "STATUS": "taking calls"}
    manager.stopping("draining", within_seconds=38.5)
    assert told(manager_socket) == {
        "STOPPING": "1",
        "STATUS": "draining",
        "EXTEND_TIMEOUT_USEC": "38500000",
    }


def test_an_abstract_address_is_understood() -> None:
    """Systemd writes its NUL as "@"."""
    name = f"voice-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        sock.settimeout(10)
        ServiceManager("@" + name).ready("up")
        assert told(sock)["READY"] == "1"


@pytest.mark.parametrize(
    ("environ", "is_there", "watchdog_seconds"),
    [
        ({}, False, None),
        ({"NOTIFY_SOCKET": ""}, False, None),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, False, None),
        ({"NOTIFY_SOCKET": "/run/n"}, True, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "10000000"}, True, 10.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}, True, 10.0),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"}, True, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "0"}, True, None),
        ({"NOTIFY_SOCKET": "@n", "WATCHDOG_USEC": "soon"}, True, None),
    ],
)
def test_the_environment_says_who_listens(
    environ: dict[str, str], is_there: bool, watchdog_seconds: float | None
) -> None:
    """Nobody, without the variable; a watchdog only where it is meant for this process."""
    manager = ServiceManager.from_environ(environ, pid=7)
    assert (manager._address is not None) == is_there
    assert manager.watchdog_seconds == watchdog_seconds


async def test_the_watchdog_hears_twice_in_its_time(
    autojump_clock: MockClock, manager_socket: socket.socket
) -> None:
    """From the event loop, so that a loop that hangs is heard of no more."""
    manager = ServiceManager(manager_socket.getsockname(), watchdog_seconds=10)
    with trio.move_on_after(21):
        await manager.keep_alive()
    manager_socket.settimeout(0)
    assert [told(manager_socket) for _ in range(5)] == [{"WATCHDOG": "1"}] * 5
    with pytest.raises(BlockingIOError):
        told(manager_socket)


async def test_without_a_watchdog_nothing_is_sent(
    autojump_clock: MockClock, manager_socket: socket.socket
) -> None:
    """Nobody asked."""
    with trio.move_on_after(1000):
        await ServiceManager(manager_socket.getsockname()).keep_alive()
    manager_socket.settimeout(0)
    with pytest.raises(BlockingIOError):
        told(manager_socket)


def test_a_manager_that_cant_be_reached_is_no_reason_to_stop(tmp_path: Path) -> None:
    """Gone, or not reading: a line in the log, and the server goes on without waiting."""
    with capture_logs() as logs:
        ServiceManager(str(tmp_path / "none")).ready("up")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
            deaf.bind(str(tmp_path / "deaf"))
            manager = ServiceManager(str(tmp_path / "deaf"))
            for _ in range(2000):
                manager.ready("up")
    assert {line["event"] for line in logs} == {"service_manager_unreachable"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_file_is_understood(tmp_path: Path) -> None:
    """Systemd itself finds nothing to say about it; only the program is not where the unit has it."""
    unit = tmp_path / UNIT.name
    unit.write_text(
        UNIT.read_text().replace("ExecStart=/opt/voice-agent/.venv/bin/voice-agent", "ExecStart=/bin/true")
    )
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    about_it = [line for line in done.stderr.splitlines() if unit.name in line]
    assert about_it == []
    assert done.returncode == 0, done.stderr


def test_the_unit_file_gives_the_drain_its_time() -> None:
    """What the unit says agrees with what the server does."""
    lines = dict(
        line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and line[0] != "#"
    )
    assert lines["Type"] == "notify"
    assert lines["ExecReload"].startswith("kill -HUP")
    assert float(lines["TimeoutStopSec"]) >= 30 + 8
    assert lines["RestartPreventExitStatus"] == "78"
    assert lines["SuccessExitStatus"] == "75"
