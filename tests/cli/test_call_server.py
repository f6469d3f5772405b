"""Reaching a server over a real loopback connection, and not reaching it."""

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from trio_websocket import WebSocketRequest, serve_websocket

from voice_agent.cli.call_audio import AudioMessage, MemorySource
from voice_agent.cli.call_client import ClientOptions, call_server
from voice_agent.cli.call_files import FileSource
from voice_agent.cli.server_access import ServerAccess
from voice_agent.core.errors import ServerUnreachableError, UnreadableFileError
from voice_agent.core.formats import AudioFormat

QUICK = ClientOptions(speed=0, connect_timeout_seconds=0.2, close_timeout_seconds=0.2)
SOURCE = MemorySource(AudioFormat(), [AudioMessage(b"\0\0", 0.02 * (i + 1)) for i in range(10)])


@asynccontextmanager
async def bytes_server(answer: bytes) -> AsyncIterator[str]:
    """Serve something that is no WebSocket: reads a request, answers, and keeps the connection until the end."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1/ws"
        nursery.cancel_scope.cancel()


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "voice-agent test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    """Return what a server with that certificate speaks TLS with."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


async def answer_well(request: WebSocketRequest) -> None:
    """Play a whole call; the final tells the path and how many audio messages came."""
    connection = await request.accept()
    await connection.get_message()
    await connection.send_message('{"type": "ready", "session": "x"}')
    count = 0
    while isinstance(await connection.get_message(), bytes):
        count += 1
    text = f"{request.path} {count}"
    await connection.send_message(
        json.dumps({"type": "final", "text": text, "start": 0, "end": 0.2, "utterance": 1})
    )
    await connection.send_message('{"type": "closed", "reason": "stopped"}')


async def free_port() -> int:
    """Return a port where nobody listens."""
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_nobody_listening_is_told_with_the_address() -> None:
    """Connection refused: our error, the system's reason."""
    url = f"ws://127.0.0.1:{await free_port()}/v1/ws"
    with pytest.raises(ServerUnreachableError) as caught:
        await call_server(url, SOURCE, options=QUICK)
    assert caught.value.message == (
        f"{url} can't be reached: Connection refused; "
        "check the address, and that the server runs (voice-agent serve)"
    )


async def test_a_name_that_does_not_resolve_is_told() -> None:
    """The reserved top-level domain of RFC 2606 never resolves."""
    with pytest.raises(ServerUnreachableError):
        await call_server("ws://nowhere.invalid/v1/ws", SOURCE, options=QUICK)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "503"),
        (b"busy", ": busy"),
        (b'{"code": "full"}', ': {"code": "full"}'),
        (b'{"detail": 5}', ': {"detail": 5}'),
        (b"[]", ": []"),
        (b'{"code": "full", "detail": "64 calls are open"}', "503: 64 calls are open"),
    ],
)
async def test_a_refused_handshake_is_told_with_its_status_and_reason(body: bytes, reason: str) -> None:
    """503 when the server is full, 401 without a token: the caller reads why, not JSON where it can be helped."""

    async def refuse(request: WebSocketRequest) -> None:
        await request.reject(503, body=body)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, refuse, "127.0.0.1", 0, None)
        with pytest.raises(ServerUnreachableError) as caught:
            await call_server(f"ws://127.0.0.1:{server.port}/v1/ws", SOURCE, options=QUICK)
        nursery.cancel_scope.cancel()
    assert "refused the call with HTTP 503" in caught.value.message
    assert caught.value.message.endswith(reason)


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"]
)
async def test_a_server_of_another_kind_is_told(answer: bytes) -> None:
    """Whatever listens there, the handshake ends in bounded time and one typed error."""
    async with bytes_server(answer) as url:
        with pytest.raises(ServerUnreachableError):
            await call_server(url, SOURCE, options=QUICK)


async def test_an_unreadable_source_does_not_bother_the_server(tmp_path: Path) -> None:
    """The file is opened first: the error is the file's, although nobody listens either."""
    with pytest.raises(UnreadableFileError):
        await call_server("ws://127.0.0.1:1/", FileSource(path=tmp_path / "missing.wav"), options=QUICK)


async def test_a_server_that_ignores_the_close_frame_is_left() -> None:
    """The close record came, the close frame did not: the call fails by its own deadline, and returns."""

    async def ignore(request: WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message('{"type": "ready", "session": "x"}')
        while await connection.get_message() != '{"type": "stop"}':
            pass
        # From here on nobody reads, not even the library: its one place for a message is taken.
        await connection.send_message('{"type": "closed", "reason": "stopped"}')
        connection._reader_running = False
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, ignore, "127.0.0.1", 0, None)
        with trio.fail_after(60):
            result = await call_server(f"ws://127.0.0.1:{server.port}/", SOURCE, options=QUICK)
        nursery.cancel_scope.cancel()
    assert result.closed is not None
    assert result.failure_code == "timeout"


