"""https and wss at a real server process: calls, slow and wrong handshakes, certificates that change under live calls."""

import http.client
import os
import socket
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme
from trio_websocket import WebSocketConnection, open_websocket_url

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 30


@attrs.define
class Certificates:
    """A certificate authority, and the files that the server reads."""

    folder: Path
    ca: trustme.CA = attrs.field(factory=trustme.CA)

    @property
    def settings(self) -> dict[str, str]:
        return {
            "server__tls_certificate_file": str(self.folder / "tls.crt"),
            "server__tls_key_file": str(self.folder / "tls.key"),
        }

    @property
    def ca_file(self) -> Path:
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(path)
        return path

    def write(self, **options: Any) -> int:
        """Issue a pair into the files; returns when it ends, in Unix time."""
        ends = options.pop("not_after", datetime.now(UTC) + timedelta(days=90))
        issued = self.ca.issue_cert("127.0.0.1", "localhost", not_after=ends, **options)
        key = self.folder / "tls.key"
        key.touch(0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        (self.folder / "tls.crt").write_bytes(chain)
        return int(ends.timestamp())

    def trust(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


@pytest.fixture
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    certificates = Certificates(tmp_path_factory.mktemp("tls"))
    certificates.write()
    return certificates


def ask(server: Any, trust: ssl.SSLContext, path: str, **headers: str) -> Any:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", server.port, context=trust, timeout=PATIENCE_SECONDS
    )
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def shown_until(server: Any, trust: ssl.SSLContext) -> int:
    """When the certificate that new connections see ends, in Unix time."""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_SECONDS) as tcp,
        trust.wrap_socket(tcp, server_hostname="127.0.0.1") as stream,
    ):
        certificate: Any = stream.getpeercert()
        return int(ssl.cert_time_to_seconds(certificate["notAfter"]))


async def round_trip(caller: WebSocketConnection) -> None:
    await caller.send_message('{"type":"ping","id":"1"}')
    while '"pong"' not in await caller.get_message():
        pass


def test_voice_agent_call_speaks_over_wss(
    start_server: Any, certificates: Certificates, assets: Path, tmp_path: Path
) -> None:
    """With the authority's certificate it is understood; without, the command says why it does not trust the server."""
    server = start_server(**certificates.settings)
    assert server.url.startswith("wss://")
    command = [sys.executable, "-m", "voice_agent", "call", "--url", server.url, "--speed", "0"]
    speech = str(assets / "beckett.wav")

    def run(*more: str) -> Any:
        return subprocess.run(
            [*command, *more, speech], capture_output=True, text=True, timeout=120, check=False
        )

    heard = run("--ca-file", str(certificates.ca_file))
    assert heard.returncode == 0, heard.stderr
    assert "fail better" in heard.stdout.lower()
    distrusted = run()
    assert distrusted.returncode == 69
    assert "certificate verify failed" in distrusted.stderr


def test_pages_and_handshakes_know_that_they_are_secure(
    start_server: Any, certificates: Certificates
) -> None:
    """The own origin is https, browsers are told to stay with it but on localhost, and http pages are strangers."""
    server = start_server(**certificates.settings)
    trust = certificates.trust()
    for host, value in (("voice.example", "max-age=2592000"), ("localhost", None), ("127.0.0.1", None)):
        status, headers, _ = ask(server, trust, "/", Host=host)
        assert (status, headers["Strict-Transport-Security"]) == (200, value)
    assert ask(server, trust, "/healthz", Origin=server.http)[0] == 200
    assert ask(server, trust, "/healthz", Origin=f"http://127.0.0.1:{server.port}")[0] == 403


