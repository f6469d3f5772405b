"""Limits on a real server process: running calls are told, then ended; who asks for too much is refused at the door."""

import contextlib
import http.client
import json
import os
import sys
import wave
from pathlib import Path
from typing import Any

import ifaddr
import pytest
import trio
from trio_websocket import ConnectionClosed

from voice_agent.access.keys import new_key

pytestmark = pytest.mark.e2e

START = '{"type":"start"}'
SECOND = bytes(32_000)
WEBRTC_CALLER = Path(__file__).with_name("webrtc_caller.py")


async def until_close(caller: Any) -> tuple[list[dict[str, Any]], int]:
    """Return every message, and the close code."""
    messages: list[dict[str, Any]] = []
    with trio.fail_after(30):
        try:
            while True:
                messages.append(json.loads(await caller.get_message()))
        except ConnectionClosed as closed:
            return messages, closed.reason.code if closed.reason else 0


def told(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What a caller was told of limits, in order."""
    return [
        (m["type"], m["detail"]["limit"] if m["type"] == "notice" else m.get("code") or m["error_code"])
        for m in messages
        if m["type"] in {"error", "closed"} or (m["type"] == "notice" and m["code"] == "limit_near")
    ]


async def is_served(connect: Any, url: str) -> bool:
    async with connect(url) as caller:
        await caller.send_message(START)
        await caller.send_message('{"type":"stop"}')
        _, code = await until_close(caller)
    return code == 1000


async def test_audio_faster_than_allowed(start_server: Any, connect: Any) -> None:
    """Twenty seconds of audio at once, where ten may come: notice, error, 4429; counted."""
    server = start_server(limits__audio_burst_seconds=10)
    async with connect(server.url) as caller:
        await caller.send_message(START)
        try:
            for _ in range(20):
                await caller.send_message(SECOND)
        except ConnectionClosed:
            pass
        messages, code = await until_close(caller)
    assert messages[0]["limits"]["audio_burst_seconds"] == 10
    assert told(messages) == [
        ("notice", "audio"),
        ("error", "audio_rate_exceeded"),
        ("closed", "audio_rate_exceeded"),
    ]
    assert code == 4429
    assert await is_served(connect, server.url)
    assert 'voice_agent_limit_hits_total{limit="audio"} 1.0' in await metrics(server)


async def test_a_minute_at_once_is_served_by_default(start_server: Any, connect: Any) -> None:
    """What a stalled connection held up, or a short file: heard, and the call goes on."""
    server = start_server()
    async with connect(server.url) as caller:
        await caller.send_message(START)
        for _ in range(58):
            await caller.send_message(SECOND)
        await caller.send_message('{"type":"stop"}')
        messages, code = await until_close(caller)
    assert told(messages) == [("notice", "audio"), ("closed", None)]
    assert code == 1000


async def test_more_text_than_allowed(start_server: Any, connect: Any) -> None:
    """Each text comes back as a final; the one that is too much too, then 4413."""
    server = start_server(limits__max_transcript_chars=1000)
    async with connect(server.url) as caller:
        await caller.send_message(START)
        for _ in range(11):
            await caller.send_message(json.dumps({"type": "text", "text": "x" * 100}))
        messages, code = await until_close(caller)
    assert told(messages) == [
        ("notice", "transcript"),
        ("error", "transcript_too_large"),
        ("closed", "transcript_too_large"),
    ]
    assert sum(m["type"] == "final" for m in messages) == 11
    assert code == 4413
    assert await is_served(connect, server.url)


@pytest.mark.parametrize(
    ("settings", "limit", "error", "close_code"),
    [
        ({"session__max_duration_seconds": 1}, "duration", "max_duration", 4410),
        ({"session__idle_timeout_seconds": 1}, "idle", "idle_timeout", 4408),
    ],
)
async def test_time_that_is_over(
    start_server: Any, connect: Any, settings: dict[str, float], limit: str, error: str, close_code: int
) -> None:
    """Notice, error, close code."""
    server = start_server(**settings)
    async with connect(server.url) as caller:
        await caller.send_message(START)
        messages, code = await until_close(caller)
    assert told(messages) == [("notice", limit), ("error", error), ("closed", error)]
    assert code == close_code
    assert await is_served(connect, server.url)


@pytest.mark.skipif(
    all(ip.ip == "127.0.0.1" or not ip.is_IPv4 for a in ifaddr.get_adapters() for ip in a.ips),
    reason="aiortc's client does not gather loopback addresses, and there is no other IPv4 address here",
)
async def test_time_that_is_over_on_webrtc(start_server: Any, tmp_path: Path) -> None:
    """The data channel tells the same, and then the connection is closed."""
    silence = tmp_path / "silence.wav"
    with wave.open(str(silence), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(bytes(96_000))
    server = start_server(session__max_duration_seconds=4)
    never_said, nothing = os.pipe()
    try:
        done = await trio.run_process(
            [sys.executable, str(WEBRTC_CALLER), f"{server.http}/v1/webrtc", str(silence), "--hold"],
            stdin=never_said,
            capture_stdout=True,
            check=False,
        )
    finally:
        os.close(never_said)
        os.close(nothing)
    messages = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert told(messages) == [("notice", "duration"), ("error", "max_duration"), ("closed", "max_duration")]


async def metrics(server: Any) -> str:
    """Return what the server counts."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join([part async for part in stream]).decode()


# At the door

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def upgrade(key: str) -> bytes:
    """A handshake that stays open."""
    headers = {"Host": "localhost", "X-API-Key": key, **HANDSHAKE}
    lines = ["GET /v1/ws HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


COUNT_EVERYBODY = {"limits__uncounted_networks": ""}


def ask(
    server: Any, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, Any, str | None]:
    """Status, headers, and the code of a refusal."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request(method, path, body=body, headers=named)
        answer = connection.getresponse()
        told = json.loads(answer.read()) if "problem" in (answer.headers["content-type"] or "") else {}
        return answer.status, answer.headers, told.get("code")


def shake(server: Any, **headers: str) -> tuple[int, Any, str | None]:
    return ask(server, "/v1/ws", **HANDSHAKE, **headers)


def offer(server: Any, **headers: str) -> tuple[int, Any, str | None]:
    """A WebRTC offer that is none: 400 says that it was let in."""
    return ask(
        server, "/v1/webrtc", method="POST", body=b"garbage", Content_Type="application/sdp", **headers
    )


def the_refusal(ask_once: Any, *, at_most: int = 100) -> tuple[int, tuple[int, Any, str | None]]:
    """Ask until 429; return how often it was served before, and the answer."""
    for served in range(at_most):
        answer = ask_once()
        if answer[0] == 429:
            return served, answer
    raise AssertionError(f"{at_most} were served")


@pytest.mark.parametrize(
    "ask_once", [lambda s: ask(s, "/"), shake, offer], ids=["page", "handshake", "offer"]
)
async def test_requests_faster_than_allowed(start_server: Any, ask_once: Any) -> None:
    """429 with Retry-After and the RateLimit fields, whatever is asked for; health checks go on; counted."""
    server = start_server(
        limits__requests_per_second_per_address=0.1, limits__requests_burst_per_address=3, **COUNT_EVERYBODY
    )
    first = await trio.to_thread.run_sync(ask_once, server)
    assert first[1]["ratelimit-policy"] == '"requests_per_address";q=3;w=30'
    assert first[1]["ratelimit"] == '"requests_per_address";r=2;t=10'
    served, (_, headers, code) = the_refusal(lambda: ask_once(server))
    assert (served, code) == (2, "rate_limited")
    assert 1 <= int(headers["retry-after"]) <= 10
    assert headers["ratelimit"].startswith('"requests_per_address";r=0;t=')
    for path in ("/healthz", "/readyz"):
        assert ask(server, path)[0] == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("ask_once", "served_status"), [(shake, 101), (offer, 400)], ids=["handshake", "offer"]
)
async def test_new_calls_faster_than_allowed(start_server: Any, ask_once: Any, served_status: int) -> None:
    """429 over both wires, while the page is still served; counted by limit and by cause."""
    server = start_server(
        limits__calls_per_minute_per_address=1, limits__calls_burst_per_address=2, **COUNT_EVERYBODY
    )
    assert ask_once(server)[0] == served_status
    served, (_, headers, code) = the_refusal(lambda: ask_once(server))
    assert (served, code) == (1, "rate_limited")
    assert 1 <= int(headers["retry-after"]) <= 60
    assert '"calls_per_address";q=2;w=120' in ", ".join(headers.get_all("ratelimit-policy"))
    assert ask(server, "/")[0] == 200
    counted = await metrics(server)
    assert 'voice_agent_limit_hits_total{limit="calls_per_address"} 1.0' in counted
    assert 'voice_agent_calls_refused_total{cause="rate_limited"} 1.0' in counted


async def test_more_calls_at_once_than_a_key_may_have(start_server: Any, tmp_path: Path) -> None:
    """The setting for one key, a quota of its own for another, over both wires; a call that ends makes room."""
    plain, own = new_key("plain"), new_key("own")
    keys = tmp_path / "keys"
    keys.write_text(
        f'plain = {{ sha256 = "{plain.sha256}" }}\n'
        f'own = {{ sha256 = "{own.sha256}", quotas = {{ max_calls = 1 }} }}\n'
    )
    keys.chmod(0o600)
    server = start_server(access__keys_file=keys, limits__max_calls_per_key=2)
    for key, allowed in ((plain.text, 2), (own.text, 1)):
        calls = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(allowed)]
        for call in calls:
            await call.send_all(upgrade(key))
            assert b" 101 " in await call.receive_some(4096)
        for ask_once in (shake, offer):
            status, headers, code = ask_once(server, X_API_Key=key)
            assert (status, code, headers["retry-after"]) == (429, "too_many_calls", "5")
        await calls[0].aclose()
        with trio.fail_after(60):
            while shake(server, X_API_Key=key)[0] != 101:  # noqa: ASYNC110 (another process tells nobody)
                await trio.sleep(0.1)
        for call in calls:
            await call.aclose()


async def test_wrong_keys_make_their_address_wait(start_server: Any, tmp_path: Path) -> None:
    """The address behind the trusted proxy; another one goes on; right keys wait too."""
    key = new_key("k")
    keys = tmp_path / "keys"
    keys.write_text(f'k = {{ sha256 = "{key.sha256}" }}\n')
    keys.chmod(0o600)
    server = start_server(
        access__keys_file=keys, access__trusted_proxies="127.0.0.0/8", limits__auth_failures_burst=3
    )
    here, there = "2001:db8::1", "2001:db8:0:1::1"
    for _ in range(3):
        assert shake(server, X_API_Key="wrong", X_Forwarded_For=here)[0] == 401
    status, headers, code = shake(server, X_API_Key=key.text, X_Forwarded_For="2001:db8::2")
    assert (status, code) == (429, "too_many_failures")
    assert int(headers["retry-after"]) >= 1
    assert shake(server, X_API_Key=key.text, X_Forwarded_For=there)[0] == 101
