"""The certificate's files: what stops the start, what a change brings, and that a bad change brings nothing."""

import contextlib
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from voice_agent.observability.metrics import Metrics
from voice_agent.server import tls as tls_module
from voice_agent.server.listening import open_http_server
from voice_agent.server.tls import ServerTls, TlsFilesError, open_tls
from voice_agent.settings.schema import ServerSettings, Settings

NOW = datetime.now(UTC)


@attrs.define
class Pair:
    """Certificate and key on disk."""

    folder: Path
    ca: trustme.CA = attrs.field(factory=trustme.CA)
    metrics: Metrics = attrs.field(factory=Metrics)

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    def write(self, *, mode: int = 0o600, **options: Any) -> bytes:
        """Issue a pair, store it, and return the certificate in DER as a peer sees it."""
        issued = self.ca.issue_cert("localhost", "127.0.0.1", **options)
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        self.certificate.write_bytes(chain)
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.key.chmod(mode)
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())

    def open(self) -> ServerTls:
        return ServerTls(self.certificate, self.key, metrics=self.metrics)

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def count(self, outcome: str) -> float:
        return float(self.metrics.tls_reloads_total.labels(outcome)._value.get())


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path)
    pair.write()
    return pair


def shown(tls: ServerTls, client: ssl.SSLContext) -> bytes | None:
    """The certificate that a client gets to see now."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
    other = tls.context.wrap_bio(server_in, server_out, server_side=True)
    for _ in range(4):
        for side in (one, other):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
            server_in.write(outgoing.read())
            incoming.write(server_out.read())
    return one.getpeercert(binary_form=True)


def mismatch(pair: Pair) -> None:
    certificate = pair.certificate.read_bytes()
    pair.write()
    pair.certificate.write_bytes(certificate)


def encrypt(pair: Pair) -> None:
    key = load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )


def expire(pair: Pair) -> None:
    pair.write(not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1))


def begin_tomorrow(pair: Pair) -> None:
    pair.write(not_before=NOW + timedelta(days=1), not_after=NOW + timedelta(days=9))


FAULTS: list[tuple[str, Callable[[Pair], Any], str]] = [
    ("certificate", lambda pair: pair.certificate.unlink(), "can't be read: No such file"),
    ("certificate", lambda pair: pair.certificate.write_text("garbage"), "no certificate in PEM"),
    ("certificate", lambda pair: pair.certificate.write_bytes(b""), "no certificate in PEM"),
    ("certificate", lambda pair: pair.certificate.write_bytes(os.urandom(999)), "no certificate in PEM"),
    ("certificate", expire, "ended on"),
    ("certificate", begin_tomorrow, "begins on"),
    ("key", lambda pair: pair.key.unlink(), "can't be read: No such file"),
    ("key", lambda pair: pair.key.write_text("garbage"), "can't be used together"),
    ("key", mismatch, "the key is not that of the certificate"),
    ("key", encrypt, "can't be used together"),
    ("key", lambda pair: pair.key.chmod(0o644), "can be read by every user"),
]


@pytest.mark.parametrize(("file", "spoil", "words"), FAULTS)
def test_a_pair_that_can_t_work_stops_the_start(
    pair: Pair, file: str, spoil: Callable[[Pair], Any], words: str
) -> None:
    """With words that name the file and say what is wrong; nothing is asked of a terminal."""
    spoil(pair)
    with pytest.raises(TlsFilesError, match=words) as refused:
        pair.open()
    assert refused.value.field == f"server.tls_{file}_file"
    assert str(pair.folder) in refused.value.message


@pytest.mark.parametrize(("spoil", "words"), [fault[1:] for fault in FAULTS])
def test_a_change_that_can_t_work_changes_nothing(
    pair: Pair, spoil: Callable[[Pair], Any], words: str
) -> None:
    """The pair in use is shown on, the failure is counted, and the next good pair is taken."""
    tls = pair.open()
    context, before = tls.context, shown(tls, pair.client())
    spoil(pair)
    assert not tls.reload()
    assert tls.context is context
    assert (pair.count("done"), pair.count("refused")) == (0, 1)
    good = pair.write()
    assert tls.reload()
    assert before != good == shown(tls, pair.client())
    assert (pair.count("done"), pair.count("refused")) == (1, 1)


async def test_files_that_change_are_taken_by_themselves(
    pair: Pair, autojump_clock: trio.testing.MockClock
) -> None:
    """A file written over, one renamed into its place, and a link turned to another folder, as Kubernetes does."""
    tls = pair.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.watch)
        written = pair.write()
        await seen(tls, pair, written)
        elsewhere = Pair(pair.folder / "new", ca=pair.ca)
        elsewhere.folder.mkdir()
        renamed = elsewhere.write()
        elsewhere.certificate.rename(pair.certificate)
        elsewhere.key.rename(pair.key)
        await seen(tls, pair, renamed)
        nursery.cancel_scope.cancel()
    first, second = (Pair(pair.folder / name, ca=pair.ca) for name in ("first", "second"))
    for one in (first, second):
        one.folder.mkdir()
        one.write()
    link = pair.folder / "current"
    link.symlink_to(first.folder)
    linked = Pair(link, ca=pair.ca)
    tls = linked.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.watch)
        turned = pair.folder / "turned"
        turned.symlink_to(second.folder)
        turned.rename(link)
        certificate = second.certificate.read_text().split("-----END CERTIFICATE-----")[0]
        await seen(tls, linked, ssl.PEM_cert_to_DER_cert(certificate + "-----END CERTIFICATE-----\n"))
        nursery.cancel_scope.cancel()


async def seen(tls: ServerTls, pair: Pair, certificate: bytes) -> None:
    """Wait until clients see this certificate."""
    for _ in range(300):
        if shown(tls, pair.client()) == certificate:
            return
        await trio.sleep(tls_module.CHECK_SECONDS)
    raise AssertionError("the files were never read again")


async def test_who_asks_has_the_files_looked_at_at_once(
    pair: Pair, autojump_clock: trio.testing.MockClock
) -> None:
    """SIGHUP need not wait for the next look."""
    tls = pair.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.watch)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        certificate = pair.write()
        tls.ask()
        while shown(tls, pair.client()) != certificate:
            await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() - began < tls_module.CHECK_SECONDS
        nursery.cancel_scope.cancel()


def test_when_the_certificate_ends_is_a_metric(pair: Pair) -> None:
    """An alert can look ahead."""
    pair.write(not_after=NOW + timedelta(days=30))
    pair.open()
    ends = pair.metrics.tls_certificate_expiry_seconds._value.get()
    assert abs(ends - (NOW + timedelta(days=30)).timestamp()) < 2


def test_without_files_there_is_no_tls() -> None:
    """The default."""
    assert open_tls(ServerSettings(), Metrics()) is None


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


async def ask(port: int, client: ssl.SSLContext, **options: Any) -> bytes:
    """One request; everything up to the server's end."""
    tcp = await trio.open_tcp_stream("127.0.0.1", port)
    stream = trio.SSLStream(tcp, client, server_hostname="localhost", **options)
    try:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := await stream.receive_some():
            received += piece
        return received
    finally:
        await trio.aclose_forcefully(stream)