async def test_slow_and_wrong_handshakes_cost_nobody_else_anything(
    start_server: Any, certificates: Certificates
) -> None:
    """Cut at the deadline of headers, or at once; calls are served meanwhile."""
    server = start_server(**certificates.settings, server__header_timeout_seconds=0.5)
    hello = certificates.trust()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        hello.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    beginning = outgoing.read()
    with trio.fail_after(PATIENCE_SECONDS):
        streams = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(40)]
        for number, stream in enumerate(streams):
            if number % 4 == 1:
                await stream.send_all(beginning[:20])
            elif number % 4 == 2:
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            elif number % 4 == 3:
                await stream.send_all(bytes(range(256)))
        async with open_websocket_url(server.url, ssl_context=certificates.trust()) as caller:
            await caller.send_message('{"type":"start"}')
            await round_trip(caller)
            for stream in streams:
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
                await stream.aclose()
            await round_trip(caller)
    _, _, metrics = await trio.to_thread.run_sync(ask, server, certificates.trust(), "/metrics")
    kinds = ("header_timeout", "tls_handshake")
    counted = [
        float(line.split()[1])
        for kind in kinds
        for line in metrics.splitlines()
        if line.startswith(f'voice_agent_guard_interventions_total{{kind="{kind}"}}')
    ]
    assert sum(counted) == 40
    assert "Traceback" not in server.log()


async def test_a_new_certificate_is_shown_while_a_call_goes_on(
    start_server: Any, certificates: Certificates
) -> None:
    """Good files are taken, bad ones are not, and the call that is open notices nothing of either."""
    server = start_server(**certificates.settings)
    trust = certificates.trust()

    async def wait_for(event: str, number: int = 1) -> None:
        while server.log().count(f'"{event}"') < number:  # noqa: ASYNC110 - another process writes it
            await trio.sleep(0.1)

    with trio.fail_after(2 * PATIENCE_SECONDS):
        async with open_websocket_url(server.url, ssl_context=trust) as caller:
            await caller.send_message('{"type":"start"}')
            await round_trip(caller)
            first = await trio.to_thread.run_sync(shown_until, server, trust)
            second = certificates.write(not_after=datetime.now(UTC) + timedelta(days=200))
            await wait_for("tls_reloaded")
            assert await trio.to_thread.run_sync(shown_until, server, trust) == second != first
            await round_trip(caller)
            certificates.folder.joinpath("tls.crt").write_text("garbage")
            await wait_for("tls_reload_refused")
            assert await trio.to_thread.run_sync(shown_until, server, trust) == second
            certificates.write(
                not_before=datetime.now(UTC) - timedelta(days=9),
                not_after=datetime.now(UTC) - timedelta(days=1),
            )
            await wait_for("tls_reload_refused", 2)
            assert await trio.to_thread.run_sync(shown_until, server, trust) == second
            await round_trip(caller)
            last = certificates.write(not_after=datetime.now(UTC) + timedelta(days=300))
            await wait_for("tls_reloaded", 2)
            assert await trio.to_thread.run_sync(shown_until, server, trust) == last
            await round_trip(caller)
            await caller.send_message('{"type":"stop"}')
    _, _, metrics = await trio.to_thread.run_sync(ask, server, trust, "/metrics")
    [told] = [
        float(line.split()[1])
        for line in metrics.splitlines()
        if line.startswith("voice_agent_tls_certificate_expiry_seconds ")
    ]
    assert int(told) == last


@pytest.mark.parametrize("fault", ["expired", "mismatched", "open to all", "one alone"])
def test_files_that_can_t_work_stop_the_start(certificates: Certificates, tmp_path: Path, fault: str) -> None:
    """Exit 78 within moments, with words; nothing listens, and no model is loaded for it."""
    settings = dict(certificates.settings)
    if fault == "expired":
        now = datetime.now(UTC)
        certificates.write(not_before=now - timedelta(days=9), not_after=now - timedelta(days=1))
        words = "ended on"
    elif fault == "mismatched":
        key = (certificates.folder / "tls.key").read_bytes()
        certificates.write()
        (certificates.folder / "tls.key").write_bytes(key)
        words = "the key is not that of the certificate"
    elif fault == "open to all":
        (certificates.folder / "tls.key").chmod(0o644)
        words = "can be read by every user"
    else:
        del settings["server__tls_key_file"]
        words = "need each other"
    done = subprocess.run(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0", "--log-format", "json"],
        env={**os.environ, **{f"VOICE_AGENT__{name.upper()}": value for name, value in settings.items()}},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert "models_loaded" not in done.stderr
