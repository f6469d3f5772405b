"""A server whose surroundings fail it: a name server that doesn't answer, and Python without assertions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ifaddr
import pytest

pytestmark = pytest.mark.e2e

SLOW_NAMES = """
import socket
import time


def never(*_arguments, **_options):
    time.sleep(60)
    raise OSError


asked = socket.getaddrinfo
socket.gethostbyname = never
socket.getaddrinfo = lambda host, *more, **options: (
    never if str(host).endswith(".example") else asked
)(host, *more, **options)
"""


@pytest.mark.skipif(
    all(ip.ip == "127.0.0.1" or not ip.is_IPv4 for a in ifaddr.get_adapters() for ip in a.ips),
    reason="aiortc's client does not gather loopback addresses, and there is no other IPv4 address here",
)
def test_a_name_server_that_does_not_answer_holds_up_no_call_and_no_exit(
    start_server: Any,
    call: Callable[..., Any],
    assets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With STUN and TURN servers whose names lead nowhere calls are answered and heard, and SIGTERM gives 0."""
    names = tmp_path / "slow"
    names.mkdir()
    (names / "sitecustomize.py").write_text(SLOW_NAMES)
    with monkeypatch.context() as patched:
        patched.setenv("PYTHONPATH", f"{names}:{os.environ.get('PYTHONPATH', '')}")
        server = start_server(
            webrtc__stun_servers="stun:slow.example",
            webrtc__turn_servers="turn:slow.example?transport=udp",
            webrtc__turn_secret="a-shared-secret-of-tests",  # noqa: S106 (made up)
            server__grace_seconds=1,
        )
    for _ in range(2):
        caller = call(server, assets / "beckett.wav", "--hold")
        assert "typ host" in caller.wait_for("answered")["answer"]
        caller.wait_for("final")
        caller.tell("stop")
        caller.wait_for("closed")
    assert server.stop() == 0, server.log()
    assert "ice_server_not_found" in server.log()
    assert "overdue" not in server.log()


def test_python_without_assertions_is_refused(tmp_path: Path) -> None:
    """The WebRTC library relies on them: the start ends with 78 and says what to do, without a trace."""
    ended = subprocess.run(
        [sys.executable, "-O", "-m", "voice_agent", "serve", "--port", "0"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
    )
    assert ended.returncode == 78, ended.stderr
    assert "without -O" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "listening" not in ended.stdout
