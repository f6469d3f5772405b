"""What the connection guard answers by itself is told as everything else is: a problem document with its code."""

import json
from http import HTTPStatus
from typing import Any

import pytest

from voice_agent.core import request_errors  # noqa: F401 - its classes are found below their root
from voice_agent.core.errors import VoiceAgentError

pytestmark = pytest.mark.e2e

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: %b\r\nSec-WebSocket-Key: %b\r\n%b\r\n"
)
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def statuses(kind: type[VoiceAgentError] = VoiceAgentError) -> dict[str, int]:
    found = {kind.code: int(kind.status)}
    for child in kind.__subclasses__():
        found |= statuses(child)
    return found


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"\x00\x01\x02\x03\r\n\r\n", "bad_request"),
        (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x\r\n\r\n", "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 40_000, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "headers_too_large"),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", "headers_too_large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "transfer_coding"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http_version"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 65537\r\n\r\n", "body_too_large"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", "body_timeout"),
        (b"GET /raises HTTP/1.1\r\nHost: x\r\n\r\n", "internal_error"),
        (HANDSHAKE % (b"/echo", b"8", KEY, b""), "websocket_version"),
        (HANDSHAKE % (b"/echo", b"13", b"short", b""), "bad_handshake"),
        (HANDSHAKE % (b"/echo", b"13", KEY, b"Sec-WebSocket-Protocol: \xe9\r\n"), "bad_handshake"),
        (HANDSHAKE % (b"/echo", b"13", KEY, b"") + b"\x81\x80\0\0\0\0", "early_data"),
        (HANDSHAKE % (b"/refuses", b"13", KEY, b""), "refused"),
        (HANDSHAKE % (b"/raises_early", b"13", KEY, b""), "internal_error"),
    ],
)
def test_the_guard_tells_problems(server: Any, sent: bytes, code: str) -> None:
    """Status and code are those of the error's class, the type is declared, and the connection ends."""
    with server.connect() as client:
        client.send(sent)
        status, headers, body = client.response()
        assert headers["content-type"] == "application/problem+json"
        assert headers["connection"] == "close"
        told = json.loads(body)
        assert (status, told["code"]) == (statuses()[code], code)
        assert told["title"] == HTTPStatus(status).phrase
        assert (told["type"], told["status"]) == ("about:blank", status)
        assert told["detail"]
        assert client.read_to_end() == b""
