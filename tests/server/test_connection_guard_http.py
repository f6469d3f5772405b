"""What a peer can do to the HTTP side of the server, against a real process."""

import json
from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_a_non_ascii_path_is_answered_400(server: Any) -> None:
    """Bytes that are no ASCII in the request line cost the peer its connection, and nobody else anything."""
    with server.connect() as client:
        client.send(b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.response()[0] == 400


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20) + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_are_answered_400(server: Any, data: bytes) -> None:
    """Whatever is not HTTP/1.1 gets 400 and an end, with a body that says so in JSON."""
    with server.connect() as client:
        client.send(data)
        status, headers, body = client.response()
        assert (status, headers["connection"]) == (400, "close")
        assert json.loads(body)["code"] == "bad_request"
        assert client.read_to_end() == b""


def test_headers_over_their_limit_are_answered_431(server: Any) -> None:
    """Headers are bounded in bytes."""
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 40_000)
        assert client.response()[0] == 431


def test_http2_is_not_spoken(server: Any) -> None:
    """The preface of HTTP/2 is refused in HTTP/1.1, with 505."""
    with server.connect() as client:
        client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        assert client.response()[0] == 505


def test_an_h2c_upgrade_is_ignored(server: Any) -> None:
    """A request that offers h2c is answered in HTTP/1.1 (RFC 9110, section 7.8), and its connection goes on."""
    with server.connect() as client:
        for _ in range(2):
            client.request(
                "/x",
                headers=["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"],
            )
            assert client.response()[0] == 200


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_headers_that_never_end_cost_the_connection(server: Any, sent: bytes) -> None:
    """A connection without a whole request in time is closed, whatever part of it had come."""
    before = server.guard("header_timeout")
    with server.connect() as client:
        client.send(sent)
        assert client.read_to_end() == b""
    assert server.guard("header_timeout") == before + 1


def test_headers_that_drip_cost_the_connection(server: Any) -> None:
    """One byte now and then does not move the deadline of the headers."""
    with server.connect() as client:
        client.sock.settimeout(0.05)
        closed = False
        for _ in range(100):
            client.send(b"X")
            try:
                closed = client.sock.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionResetError:
                closed = True
            break
        assert closed


def test_an_idle_connection_is_kept_then_closed(server: Any) -> None:
    """Between requests a connection may wait; then it is closed without a word."""
    with server.connect() as client:
        for _ in range(3):
            client.request("/x")
            assert client.response()[0] == 200
        assert client.read_to_end() == b""


def test_the_deadline_of_headers_holds_on_a_kept_connection_too(server: Any) -> None:
    """Half a second request is given no more time than half a first one."""
    before = server.guard("header_timeout")
    with server.connect() as client:
        client.request("/x")
        assert client.response()[0] == 200
        client.send(b"GET / HT")
        assert client.read_to_end() == b""
    assert server.guard("header_timeout") == before + 1


def test_a_declared_body_over_the_limit_is_answered_413(server: Any) -> None:
    """A body that is declared too large is not read, nor asked for with 100 Continue."""
    with server.connect() as client:
        client.request("/x", method="POST", headers=["Content-Length: 65537", "Expect: 100-continue"])
        assert client.response()[0] == 413


def test_a_chunked_body_over_the_limit_is_answered_413(server: Any) -> None:
    """A body that declares no length is counted."""
    with server.connect() as client:
        client.request("/x", method="POST", headers=["Transfer-Encoding: chunked"])
        for _ in range(20):
            client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        status, _, body = client.response()
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")


