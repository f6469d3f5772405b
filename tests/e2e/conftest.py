"""Real server processes for the tests that need them."""

import contextlib
import functools
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
import ifaddr
import pytest
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

# Charles Dickens, A Tale of Two Cities (1859), first paragraph; in the public domain.
TWO_CITIES = """
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was
the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness, it
was the spring of hope, it was the winter of despair, we had everything before us, we had nothing before us, we were
all going direct to Heaven, we were all going direct the other way - in short, the period was so far like the present
period, that some of its noisiest authorities insisted on its being received, for good or for evil, in the superlative
degree of comparison only.
"""

STOP_SECONDS = 60


@attrs.define
class ServerProcess:
    """A running ``voice-agent serve``; its log lines go to ``log_path``."""

    process: subprocess.Popen[str]
    port: int
    log_path: Path
    secure: str = ""
    """The letter that stands for TLS in https and wss."""

    @property
    def url(self) -> str:
        return f"ws{self.secure}://127.0.0.1:{self.port}/v1/ws"

    @property
    def http(self) -> str:
        return f"http{self.secure}://127.0.0.1:{self.port}"

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the process and return its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def log(self) -> str:
        return self.log_path.read_text()

    def close_records(self) -> list[dict[str, Any]]:
        """What the log says of calls that ended."""
        records = [json.loads(line) for line in self.log().splitlines()]
        return [record for record in records if record["event"] == "call_closed"]

    def wait_for_close_record(self, number: int = 1, seconds: float = 20) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while len(self.close_records()) < number:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        return self.close_records()[number - 1]


StartServer = Callable[..., ServerProcess]


def _start(tmp_path: Path, *, port: int = 0, **settings: Any) -> ServerProcess:
    log_path = tmp_path / f"server-{len(list(tmp_path.iterdir()))}.log"
    environ = {
        # No load balancer watches a test's server.
        "VOICE_AGENT__SERVER__LAME_DUCK_SECONDS": "0",
        # Tests run on busy machines; whom a busy server refuses is tests/e2e/test_admission.py's.
        "VOICE_AGENT__ADMISSION__ENABLED": "false",
        **os.environ,
        **{f"VOICE_AGENT__{key.upper()}": str(value) for key, value in settings.items()},
    }
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "voice_agent", "serve", "--port", str(port), "--log-format", "json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environ,
            cwd=tmp_path,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"listening on http(s?)://(?:127\.0\.0\.1|0\.0\.0\.0):(\d+)", line)
    if found is None:
        process.kill()
        process.wait()
        process.stdout.close()
        raise AssertionError(f"the server did not start: {line!r} {log_path.read_text()}")
    return ServerProcess(process, int(found[2]), log_path, secure=found[1])


def _end(server: ServerProcess) -> None:
    if server.process.poll() is None:
        server.process.kill()
        server.process.wait(STOP_SECONDS)
    if server.process.stdout is not None:
        server.process.stdout.close()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Start servers; ``start_server(server__grace_seconds=1)`` sets settings. They are ended after the test."""
    servers: list[ServerProcess] = []

    def start(**settings: Any) -> ServerProcess:
        servers.append(_start(tmp_path, **settings))
        return servers[-1]

    yield start
    for server in servers:
        _end(server)


@pytest.fixture(scope="module")
def start_shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """As ``start_server``, for servers that several tests of a file share."""
    servers: list[ServerProcess] = []

    def start(**settings: Any) -> ServerProcess:
        servers.append(_start(tmp_path_factory.mktemp("server"), **settings))
        return servers[-1]

    yield start
    for server in servers:
        _end(server)


@pytest.fixture(scope="module")
def server_settings() -> dict[str, Any]:
    """What ``server`` is started with; a file may have its own."""
    return {}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, server_settings: dict[str, Any]
) -> Iterator[ServerProcess]:
    """One server for all tests of a file; it must end cleanly after them."""
    it = _start(tmp_path_factory.mktemp("server"), **server_settings)
    yield it
    assert it.process.poll() is None, it.log()
    code = it.stop()
    _end(it)
    assert code == 0, it.log()
    assert "Traceback" not in it.log()


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder with the speech that ships beside the models."""
    encoder = next(m for m in find_models(Settings()) if m.name == "moonshine-encoder")
    return encoder.path.parent.parent


Connect = Callable[..., AbstractAsyncContextManager[WebSocketConnection]]


@pytest.fixture
def connect() -> Connect:
    """Open a raw client; the library leaves its socket to the garbage collector when the server closes first."""

    @asynccontextmanager
    async def connected(
        url: str, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> AsyncIterator[WebSocketConnection]:
        parts = urlsplit(url)
        stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 80)
        try:
            async with trio.open_nursery() as nursery:
                resource = parts.path + (f"?{parts.query}" if parts.query else "")
                connection = await wrap_client_stream(
                    nursery, stream, parts.netloc, resource, extra_headers=list(headers)
                )
                try:
                    yield connection
                finally:
                    with trio.move_on_after(5):
                        await connection.aclose()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            if len(group.exceptions) == 1:
                raise group.exceptions[0] from None
            raise
        finally:
            await trio.aclose_forcefully(stream)

    return connected