async def test_an_answer_over_tls_ends_by_the_protocol(pair: Pair) -> None:
    """The peer is told that nothing was cut off: a strict client reads to the end (RFC 8446, section 6.1)."""
    settings = Settings(server=ServerSettings(port=0))
    async with open_http_server(hello, settings, tls=pair.open()) as server:
        with trio.fail_after(60):
            received = await ask(server.addresses[0][1], pair.client())
    assert received.endswith(b"https")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_today_s_versions_are_spoken(pair: Pair, version: ssl.TLSVersion) -> None:
    """And HTTP/1.1 is agreed, where the client asks for more."""
    client = pair.client()
    client.minimum_version = client.maximum_version = version
    client.set_alpn_protocols(["h2", "http/1.1"])
    async with open_http_server(hello, Settings(server=ServerSettings(port=0)), tls=pair.open()) as server:
        tcp = await trio.open_tcp_stream("127.0.0.1", server.addresses[0][1])
        stream = trio.SSLStream(tcp, client, server_hostname="localhost")
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == "http/1.1"
        await trio.aclose_forcefully(stream)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_yesterday_s_versions_are_not(pair: Pair) -> None:
    """RFC 8996."""
    client = pair.client()
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    client.minimum_version = ssl.TLSVersion.TLSv1
    client.maximum_version = ssl.TLSVersion.TLSv1_1
    async with open_http_server(hello, Settings(server=ServerSettings(port=0)), tls=pair.open()) as server:
        with trio.fail_after(60), pytest.raises(trio.BrokenResourceError):
            await ask(server.addresses[0][1], client)


async def test_an_open_connection_keeps_its_certificate_and_goes_on(pair: Pair) -> None:
    """A change is for those who come later."""
    tls = pair.open()
    async with open_http_server(hello, Settings(server=ServerSettings(port=0)), tls=tls) as server:
        port = server.addresses[0][1]
        connect = partial(trio.open_ssl_over_tcp_stream, "127.0.0.1", port, https_compatible=True)
        client = pair.client()
        client.check_hostname = False
        stream = await connect(ssl_context=client)
        await stream.do_handshake()
        before = stream.getpeercert(binary_form=True)
        after = pair.write()
        assert tls.reload()
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await stream.receive_some()
        other = await connect(ssl_context=client)
        await other.do_handshake()
        assert other.getpeercert(binary_form=True) == after != before
        for one in (stream, other):
            await trio.aclose_forcefully(one)
