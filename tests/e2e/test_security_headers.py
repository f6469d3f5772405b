"""Every answer of a real server process carries its security headers, whoever wrote it."""

import socket
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
LONG = "Cookie: " + "x" * 40_000 + "\r\n"


def answer_to(server: Any, request: bytes) -> tuple[int, list[tuple[str, str]]]:
    """Send the bytes and return the status and headers of the first answer, names in lower case."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=15) as client:
        client.sendall(request)
        received = b""
        while b"\r\n\r\n" not in received:
            piece = client.recv(65_536)
            assert piece, received
            received += piece
    status, *lines = received.split(b"\r\n\r\n")[0].decode().split("\r\n")
    headers = [line.split(": ", 1) for line in lines]
    return int(status.split()[1]), [(name.lower(), value) for name, value in headers]


def request(method: str, path: str, headers: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(request("GET", "/healthz"), 200, id="health"),
        pytest.param(request("HEAD", "/metrics"), 200, id="HEAD"),
        pytest.param(request("OPTIONS", "/v1/webrtc"), 204, id="OPTIONS"),
        pytest.param(request("GET", "/v1/ws"), 426, id="no upgrade"),
        pytest.param(request("GET", "/nowhere"), 404, id="not found"),
        pytest.param(request("PUT", "/healthz", "Content-Length: 0\r\n"), 405, id="method"),
        pytest.param(request("GET", "/console/../secret"), 404, id="traversal"),
        pytest.param(request("GET", "/healthz", "Origin: https://evil.example\r\n"), 403, id="origin"),
        pytest.param(request("GET", "/metrics", "Via: 1.1 proxy\r\n"), 403, id="scope"),
        pytest.param(request("POST", "/v1/webrtc", "Content-Length: 99999999\r\n"), 413, id="guard: body"),
        pytest.param(request("GET", "/", LONG), 431, id="guard: headers"),
        pytest.param(b"\x00\x01\r\n\r\n", 400, id="guard: no HTTP"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="guard: HTTP/2"),
        pytest.param(request("GET", "/v1/ws?volume=11", UPGRADE), 400, id="WebSocket: query"),
        pytest.param(request("GET", "/other", UPGRADE), 404, id="WebSocket: path"),
        pytest.param(request("GET", "/v1/ws", UPGRADE + "Origin: null\r\n"), 403, id="WebSocket: origin"),
        pytest.param(
            request("GET", "/v1/ws", UPGRADE.replace("13", "12")), 426, id="guard: WebSocket version"
        ),
    ],
)
def test_every_answer_has_them(server: Any, sent: bytes, status: int) -> None:
    """Once each; nothing may be sniffed, framed, embedded, kept or told on, and plain HTTP speaks of no TLS."""
    got, headers = answer_to(server, sent)
    assert got == status
    names = [name for name, _ in headers]
    told = dict(headers)
    assert told["x-content-type-options"] == "nosniff"
    assert told["referrer-policy"] == "no-referrer"
    assert told["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert told["cross-origin-resource-policy"] == "same-origin"
    assert told["cache-control"] == "no-store"
    assert "strict-transport-security" not in told
    assert "server" not in told
    assert all(names.count(name) == 1 for name in told if name != "vary")


@pytest.mark.parametrize("path", ["/", "/console/page.js", "/console/console.css"])
def test_the_page_keeps_its_own_policy(server: Any, path: str) -> None:
    """Its scripts run, and it may be kept, but is asked for each time."""
    status, headers = answer_to(server, request("GET", path))
    told = dict(headers)
    assert status == 200
    assert "script-src 'self'" in told["content-security-policy"]
    assert "frame-ancestors 'none'" in told["content-security-policy"]
    assert told["cache-control"] == "no-cache"
    assert told["cross-origin-resource-policy"] == "same-origin"
    assert [name for name, _ in headers].count("content-security-policy") == 1


def test_behind_a_proxy_s_tls_browsers_are_told_to_stay_with_it(start_server: Any) -> None:
    """As long as the setting says, and only where a trusted proxy says that it was TLS."""
    server = start_server(access__trusted_proxies="127.0.0.1", server__hsts_seconds=3600)
    forwarded = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Host: voice.example\r\nX-Forwarded-Proto: {}\r\n"
    _, headers = answer_to(server, request("GET", "/healthz", forwarded.format("https")))
    assert dict(headers)["strict-transport-security"] == "max-age=3600"
    _, headers = answer_to(server, request("GET", "/healthz", forwarded.format("http")))
    assert "strict-transport-security" not in dict(headers)
