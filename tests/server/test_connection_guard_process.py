"""Starting, filling and ending the server's process."""

import json
import signal
import socket
import subprocess
import time
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
PATIENCE_SECONDS = 60
"""What only catches a hang: a busy machine may take long."""


def end(server: Any) -> Any:
    """Send SIGTERM and return the exit code and the seconds until the process was gone."""
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    return server.process.wait(timeout=PATIENCE_SECONDS), time.monotonic() - began


def connect_when_there_is_room(server: Any) -> Any:
    """A connection that is served."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        client = server.connect()
        client.request("/x")
        try:
            if client.response()[0] == 200:
                return client
        except ConnectionResetError:
            pass
        client.sock.close()
    raise AssertionError("there is never room")


def test_sigterm_ends_calls_with_1012_and_exits(start_server: Any) -> None:
    """A call in good order is told that the server restarts; idle connections just end."""
    with start_server() as server, server.connect() as call, server.connect() as idle:
        call.open()
        idle.request("/x")
        assert idle.response()[0] == 200
        server.process.send_signal(signal.SIGTERM)
        opcode, payload = call.read_frame()
        assert (opcode, payload[:2]) == (CLOSE, (1012).to_bytes(2, "big"))
        call.send_frame(CLOSE, payload[:2])
        assert call.read_to_end() == b""
        assert idle.read_to_end() == b""
        assert server.process.wait(timeout=PATIENCE_SECONDS) == 0


def test_sigterm_closes_the_listener_first(start_server: Any) -> None:
    """While the last response is sent, nobody new gets in."""
    with start_server() as server, server.connect() as busy:
        busy.request("/slow")
        server.await_count(lambda counts: counts["guard"]["opened"] > 1, True)
        server.process.send_signal(signal.SIGTERM)
        assert busy.response()[2] == b"slow"
        assert server.process.wait(timeout=PATIENCE_SECONDS) == 0
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_sigterm_with_peers_that_do_not_read_ends_in_time(start_server: Any) -> None:
    """Neither a slow reader, nor a handler that ignores its peer, nor half a request holds the process up."""
    with start_server(
        {
            "send_timeout_seconds": 30,
            "handler_exit_seconds": 30,
            "handler_stall_seconds": 30,
            "body_timeout_seconds": 30,
        }
    ) as server:
        clients = [server.connect(receive_buffer=4096) for _ in range(6)]
        clients[0].open("/floods")
        clients[1].open("/never_reads")
        clients[2].request("/endless")
        clients[3].request("/hangs")
        clients[4].request("/x", method="POST", headers=["Content-Length: 9"])
        clients[5].open("/slow_to_leave")
        assert server.await_count(lambda c: c["guard"]["opened"] - c["guard"]["closed"], 7) == 7
        code, seconds = end(server)
        for client in clients:
            client.sock.close()
        assert code == 0
        # Sooner than any of the limits of 30 s: none of them is waited for.
        assert seconds < 25


def test_a_second_server_on_the_same_port_does_not_start(start_server: Any) -> None:
    """The error names the address and the setting; there is no half-started process."""
    with start_server() as server:
        second = subprocess.run(
            [*server.process.args[:-1], str(server.port)],
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert second.returncode == 1
        assert "AddressInUseError" in second.stderr
        assert f"127.0.0.1:{server.port}" in second.stderr


def test_connections_over_the_limit_are_closed_at_once(start_server: Any) -> None:
    """The next connection is closed and counted; when one ends, there is room again."""
    with start_server({"max_connections": 3, "header_timeout_seconds": 30}) as server:
        held = [server.connect() for _ in range(3)]
        held[0].open()
        held[1].open()
        held[2].request("/x")
        assert held[2].response()[0] == 200
        with server.connect() as refused:
            assert refused.read_to_end() == b""
        held[0].assert_echo()
        held[1].sock.close()
        held[1] = connect_when_there_is_room(server)
        held[1].request("/counts")
        assert json.loads(held[1].response()[2])["guard"]["refused"] >= 1
        for client in held:
            client.sock.close()


def test_running_out_of_file_descriptors_does_not_end_the_server(start_server: Any) -> None:
    """accept() fails for a while; calls go on, and new ones are served when there is room again."""
    with start_server({"header_timeout_seconds": 30, "max_connections": 1000}, max_files=40) as server:
        with server.connect() as call:
            call.open()
            crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
            server.await_log("EMFILE")
            for _ in range(10):
                call.assert_echo()
            for sock in crowd:
                sock.close()
            call.assert_echo()
        server.assert_well()
