"""Limits of running calls on a real server process: told, then ended with the documented code; the next caller is served."""

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
