"""What a peer and a handler can do to a WebSocket of the server, against a real process."""

import time
from random import Random
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

pytestmark = pytest.mark.e2e

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
LIMIT = 256 * 1024
HANDSHAKE = (
    b"GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


# The handshake


def test_a_non_ascii_subprotocol_is_answered_400(server: Any) -> None:
    """The header that ends an unguarded server, without any authentication, gets 400 here."""
    with server.connect() as client:
        client.shake(extra=["Sec-WebSocket-Protocol: caf\xe9"])
        assert client.response()[0] == 400


@pytest.mark.parametrize("name", ["Sec-WebSocket-Extensions", "Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_non_ascii_in_any_handshake_header_is_answered_400(server: Any, name: str) -> None:
    """No header of the handshake may hold what is no ASCII."""
    with server.connect() as client:
        client.shake(extra=[f"{name}: caf\xe9"])
        assert client.response()[0] == 400


@pytest.mark.parametrize("version", ["", "8", "13, 13", "x"])
def test_a_wrong_version_is_answered_426_with_the_right_one(server: Any, version: str) -> None:
    """RFC 6455, section 4.4."""
    with server.connect() as client:
        client.shake(version=version)
        status, headers, _ = client.response()
        assert (status, headers["sec-websocket-version"]) == (426, "13")


@pytest.mark.parametrize("key", ["none", "short", "AAAAAAAAAAAAAAAAAAAAAA=", "not base 64!"])
def test_a_missing_or_malformed_key_is_answered_400(server: Any, key: str) -> None:
    """RFC 6455, section 4.2.1: 16 bytes in base64."""
    with server.connect() as client:
        client.shake(key=key)
        assert client.response()[0] == 400


def test_a_handshake_with_a_body_is_answered_400(server: Any) -> None:
    """Bytes of a body could be taken for frames."""
    with server.connect() as client:
        client.shake(extra=["Content-Length: 5"])
        assert client.response()[0] == 400


def test_frames_before_the_answer_are_refused(server: Any) -> None:
    """RFC 6455, section 4.1: a client waits for the answer."""
    with server.connect() as client:
        client.send(HANDSHAKE + client.frame(TEXT, b"early"))
        assert client.response()[0] == 400


def test_frames_before_the_handler_has_decided_are_refused(server: Any) -> None:
    """The same while the application thinks; it is told that its peer is gone."""
    before = server.counts()["seen"].get("undecided", 0)
    with server.connect() as client:
        client.shake("/undecided")
        server.await_count(lambda c: c["seen"].get("undecided", 0), before + 1)
        client.send_frame(TEXT, b"early")
        assert client.response()[0] == 400


def test_an_upgrade_in_http_1_0_is_answered_400(server: Any) -> None:
    """RFC 6455, section 4.1: HTTP/1.1 or higher."""
    with server.connect() as client:
        client.send(HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert client.response()[0] == 400


def test_the_accept_token_is_that_of_the_rfc(server: Any) -> None:
    """RFC 6455, section 1.3, has the example."""
    with server.connect() as client:
        headers = client.open(key="dGhlIHNhbXBsZSBub25jZQ==")
        assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_a_subprotocol_that_was_offered_is_told(server: Any) -> None:
    """The application sees what was offered, in order, over several headers."""
    with server.connect() as client:
        headers = client.open(extra=["Sec-WebSocket-Protocol: b, a", "Sec-WebSocket-Protocol: c"])
        assert headers["sec-websocket-protocol"] == "b"


def test_permessage_deflate_is_declined(server: Any) -> None:
    """Compression is never agreed on, and a compressed frame is a protocol error."""
    with server.connect() as client:
        headers = client.open(extra=["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"])
        assert "sec-websocket-extensions" not in headers
        client.send_frame(TEXT, b"\xcaH\xcd\xc9\xc9\x07\x00", rsv=4)
        assert client.read_close() == 1002


def test_an_upgrade_on_a_kept_connection_works(server: Any) -> None:
    """Reverse proxies send a call down a connection that has served a page."""
    with server.connect() as client:
        client.request("/page")
        assert client.response()[0] == 200
        client.open()
        client.assert_echo()


def test_a_handler_that_refuses_is_answered_403(server: Any) -> None:
    """A close before the accept (ASGI)."""
    with server.connect() as client:
        client.shake("/refuses")
        assert client.response()[0] == 403


def test_a_handler_may_answer_a_handshake_in_http(server: Any) -> None:
    """ASGI's websocket.http.response extension; the connection is closed behind the answer."""
    with server.connect() as client:
        client.shake("/responds")
        status, _, body = client.response()
        assert (status, body) == (401, b"who?")
        assert client.read_to_end() == b""


def test_an_answer_in_http_that_breaks_off_does_not_look_whole(server: Any) -> None:
    """A handler that returns in the middle of its answer breaks the connection."""
    with server.connect() as client:
        client.shake("/responds_by_halves")
        assert b"half" in client.read_to_end()


@pytest.mark.parametrize(
    "path",
    [
        "/raises_early",
        "/returns_unaccepted",
        "/wrong_subprotocol",
        "/header_injection",
        "/extension_header",
        "/nowhere",
    ],
)
def test_a_handler_that_fails_before_it_accepts_is_answered_500(server: Any, path: str) -> None:
    """A defect before the handshake's answer is a defect of the server's, told in HTTP."""
    with server.connect() as client:
        client.shake(path)
        status, headers, _ = client.response()
        assert status == 500
        assert "set-cookie" not in headers


def test_headers_of_the_handler_are_sent(server: Any) -> None:
    """A handler can add headers to the answer."""
    with server.connect() as client:
        assert client.open("/headers")["x-good"] == "yes"


# Handlers


@pytest.mark.parametrize(
    "path", ["/raises", "/raises_group", "/exits", "/stray_cancelled", "/sends_nothing", "/accepts_twice"]
)
def test_a_handler_that_raises_closes_with_1011(server: Any, path: str) -> None:
    """A defect, alone or in a group with a Cancelled, ends its own call with 1011."""
    with server.connect() as client:
        client.open(path)
        client.send_frame(TEXT, b"go")
        assert client.read_close() == 1011


def test_what_a_handler_raises_is_logged(start_server: Any) -> None:
    """The trace of a defect is in the log, also when a Cancelled is beside it."""
    with start_server() as server:
        with server.connect() as client:
            client.open("/raises_group")
            assert client.read_close() == 1011
        assert "hidden?" in server.logged()


def test_a_handler_that_returns_early_closes_with_1000(server: Any) -> None:
    """A handler that is done is done; what its peer sends on is read and thrown away."""
    with server.connect() as client:
        client.open("/returns_early")
        for _ in range(100):
            client.send_frame(BINARY, b"x" * 640)
        assert client.read_close() == 1000


def test_a_handler_that_never_reads_closes_with_1011(server: Any) -> None:
    """Unread messages hold their peer back for a time, then the call ends; nothing deadlocks."""
    before = server.guard("handler_stalled")
    with server.connect() as client:
        client.open("/never_reads")
        for _ in range(60):
            client.send_frame(BINARY, b"x" * 640)
        assert client.read_close() == 1011
    assert server.guard("handler_stalled") == before + 1


def test_a_handler_that_outstays_its_peer_is_cancelled(server: Any) -> None:
    """A handler that goes on after its peer has gone is given its time, then ended."""
    before = server.guard("handler_lingered")
    with server.connect() as client:
        client.open("/slow_to_leave")
    assert server.await_count(lambda c: c["guard"].get("handler_lingered", 0), before + 1) == before + 1


def test_a_handler_that_sends_for_ever_to_nobody_is_cancelled(server: Any) -> None:
    """A handler that floods and never reads ends with its peer, and others are served meanwhile."""
    with server.connect() as client:
        client.open("/floods")
        client.read(100_000)
        client.reset()
    server.assert_well()


def test_a_peer_that_does_not_read_is_cut_off(server: Any) -> None:
    """A send that makes no progress for the send timeout ends in a reset."""
    before = server.guard("slow_reader")
    with server.connect(receive_buffer=4096) as client:
        client.open("/floods")
        assert server.await_count(lambda c: c["guard"].get("slow_reader", 0), before + 1) == before + 1


def test_a_peer_that_does_not_read_its_echo_is_cut_off(server: Any) -> None:
    """The same when the peer goes on sending: memory does not grow with what waits."""
    with server.connect(receive_buffer=4096) as client:
        client.open()
        client.sock.settimeout(0.1)
        deadline = time.monotonic() + 8
        data = client.frame(BINARY, b"x" * 65_536)
        try:
            while time.monotonic() < deadline:
                try:
                    client.sock.sendall(data)
                except TimeoutError:
                    continue
        except (ConnectionResetError, BrokenPipeError):
            return
    pytest.fail("the server went on for ever")


# Limits


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, LIMIT])
def test_messages_up_to_the_limit_pass(server: Any, size: int) -> None:
    """Each way to write a length (RFC 6455, section 5.2), and exactly the limit."""
    with server.connect() as client:
        client.open()
        client.assert_echo(bytes(i & 0xFF for i in range(size)))


def test_an_oversize_frame_is_refused_by_its_header(server: Any) -> None:
    """1009 comes before a byte of the payload does, and TCP is closed within a second or so."""
    with server.connect() as client:
        client.open()
        client.send_frame(BINARY, declared=LIMIT + 1)
        assert client.read_close() == 1009


def test_an_oversize_length_of_63_bits_is_refused(server: Any) -> None:
    """No length makes the server reserve anything."""
    with server.connect() as client:
        client.open()
        client.send_frame(BINARY, declared=2**63 - 1)
        assert client.read_close() == 1009


def test_oversize_fragments_are_refused(server: Any) -> None:
    """Fragments count together."""
    with server.connect() as client:
        client.open()
        client.send_frame(BINARY, b"x" * (LIMIT // 2), fin=False)
        client.send_frame(CONTINUATION, b"x" * (LIMIT // 2), fin=False)
        client.send_frame(CONTINUATION, b"x", fin=True)
        assert client.read_close() == 1009


def test_a_text_frame_of_10_megabytes_gets_1009_and_costs_no_memory(server: Any) -> None:
    """The peer reads the close although it was still sending, and nothing of the frame is kept."""
    before = server.counts()["rss_kib"]
    with server.connect() as client:
        client.open()
        client.send_frame(TEXT, b"x" * 10_000_000)
        assert client.read_close() == 1009
    assert server.counts()["rss_kib"] < before + 2_000


def test_fragments_after_a_whole_message_start_from_nothing(server: Any) -> None:
    """What a message took of the limit is given back when it is whole."""
    with server.connect() as client:
        client.open()
        for _ in range(3):
            client.send_frame(BINARY, b"x" * (LIMIT - 1), fin=False)
            client.send_frame(CONTINUATION, b"x")
            assert client.read_frame() == (BINARY, b"x" * LIMIT)


@pytest.mark.parametrize("opcode", [PING, PONG])
def test_a_flood_of_control_frames_closes_with_1008(server: Any, opcode: int) -> None:
    """A hundred a second are borne."""
    with server.connect() as client:
        client.open()
        client.send(client.frame(opcode, b"") * 300)
        assert client.read_close() == 1008


def test_a_flood_of_empty_fragments_closes_with_1008(server: Any) -> None:
    """A message that never ends and never grows is a flood too."""
    with server.connect() as client:
        client.open()
        client.send_frame(BINARY, b"", fin=False)
        client.send(client.frame(CONTINUATION, b"", fin=False) * 300)
        assert client.read_close() == 1008


# Silence


def test_a_peer_that_answers_pings_lives_and_a_silent_one_is_gone(start_server: Any) -> None:
    """Pongs count as life; without them, and without anything else, a half-open connection ends in time."""
    with start_server({"ping_interval_seconds": 0.1, "read_timeout_seconds": 0.8}) as server:
        with server.connect() as silent, server.connect() as alive:
            silent.open()
            alive.open()
            for _ in range(12):
                assert alive.read_frame() == (PING, b"")
                alive.send_frame(PONG)
            alive.assert_echo_past_pings()
            assert server.await_count(lambda c: c["guard"].get("peer_silent", 0), 1) == 1
            assert silent.read_to_end().replace(b"\x89\x00", b"") == b""
        server.assert_well()


async def test_a_real_client_is_served(shared_server: Any) -> None:
    """trio-websocket opens, sends, is answered, and is told the close code."""
    url = f"ws://127.0.0.1:{shared_server[0].port}"
    with trio.fail_after(60):
        async with open_websocket_url(f"{url}/echo") as websocket:
            await websocket.send_message("hello")
            assert await websocket.get_message() == "hello"
        async with open_websocket_url(f"{url}/closes?4409") as websocket:
            with pytest.raises(ConnectionClosed) as closed:
                await websocket.get_message()
            assert closed.value.reason.code == 4409
            await websocket._stream.aclose()  # the client leaves its socket open when the server closes first


def test_two_hundred_calls_dropped_at_any_moment_leave_nothing(server: Any) -> None:
    """Connections that are dropped in the middle of anything: the fixture compares tasks, files and threads."""
    for index in range(200):
        client = server.connect()
        if index % 4 == 0:
            client.send(HANDSHAKE[: index % len(HANDSHAKE)])
        else:
            client.open()
            frame = client.frame(BINARY, b"x" * 640)
            client.send(frame + frame[: index % len(frame)])
        if index % 2:
            client.reset()
        else:
            client.sock.close()


def test_mutated_bytes_never_end_the_server(server: Any) -> None:
    """Handshakes and frames with bytes changed, left out and doubled: the server answers or closes, and lives on."""
    random = Random(20_260_101)
    with server.connect() as client:
        frames = client.frame(TEXT, b"hello") + client.frame(BINARY, b"x" * 200) + client.frame(PING, b"p")
    for index in range(400):
        seed = bytearray(frames if index % 2 else HANDSHAKE)
        for _ in range(random.randint(1, 6)):
            where = random.randrange(len(seed))
            match random.randrange(3):
                case 0:
                    seed[where] = random.randrange(256)
                case 1:
                    del seed[where : where + random.randint(1, 9)]
                case _:
                    seed[where:where] = random.randbytes(random.randint(1, 9))
        with server.connect() as client:
            if index % 2:
                client.open()
            client.send(bytes(seed))
    assert server.guard("crash") == 0
    assert server.process.poll() is None
