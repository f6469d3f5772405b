"""Conformance of the server's WebSockets, after the cases of the Autobahn test suite, against a real process."""

import struct
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10


# Frames and messages


@pytest.mark.parametrize("payload", [b"", b"hello", b"\x00\xff\xfe", b"x" * 125])
def test_pings_are_answered_with_their_payload(server: Any, payload: bytes) -> None:
    """RFC 6455, section 5.5.3."""
    with server.connect() as client:
        client.open()
        client.send_frame(PING, payload)
        assert client.read_frame() == (PONG, payload)


def test_an_unasked_pong_is_ignored(server: Any) -> None:
    """RFC 6455, section 5.5.3."""
    with server.connect() as client:
        client.open()
        client.send_frame(PONG, b"unasked")
        client.assert_echo()


def test_control_frames_may_come_between_fragments(server: Any) -> None:
    """RFC 6455, section 5.4."""
    with server.connect() as client:
        client.open()
        client.send_frame(TEXT, b"one ", fin=False)
        client.send_frame(PING, b"now")
        client.send_frame(CONTINUATION, b"two ", fin=False)
        client.send_frame(CONTINUATION, b"three")
        assert client.read_frame() == (PONG, b"now")
        assert client.read_frame() == (TEXT, b"one two three")


def test_frames_may_come_a_byte_at_a_time(server: Any) -> None:
    """TCP's pieces mean nothing."""
    with server.connect() as client:
        client.open()
        frames = client.frame(TEXT, "größer".encode(), fin=False) + client.frame(CONTINUATION, b"x" * 130)
        for byte in frames:
            client.send(bytes([byte]))
        assert client.read_frame() == (TEXT, "größer".encode() + b"x" * 130)


@pytest.mark.parametrize(
    "options",
    [
        {"opcode": 3},
        {"opcode": 7},
        {"opcode": 11},
        {"opcode": 15},
        {"opcode": TEXT, "rsv": 1},
        {"opcode": TEXT, "rsv": 2},
        {"opcode": BINARY, "rsv": 4},
        {"opcode": PING, "rsv": 7},
        {"opcode": TEXT, "masked": False},
        {"opcode": PING, "masked": False},
        {"opcode": PING, "fin": False},
        {"opcode": PING, "payload": b"x" * 126},
        {"opcode": CLOSE, "payload": b"x"},
        {"opcode": CLOSE, "payload": struct.pack("!H", 1000) + b"x" * 124},
        {"opcode": CONTINUATION},
        {"opcode": CONTINUATION, "fin": False},
    ],
)
def test_protocol_errors_close_with_1002(server: Any, options: dict[str, Any]) -> None:
    """RFC 6455, section 7.4.1; a close frame says so before TCP ends."""
    with server.connect() as client:
        client.open()
        client.send_frame(options.pop("opcode"), options.pop("payload", b""), **options)
        assert client.read_close() == 1002


def test_a_new_message_inside_another_closes_with_1002(server: Any) -> None:
    """RFC 6455, section 5.4: fragments of messages are not interleaved."""
    with server.connect() as client:
        client.open()
        client.send_frame(TEXT, b"one", fin=False)
        client.send_frame(TEXT, b"two")
        assert client.read_close() == 1002


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\xff"],
        [b"\xc0\xaf"],
        [b"\xed\xa0\x80"],
        [b"\xf4\x90\x80\x80"],
        [b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"],
        [b"ok \xe2\x82"],
        [b"\xe2\x82", b"x"],
        [b"\xe2\x82", b""],
    ],
)
def test_text_that_is_no_utf8_closes_with_1007(server: Any, pieces: list[bytes]) -> None:
    """RFC 6455, section 8.1: overlong forms, surrogates, beyond the end, cut off; whole or in fragments."""
    with server.connect() as client:
        client.open()
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            client.send_frame(CONTINUATION if index else TEXT, piece, fin=last)
        assert client.read_close() == 1007


def test_a_character_may_be_split_over_fragments(server: Any) -> None:
    """Fragments of text are cut between bytes, not between characters."""
    with server.connect() as client:
        client.open()
        euro = "€".encode()
        client.send_frame(TEXT, euro[:1], fin=False)
        client.send_frame(CONTINUATION, euro[1:2], fin=False)
        client.send_frame(CONTINUATION, euro[2:])
        assert client.read_frame() == (TEXT, euro)


# Closing


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
)
def test_a_close_of_the_peer_is_answered_with_its_code(server: Any, code: int) -> None:
    """RFC 6455, section 5.5.1; the application is told the code."""
    before = server.counts()["seen"].get(f"disconnect_{code}", 0)
    with server.connect() as client:
        client.open()
        client.send_frame(CLOSE, struct.pack("!H", code) + b"bye")
        assert client.read_close() == code
    assert server.await_count(lambda c: c["seen"].get(f"disconnect_{code}", 0), before + 1) == before + 1


def test_a_close_without_a_code_is_answered_without_one(server: Any) -> None:
    """RFC 6455, section 7.1.5: 1005 stands for none, and is never sent."""
    with server.connect() as client:
        client.open()
        client.send_frame(CLOSE)
        assert client.read_close() == 1005


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_a_close_with_a_code_that_may_not_be_sent_closes_with_1002(server: Any, code: int) -> None:
    """RFC 6455, section 7.4.2."""
    with server.connect() as client:
        client.open()
        client.send_frame(CLOSE, struct.pack("!H", code))
        assert client.read_close() == 1002


def test_a_close_reason_that_is_no_utf8_closes_with_1007(server: Any) -> None:
    """RFC 6455, section 5.5.1."""
    with server.connect() as client:
        client.open()
        client.send_frame(CLOSE, struct.pack("!H", 1000) + b"\xff\xfe")
        assert client.read_close() == 1007


@pytest.mark.parametrize(
    ("asked", "sent"), [(1000, 1000), (1012, 1012), (4429, 4429), (1006, 1011), (70_000, 1011)]
)
def test_a_handlers_close_code_reaches_the_peer(server: Any, asked: int, sent: int) -> None:
    """The code of the application goes out; one that may not be sent becomes 1011. The peer's answer ends it."""
    before = server.counts()["seen"].get(f"after_close_{sent}", 0)
    with server.connect() as client:
        client.open(f"/closes?{asked}")
        opcode, payload = client.read_frame()
        assert (opcode, payload) == (CLOSE, struct.pack("!H", sent) + b"as asked")
        client.send_frame(CLOSE, payload)
        assert client.read_to_end() == b""
    assert server.await_count(lambda c: c["seen"].get(f"after_close_{sent}", 0), before + 1) == before + 1


def test_a_peer_that_does_not_answer_a_close_is_left(server: Any) -> None:
    """The answer to our close is waited for a second at most, whatever else the peer sends."""
    with server.connect() as client:
        client.open("/closes?1000")
        client.send(client.frame(BINARY, b"x" * 640) * 3)
        assert client.read_close() == 1000


def test_what_follows_a_close_is_ignored(server: Any) -> None:
    """RFC 6455, section 5.5.1: nothing counts after a close frame."""
    with server.connect() as client:
        client.open()
        client.send(client.frame(CLOSE, struct.pack("!H", 1000)) + client.frame(TEXT, b"still here?"))
        assert client.read_close() == 1000