class WebRtcCaller:
    """A client process and what it prints."""

    def __init__(self, server: ServerProcess, *arguments: Any) -> None:
        caller = Path(__file__).with_name("webrtc_caller.py")
        self.process = subprocess.Popen(
            [sys.executable, str(caller), f"{server.http}/v1/webrtc", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.messages: list[dict[str, Any]] = []

    def wait_for(self, kind: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.messages.append(json.loads(line))
            if self.messages[-1]["type"] == kind:
                return self.messages[-1]
        raise AssertionError(f"no {kind} came: {self.messages}")

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    @property
    def finals(self) -> str:
        return " ".join(m["text"] for m in self.messages if m["type"] == "final")


@pytest.fixture
def call() -> Iterator[Callable[..., WebRtcCaller]]:
    """Start callers; they are ended after the test."""
    callers: list[WebRtcCaller] = []

    def start(*arguments: Any) -> WebRtcCaller:
        callers.append(WebRtcCaller(*arguments))
        return callers[-1]

    yield start
    for caller in callers:
        caller.end()


@pytest.fixture(scope="session")
def words() -> Callable[[str], str]:
    """Reduce text to lower-case words without punctuation."""
    return lambda text: " ".join(re.sub(r"[^a-z' ]+", " ", text.lower()).split())


@pytest.fixture(scope="session")
def two_cities_words(words: Callable[[str], str]) -> str:
    """What is read in ``two_cities.wav``."""
    return words(TWO_CITIES)


@attrs.frozen
class Coturn:
    """A running TURN server."""

    url: str
    secret: str


def _own_address() -> str:
    """An address of this machine that is no loopback one."""
    return next(
        str(ip.ip) for a in ifaddr.get_adapters() for ip in a.ips if ip.is_IPv4 and ip.ip != "127.0.0.1"
    )


def _wait_for_stun(port: int) -> None:
    """Ask until a binding request is answered (RFC 8489, section 6)."""
    request = bytes.fromhex("000100002112a442") + os.urandom(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.2)
        for _ in range(50):
            asking.sendto(request, (_own_address(), port))
            with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                asking.recv(2048)
                return
            time.sleep(0.05)
    raise AssertionError("the TURN server does not answer")


@pytest.fixture
def coturn(tmp_path: Path) -> Iterator[Coturn]:
    """A coturn that takes the credentials which the server makes."""
    if shutil.which("turnserver") is None:
        pytest.skip("coturn's turnserver is not installed (Debian package coturn)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((_own_address(), 0))
        port = int(probe.getsockname()[1])
    secret = "a-shared-secret-of-tests"  # noqa: S105 (made up)
    with (tmp_path / "turn.log").open("w") as log:
        process = subprocess.Popen(
            [
                "turnserver", "-n", "--use-auth-secret", f"--static-auth-secret={secret}", "--realm=tests",
                f"--listening-ip={_own_address()}", f"--relay-ip={_own_address()}", f"--listening-port={port}",
                "--no-tls", "--no-dtls", "--no-cli", "--log-file=stdout", f"--pidfile={tmp_path}/turn.pid",
                f"--userdb={tmp_path}/turndb",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait_for_stun(port)
        assert process.poll() is None
        yield Coturn(f"turn:{_own_address()}:{port}?transport=udp", secret)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def beckett_words() -> str:
    """What is read in ``beckett.wav``."""
    return "ever tried ever failed no matter try again fail again fail better"


class Network:
    """A relay process."""

    def __init__(self, *arguments: str) -> None:
        relay = Path(__file__).with_name("udp_relay.py")
        self.process = subprocess.Popen(
            [sys.executable, str(relay), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.place = ":".join(self.process.stdout.readline().split())

    def lead_to(self, answer: str) -> None:
        """Lead to the first IPv4 candidate of an answer."""
        candidates = [line.split() for line in answer.splitlines() if line.startswith("a=candidate:")]
        host, port = next((c[4], c[5]) for c in candidates if "." in c[4])
        assert self.process.stdin is not None
        self.process.stdin.write(f"{host} {port}\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, int]:
        """End, and return what happened to the packets."""
        counts, _ = self.process.communicate()
        return json.loads(counts)


@pytest.fixture
def network() -> Iterator[Callable[..., Network]]:
    """Start relays; they are ended after the test."""
    networks: list[Network] = []

    def start(*arguments: str) -> Network:
        networks.append(Network(*arguments))
        return networks[-1]

    yield start
    for it in networks:
        if it.process.poll() is None:
            it.process.kill()
            it.process.communicate()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: Any) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Another site, with a page of its own: on another port it is of another origin."""
    (tmp_path / "page.html").write_text("<!doctype html><title>another site</title>")
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
