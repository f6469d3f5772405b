"""A server process under the connection guard, and a client that sends exactly the bytes it is told to."""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

GUARD_APP = Path(__file__).with_name("guard_app.py")
PATIENCE_SECONDS = 8.0
"""A client's deadline for anything; only a defect ever waits so long."""

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
SHORT_LIMITS = {
    "header_timeout_seconds": 0.4,
    "keep_alive_seconds": 1.0,
    "send_timeout_seconds": 0.5,
    "body_timeout_seconds": 0.4,
    "handler_stall_seconds": 0.4,
    "handler_exit_seconds": 0.4,
    "linger_seconds": 0.5,
    "close_timeout_seconds": 1.0,
    "max_connections": 64,
}


class Client:
    """One TCP connection to the server."""

    def __init__(self, port: Any, *, receive_buffer: Any = None) -> None:
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE_SECONDS)
        try:
            self.sock.connect(("127.0.0.1", port))
        except OSError:
            self.sock.close()
            raise
        self.buffer = b""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: Any) -> Any:
        """Send bytes; a server that has closed already is no error."""
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def reset(self) -> None:
        """Drop the connection as a machine does that loses power and comes back."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def read(self, count: Any) -> Any:
        """Exactly so many bytes; fewer at the end."""
        while len(self.buffer) < count and (data := self.sock.recv(65_536)):
            self.buffer += data
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def read_to_end(self) -> Any:
        """Everything until the server closes; a reset counts as the end."""
        try:
            while data := self.sock.recv(65_536):
                self.buffer += data
        except ConnectionResetError:
            pass
        taken, self.buffer = self.buffer, b""
        return taken

    # HTTP

    def request(
        self, path: str, *, method: str = "GET", headers: Sequence[str] = (), body: bytes = b""
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin1") + body)

    def response(self) -> Any:
        """Status, headers and body of one response; status 0 where the server just closed."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(65_536)
            if not data:
                return 0, {}, b""
            self.buffer += data
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin1").split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        return int(first.split()[1]), headers, self.read(int(headers.get("content-length", 0)))

    # WebSocket

    def shake(
        self, path: str = "/echo", *, version: str = "13", key: str | None = None, extra: Sequence[str] = ()
    ) -> None:
        key = key or base64.b64encode(os.urandom(16)).decode()
        headers = ["Upgrade: websocket", "Connection: Upgrade", *extra]
        if key != "none":
            headers.append(f"Sec-WebSocket-Key: {key}")
        if version:
            headers.append(f"Sec-WebSocket-Version: {version}")
        self.request(path, headers=headers)

    def open(self, path: Any = "/echo", **options: Any) -> Any:
        self.shake(path, **options)
        status, headers, _ = self.response()
        assert status == 101
        return headers

    def frame(
        self,
        opcode: Any,
        payload: Any = b"",
        *,
        fin: Any = True,
        masked: Any = True,
        rsv: Any = 0,
        declared: Any = None,
    ) -> Any:
        """The bytes of one frame (RFC 6455, section 5.2); ``declared`` is a length that may be a lie."""
        length = len(payload) if declared is None else declared
        head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
        mask_bit = 0x80 if masked else 0
        if length < 126:
            head += bytes([mask_bit | length])
        elif length < 65_536:
            head += bytes([mask_bit | 126]) + struct.pack("!H", length)
        else:
            head += bytes([mask_bit | 127]) + struct.pack("!Q", length)
        if not masked:
            return head + payload
        mask = os.urandom(4)
        repeated = (mask * (len(payload) // 4 + 1))[: len(payload)]
        masked_payload = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
        return head + mask + masked_payload.to_bytes(len(payload), "big")

    def send_frame(self, *arguments: Any, **options: Any) -> Any:
        return self.send(self.frame(*arguments, **options))

    def read_frame(self) -> Any:
        """Opcode and payload of one frame; (None, b"") when the server has closed."""
        head = self.read(2)
        if len(head) < 2:
            return None, b""
        length = head[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.read(8))
        return head[0] & 0x0F, self.read(length)

    def read_close(self) -> Any:
        """The code of the close frame, past whatever comes before it; then the server must close TCP."""
        while True:
            opcode, payload = self.read_frame()
            assert opcode is not None, "TCP was closed without a close frame"
            if opcode == CLOSE:
                code = struct.unpack("!H", payload[:2])[0] if payload else 1005
                assert self.read_to_end() == b""
                return code

    def assert_echo(self, payload: Any = b"are you well?") -> None:
        self.send_frame(BINARY, payload)
        assert self.read_frame() == (BINARY, payload)

    def assert_echo_past_pings(self, payload: Any = b"are you well?") -> None:
        self.send_frame(BINARY, payload)
        while (found := self.read_frame()) == (PING, b""):
            pass
        assert found == (BINARY, payload)


class Server:
    """The server's process."""

    def __init__(self, port: Any, process: Any, log: Any) -> None:
        self.port = port
        self.process = process
        self.log = log
        self.clients = []

    def logged(self) -> Any:
        """What the process has written to its standard error."""
        self.log.seek(0)
        return self.log.read()

    def connect(self, **options: Any) -> Any:
        client = Client(self.port, **options)
        self.clients.append(client)
        return client

    def drop_clients(self) -> None:
        """Close what a test has left open."""
        while self.clients:
            self.clients.pop().sock.close()

    def counts(self) -> Any:
        with self.connect() as client:
            client.request("/counts", headers=["Connection: close"])
            return json.loads(client.response()[2])

    def guard(self, kind: Any) -> Any:
        """How often the guard has stepped in for this reason."""
        return self.counts()["guard"].get(kind, 0)

    def await_count(self, read: Any, expected: Any) -> Any:
        """Ask until the server says what is expected; returns what it said last."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := read(self.counts())) != expected and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    def await_log(self, words: str) -> None:
        """Wait until the process has written this."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while words not in self.logged():
            assert time.monotonic() < deadline, f"{words!r} was never logged"
            time.sleep(0.02)

    def assert_well(self) -> None:
        """It serves a page and a call."""
        assert self.process.poll() is None, "the server has ended"
        with self.connect() as client:
            client.request("/hello", body=b"abc", method="POST")
            assert json.loads(client.response()[2])["bytes"] == 3
        with self.connect() as client:
            client.open()
            client.assert_echo()
            client.send_frame(CLOSE, struct.pack("!H", 1000))
            assert client.read_close() == 1000


@contextmanager
def run_server(limits: Any = None, *, max_files: Any = 0, port: Any = 0) -> Any:
    """Start a server process with these limits beside the short ones."""
    command = [sys.executable, str(GUARD_APP), "--limits", json.dumps(SHORT_LIMITS | (limits or {}))]
    command += ["--max-files", str(max_files), "--port", str(port)]
    # To a file, for a pipe that nobody empties would block the server's thread; appending, for both ends share its offset.
    with (
        tempfile.TemporaryFile("a+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            line = process.stdout.readline()
            server = Server(int(line or 0), process, log)
            yield server
        finally:
            server.drop_clients()
            process.terminate()
            try:
                process.communicate(timeout=PATIENCE_SECONDS)
            finally:
                process.kill()


@pytest.fixture(scope="session")
def start_server() -> Any:
    """The function that starts a server of a test's own."""
    return run_server


@pytest.fixture(scope="module")
def shared_server() -> Any:
    """One server process for the tests of a module."""
    with run_server() as server:
        server.assert_well()
        server.await_count(lambda counts: counts["guard"]["opened"] - counts["guard"]["closed"], 1)
        yield server, _levels(server.counts())


def _levels(counts: Any) -> Any:
    return counts["tasks"], counts["fds"], counts["threads"]


@pytest.fixture
def server(shared_server: Any) -> Any:
    """The shared server, which must be as well and as empty after the test as before it."""
    process, baseline = shared_server
    yield process
    process.drop_clients()
    process.assert_well()
    assert process.await_count(_levels, baseline) == baseline