def test_a_body_of_exactly_the_limit_is_served(server: Any) -> None:
    """The limit is what may be sent, in one piece or in many."""
    with server.connect() as client:
        client.request("/x", method="POST", body=b"x" * 65_536)
        assert json.loads(client.response()[2])["bytes"] == 65_536
        client.request("/x", method="POST", headers=["Transfer-Encoding: chunked"])
        client.send(b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n")
        assert json.loads(client.response()[2])["bytes"] == 2000


def test_expect_continue_is_answered_100(server: Any) -> None:
    """A client that asks before it sends its body is told to go on."""
    with server.connect() as client:
        client.request("/x", method="POST", headers=["Content-Length: 3", "Expect: 100-continue"])
        assert client.response()[0] == 100
        client.send(b"abc")
        assert client.response()[0] == 200


def test_a_slow_body_is_answered_408(server: Any) -> None:
    """A body that does not come in time is no reason to wait on."""
    with server.connect() as client:
        client.request("/x", method="POST", headers=["Content-Length: 10"])
        client.send(b"abc")
        status, _, body = client.response()
        assert (status, json.loads(body)["code"]) == (408, "body_timeout")
        assert client.read_to_end() == b""


def test_a_head_request_that_is_refused_gets_no_body(server: Any) -> None:
    """An answer to HEAD never has a body."""
    with server.connect() as client:
        client.request("/x", method="HEAD", headers=["Content-Length: 65537"])
        client.buffer = client.read_to_end()
        assert client.buffer.startswith(b"HTTP/1.1 413")
        assert client.buffer.endswith(b"\r\n\r\n")


def test_a_handler_that_raises_is_answered_500(server: Any) -> None:
    """A defect in a handler costs its own request."""
    before = server.guard("handler_crashed")
    with server.connect() as client:
        client.request("/raises")
        assert client.response()[0] == 500
    assert server.guard("handler_crashed") == before + 1


def test_a_response_that_breaks_off_does_not_look_whole(server: Any) -> None:
    """When a handler raises in the middle of its response, the connection breaks instead of ending."""
    with server.connect() as client:
        client.request("/raises_midway")
        assert b"half" in client.read_to_end()


def test_a_handler_cannot_split_a_response(server: Any) -> None:
    """A line break in a header of a handler's gets 500; nothing of the header goes out."""
    with server.connect() as client:
        client.request("/bad_header")
        status, headers, _ = client.response()
        assert status == 500
        assert not {"x", "b"} & headers.keys()


def test_pipelined_requests_are_answered_in_order(server: Any) -> None:
    """Requests that come before the answer to the one before wait for it."""
    with server.connect() as client:
        client.request("/slow")
        client.request("/second")
        client.request("/third")
        assert client.response()[2] == b"slow"
        assert json.loads(client.response()[2])["path"] == "/second"
        assert json.loads(client.response()[2])["path"] == "/third"


def test_requests_that_come_one_by_one_wait_for_the_response_under_way(server: Any) -> None:
    """A request is read, and kept, while the one before it is served; a body in pieces too."""
    with server.connect() as client:
        client.request("/slow")
        for byte in b"POST /after HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc":
            client.send(bytes([byte]))
        assert client.response()[2] == b"slow"
        assert json.loads(client.response()[2]) == {"path": "/after", "bytes": 3}


@pytest.mark.parametrize("pipelined", [0, 1])
def test_a_handler_is_told_when_its_peer_hangs_up(server: Any, pipelined: int) -> None:
    """A peer that goes away while it is being served is noticed, also behind requests that wait."""
    before = server.counts()["seen"].get("http_hangs_ended", 0)
    with server.connect() as client:
        client.request("/hangs")
        for _ in range(pipelined):
            client.request("/next")
    assert server.await_count(lambda c: c["seen"].get("http_hangs_ended", 0), before + 1) == before + 1


def test_a_response_that_nobody_reads_is_cut_off(server: Any) -> None:
    """A send that makes no progress for the send timeout ends in a reset, and the handler with it."""
    before = server.guard("slow_reader")
    with server.connect(receive_buffer=4096) as client:
        client.request("/endless")
        assert server.await_count(lambda c: c["guard"].get("slow_reader", 0), before + 1) == before + 1


def test_a_large_response_is_sent_whole(server: Any) -> None:
    """A peer that reads gets everything, however many pieces it takes."""
    with server.connect() as client:
        client.request("/big")
        assert len(client.response()[2]) == 65_536 * 32


def test_a_reset_in_the_middle_of_anything_is_survived(server: Any) -> None:
    """Connections that are dropped with a reset, at every step, leave nothing behind."""
    for data in (
        b"",
        b"GET",
        b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
        b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        client = server.connect()
        client.send(data)
        client.reset()