async def test_a_call_over_loopback() -> None:
    """The whole way: handshake, audio, final, close; path and query arrive."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, answer_well, "127.0.0.1", 0, None)
        result = await call_server(
            f"ws://127.0.0.1:{server.port}/v1/ws?x=1", SOURCE, options=ClientOptions(speed=0)
        )
        nursery.cancel_scope.cancel()
    assert [final.text for final in result.finals] == ["/v1/ws?x=1 10"]
    assert (result.failure, result.close_code) == (None, 1000)


async def test_a_call_over_tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``wss://`` with a certificate that the system trusts; SSL_CERT_FILE names one's own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            serve_websocket, answer_well, "127.0.0.1", 0, server_context(certificate)
        )
        result = await call_server(f"wss://127.0.0.1:{server.port}", SOURCE, options=ClientOptions(speed=0))
        nursery.cancel_scope.cancel()
    assert [final.text for final in result.finals] == ["/ 10"]
    assert result.failure is None


async def test_a_call_with_a_key_over_tls_that_a_file_vouches_for(certificate: Path, tmp_path: Path) -> None:
    """The key stands in the handshake's header, and only the file's certificates are trusted."""
    shown: list[tuple[bytes, bytes]] = []

    async def look(request: WebSocketRequest) -> None:
        shown.extend(request.headers)
        await answer_well(request)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, look, "127.0.0.1", 0, server_context(certificate))
        url = f"wss://127.0.0.1:{server.port}"
        access = ServerAccess(key="a.key", ca_file=certificate)
        result = await call_server(url, SOURCE, options=ClientOptions(speed=0, access=access))
        (tmp_path / "none.pem").write_text("nothing")
        access = ServerAccess(ca_file=tmp_path / "none.pem")
        with pytest.raises(ServerUnreachableError, match="holds no certificates"):
            await call_server(url, SOURCE, options=ClientOptions(access=access))
        nursery.cancel_scope.cancel()
    assert result.failure is None
    assert [value for name, value in shown if name.lower() == b"authorization"] == [b"Bearer a.key"]


async def test_who_is_asked_for_a_key_is_told_how_to_show_one() -> None:
    """401 names the option and the variable; the problem's own words stand before them."""
    body = b'{"detail": "Show a key."}'
    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with bytes_server(answer) as url:
        with pytest.raises(ServerUnreachableError, match=r"401: Show a key\. \(a key is shown by --key-file"):
            await call_server(url, SOURCE, options=QUICK)


async def test_a_certificate_that_is_not_trusted_is_told(certificate: Path) -> None:
    """No call goes to a server that can't show who it is."""

    async def serve_tls(stream: trio.SSLStream[trio.SocketStream]) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(
            partial(trio.serve_ssl_over_tcp, serve_tls, 0, server_context(certificate), host="127.0.0.1")
        )
        port = listeners[0].transport_listener.socket.getsockname()[1]
        with pytest.raises(ServerUnreachableError, match=r"no TLS connection: .*certificate verify failed"):
            await call_server(f"wss://127.0.0.1:{port}", SOURCE, options=ClientOptions())
        nursery.cancel_scope.cancel()


async def test_a_server_that_does_not_answer_tls_is_left_in_time() -> None:
    """The connect timeout holds for every step of the way."""
    async with bytes_server(b"") as url:
        with pytest.raises(ServerUnreachableError, match=r"no answer within 0.2 s"):
            await call_server(url.replace("ws://", "wss://"), SOURCE, options=QUICK)


async def test_a_server_that_breaks_the_protocol_in_mid_call_is_a_lost_connection() -> None:
    """A reserved opcode (RFC 6455, section 5.2) after `ready`."""

    async def break_it(request: WebSocketRequest) -> None:
        connection = await request.accept()
        await connection.send_message('{"type": "ready", "session": "x"}')
        await connection._stream.send_all(b"\x8b\x00")
        await trio.sleep_forever()

    source = MemorySource(AudioFormat(), [AudioMessage(b"\0\0", 0.02 * (i + 1)) for i in range(1000)])
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, break_it, "127.0.0.1", 0, None)
        with trio.fail_after(60):
            result = await call_server(f"ws://127.0.0.1:{server.port}/", source)
        nursery.cancel_scope.cancel()
    assert result.session_id == "x"
    assert result.failure_code == "connection_lost"


async def test_what_is_no_address_is_a_mistake_of_the_program() -> None:
    """The command line checks addresses before; a program that embeds the client gets a plain ValueError."""
    with pytest.raises(ValueError, match="is no WebSocket address"):
        await call_server("http://127.0.0.1/", SOURCE)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")
async def test_an_ipv6_address_stands_in_brackets_in_the_host_header() -> None:
    """RFC 3986, section 3.2.2; a bare ``::1:8080`` is refused by careful servers."""
    hosts: list[bytes] = []

    async def note_host(stream: trio.SocketStream) -> None:
        head = await stream.receive_some()
        hosts.extend(line for line in head.split(b"\r\n") if line.lower().startswith(b"host:"))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, note_host, 0, host="::1"))
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(ServerUnreachableError):
            await call_server(f"ws://[::1]:{port}/", SOURCE, options=QUICK)
        nursery.cancel_scope.cancel()
    assert hosts == [b"Host: [::1]:%d" % port]
