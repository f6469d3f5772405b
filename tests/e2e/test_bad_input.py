"""Bad input to a real server process: each gets its exact answer, and the next caller is served as if nothing were."""

import contextlib
import json
import math
import re
import struct
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected

from voice_agent.audio.files import read_audio

pytestmark = pytest.mark.e2e

START = '{"type":"start"}'


async def messages_until_close(caller: Any) -> tuple[list[dict[str, Any]], int]:
    """Return every message, and the close code."""
    messages = []
    with trio.fail_after(30):
        try:
            while True:
                messages.append(json.loads(await caller.get_message()))
        except ConnectionClosed as closed:
            return messages, closed.reason.code if closed.reason else 0


async def send_all(caller: Any, *messages: str | bytes) -> None:
    for message in messages:
        await caller.send_message(message)


async def is_served(connect: Any, url: str) -> bool:
    """Whether a caller who behaves is served."""
    async with connect(url) as caller:
        await send_all(caller, START, '{"type":"ping","id":"well"}', '{"type":"stop"}')
        messages, code = await messages_until_close(caller)
    return code == 1000 and any(m["type"] == "pong" and m["id"] == "well" for m in messages)


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        pytest.param("{nonsense", "invalid_json", id="malformed JSON"),
        pytest.param('{"type":"ping","type":"stop"}', "invalid_json", id="a key twice"),
        pytest.param('{"type":"ping","id":NaN}', "invalid_json", id="NaN"),
        pytest.param("[" * 40 + "]" * 40, "invalid_json", id="deep nesting"),
        pytest.param('["ping"]', "not_an_object", id="no object"),
        pytest.param('{"type":7}', "not_an_object", id="type is no string"),
        pytest.param('{"type":"dance"}', "unknown_type", id="unknown type"),
        pytest.param('{"type":"ping","loud":true}', "invalid_field", id="unknown field"),
        pytest.param('{"type":"text","text":""}', "invalid_field", id="empty text"),
        pytest.param(START, "already_started", id="start twice"),
    ],
)
async def test_a_bad_message_is_told_and_the_call_goes_on(
    server: Any, connect: Any, sent: str, code: str
) -> None:
    """Not fatal: an error with its code, then the pong, then the ordinary close."""
    async with connect(server.url) as caller:
        await send_all(caller, START, sent, '{"type":"ping","id":"1"}', '{"type":"stop"}')
        messages, close_code = await messages_until_close(caller)
    errors = [m for m in messages if m["type"] == "error"]
    assert [(e["code"], e["fatal"]) for e in errors] == [(code, False)]
    assert [m["type"] for m in messages] == ["ready", "error", "pong", "closed"]
    assert [m["seq"] for m in messages] == [1, 2, 3, 4]
    assert messages[-1]["reason"] == "stopped"
    assert close_code == 1000


async def test_audio_after_stop_is_told(server: Any, assets: Any) -> None:
    """What comes behind `stop` is not heard, and the caller learns it, once."""
    speech = read_audio(assets / "beckett.wav").to_s16le()[:64_000]
    # In one piece behind words that take time to recognise, so that the call can't be over before the audio arrives.
    sent = (
        frame(1, START.encode()) + frame(2, speech) + frame(1, b'{"type":"stop"}') + 2 * frame(2, bytes(640))
    )
    received = (await raw(server, sent)).decode(errors="replace")
    assert re.findall(r'"code": ?"(\w+)"', received) == ["audio_after_stop"]
    assert re.findall(r'"audio_seconds": ?([\d.]+)', received) == ["2.0"]
    assert re.findall(r'"reason": ?"(\w+)"', received) == ["stopped"]


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize(
    ("start", "audio", "code", "close_code"),
    [
        pytest.param({"encoding": "mp3"}, None, "unsupported_format", 4415, id="unknown encoding"),
        pytest.param({"sample_rate": 7999}, None, "unsupported_format", 4415, id="impossible rate"),
        pytest.param({"sample_rate": 192_000}, None, "unsupported_format", 4415, id="too high a rate"),
        pytest.param({"channels": 3}, None, "unsupported_format", 4415, id="impossible channels"),
        pytest.param(
            {"encoding": "opus", "sample_rate": 44_100}, None, "unsupported_format", 4415, id="Opus rate"
        ),
        pytest.param({}, b"\0" * 641, "bad_audio", 4400, id="odd byte count"),
        pytest.param({"channels": 2}, b"\0" * 642, "bad_audio", 4400, id="half a stereo sample"),
        pytest.param({"encoding": "pcm_f32le"}, floats(0, math.nan), "bad_audio", 4400, id="NaN samples"),
        pytest.param(
            {"encoding": "pcm_f32le"}, floats(0, math.inf), "bad_audio", 4400, id="infinite samples"
        ),
        pytest.param({"encoding": "opus"}, b"\xff" * 50, "bad_audio", 4400, id="garbage Opus"),
        pytest.param({}, b"", "bad_audio", 4400, id="empty audio"),
    ],
)
async def test_audio_that_cant_be_heard_ends_the_call(
    server: Any, connect: Any, start: dict[str, Any], audio: bytes | None, code: str, close_code: int
) -> None:
    """Fatal: an error with its code and field, the close record, and the documented close code."""
    async with connect(server.url) as caller:
        await caller.send_message(json.dumps({"type": "start", **start}))
        if audio is not None:
            await caller.send_message(audio)
        messages, got_close_code = await messages_until_close(caller)
    error = next(m for m in messages if m["type"] == "error")
    assert (error["code"], error["fatal"]) == (code, True)
    assert error["field"]
    assert messages[-1]["type"] == "closed"
    assert messages[-1]["reason"] == "caller_error"
    assert messages[-1]["error_code"] == code
    assert got_close_code == close_code
    assert await is_served(connect, server.url)


async def test_ten_unknown_types_are_another_protocol(server: Any, connect: Any) -> None:
    """Nine are told, the tenth closes with 1008."""
    async with connect(server.url) as caller:
        await send_all(caller, START, *['{"type":"hello"}'] * 10)
        messages, close_code = await messages_until_close(caller)
    assert [m["code"] for m in messages if m["type"] == "error"] == ["unknown_type"] * 9 + [
        "too_many_unknown_types"
    ]
    assert close_code == 1008


@pytest.mark.parametrize(
    "query", ["encoding=mp3", "sample_rate=lots", "volume=11", "channels=9", "language=xx"]
)
async def test_a_bad_query_is_refused_before_the_call(server: Any, connect: Any, query: str) -> None:
    """HTTP 400 with a problem document that names the field."""
    with pytest.raises(ConnectionRejected) as refused:
        async with connect(f"{server.url}?{query}"):
            pass
    assert refused.value.status_code == 400
    assert json.loads(refused.value.body)["field"] == query.split("=", maxsplit=1)[0]


@pytest.mark.parametrize(
    ("message", "codes"),
    [
        # A client that still sends when the server has lingered long enough may find its connection reset instead.
        pytest.param("x" * 10_000_000, {1009, 1006}, id="text of 10 MB"),
        pytest.param("x" * 70_000, {1009}, id="text over the limit"),
        pytest.param(bytes(300_000), {1009}, id="binary over the limit"),
    ],
)
async def test_a_message_over_the_limit_closes_with_1009(
    server: Any, connect: Any, message: str | bytes, codes: set[int]
) -> None:
    """The server stops reading at the limit, says so, and serves the next caller."""
    async with connect(server.url) as caller:
        await caller.send_message(START)
        with contextlib.suppress(ConnectionClosed):
            await caller.send_message(message)
        _, close_code = await messages_until_close(caller)
    assert close_code in codes
    assert await is_served(connect, server.url)


async def test_more_messages_than_allowed_close_with_4429(start_server: Any, connect: Any) -> None:
    """Told first; the one over the limit ends the call; what comes behind it is no longer answered."""
    server = start_server(limits__max_messages_per_second=50)
    # In one piece, so that they arrive within a second however busy the machine is.
    received = await raw(server, frame(1, START.encode()) + 60 * frame(2, bytes(2)))
    told = received.decode(errors="replace")
    assert re.findall(r'"code": ?"(\w+)"', told) == ["limit_near", "rate_exceeded"]
    assert re.findall(r'"reason": ?"(\w+)"', told) == ["caller_error"]
    assert b"\x88" in received
    assert (4429).to_bytes(2, "big") in received
    assert await is_served(connect, server.url)


async def test_ten_thousand_tiny_frames_close_with_4429(server: Any, connect: Any) -> None:
    """A flood ends its own call, with its code, and nobody else's."""
    async with connect(server.url) as other, connect(server.url) as caller:
        await send_all(other, START)
        await caller.send_message(START)
        try:
            for _ in range(10_000):
                await caller.send_message(b"\0\0")
        except ConnectionClosed:
            pass
        messages, close_code = await messages_until_close(caller)
        await send_all(other, '{"type":"ping","id":"1"}', '{"type":"stop"}')
        told, other_code = await messages_until_close(other)
    # Whoever still sends a second after the close may find the connection reset, and what was told thrown away with it.
    assert close_code in {4429, 1006}
    if close_code == 4429:
        assert [m["code"] for m in messages if m["type"] == "error"] == ["rate_exceeded"]
    assert '"error_code": "rate_exceeded"' in server.log()
    assert other_code == 1000
    assert any(m["type"] == "pong" for m in told)


UPGRADE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: int, body: bytes) -> bytes:
    """A masked client frame (RFC 6455, section 5.2); a mask of zeros leaves the body as it is."""
    size = len(body)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + body


async def raw(server: Any, *parts: bytes) -> bytes:
    """Send bytes after an upgrade and return everything that comes until the server closes."""
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        with trio.fail_after(30):
            await stream.send_all(UPGRADE)
            received = bytearray(await stream.receive_some(4096))
            for part in parts:
                await stream.send_all(part)
            try:
                while data := await stream.receive_some(4096):
                    received += data
            except trio.BrokenResourceError:
                pass
    return bytes(received)


async def test_invalid_utf8_closes_with_1007(server: Any) -> None:
    """RFC 6455, section 8.1."""
    received = await raw(server, b"\x81\x82\0\0\0\0\xc3\x28")
    assert b"\x88" in received
    assert (1007).to_bytes(2, "big") in received


async def test_an_unmasked_frame_closes_with_1002(server: Any) -> None:
    """RFC 6455, section 5.1."""
    received = await raw(server, b"\x81\x02hi")
    assert (1002).to_bytes(2, "big") in received


async def test_a_handshake_that_never_finishes_is_closed(start_server: Any, connect: Any) -> None:
    """Half a request line, then nothing: the connection is closed at the header timeout."""
    server = start_server(server__header_timeout_seconds=0.5)
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await stream.send_all(UPGRADE[:40])
        with trio.fail_after(60):
            while await stream.receive_some(4096):
                pass
    assert await is_served(connect, server.url)


async def test_a_half_open_connection_is_noticed(start_server: Any, connect: Any) -> None:
    """A peer that is gone without a word answers no ping: its call ends, and is recorded as a hang-up."""
    server = start_server(websocket__ping_interval_seconds=0.3, websocket__read_timeout_seconds=1)
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        await stream.send_all(UPGRADE)
        with trio.fail_after(60):
            try:
                while await stream.receive_some(4096):
                    pass
            except trio.BrokenResourceError:
                pass
    assert await is_served(connect, server.url)
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert '"reason": "hangup"' in server.log()


async def test_a_client_that_never_reads_is_cut_off(start_server: Any, connect: Any) -> None:
    """Pongs fill the socket's buffers; the server waits no longer than its send timeout."""
    server = start_server(server__send_timeout_seconds=0.5, limits__max_messages_per_second=100_000)
    stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    stream.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    async with stream:
        await stream.send_all(UPGRADE)
        await stream.receive_some(200)
        body = json.dumps({"type": "ping", "id": "x" * 60}).encode()
        with trio.fail_after(60):
            await _send_until_cut_off(stream, frame(1, body) * 50)
    assert await is_served(connect, server.url)
    assert 'voice_agent_guard_interventions_total{kind="slow_reader"} 1.0' in await metrics(server)


async def metrics(server: Any) -> str:
    """Return what the server counts."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return b"".join([part async for part in stream]).decode()


async def _send_until_cut_off(stream: trio.SocketStream, data: bytes) -> None:
    while True:
        try:
            await stream.send_all(data)
        except trio.BrokenResourceError:
            return


async def test_silence_before_start_is_closed(start_server: Any, connect: Any) -> None:
    """Neither `start` nor audio: 4408 at the start timeout."""
    server = start_server(websocket__start_timeout_seconds=0.3)
    async with connect(server.url) as caller:
        messages, close_code = await messages_until_close(caller)
    assert [m["code"] for m in messages if m["type"] == "error"] == ["start_timeout"]
    assert close_code == 4408


async def test_an_idle_call_is_closed(start_server: Any, connect: Any) -> None:
    """Nothing for the idle timeout: 4408, with the reason in the close record."""
    server = start_server(session__idle_timeout_seconds=0.3)
    async with connect(server.url) as caller:
        await caller.send_message(START)
        messages, close_code = await messages_until_close(caller)
    assert messages[-1]["reason"] == "idle_timeout"
    assert close_code == 4408


async def test_defaults_and_query_choose_the_same_as_start(server: Any, connect: Any, assets: Any) -> None:
    """A bare binary frame begins a 16 kHz call; a query does what `start` does."""
    speech = read_audio(assets / "beckett.wav").to_s16le()[:64_000]
    for url, first in ((server.url, None), (f"{server.url}?sample_rate=16000&partials=false", None)):
        async with connect(url) as caller:
            await send_all(caller, *([first] if first else []), speech, '{"type":"stop"}')
            messages, close_code = await messages_until_close(caller)
        assert messages[0]["type"] == "ready"
        assert messages[0]["format"] == {"encoding": "pcm_s16le", "sample_rate": 16_000, "channels": 1}
        assert "tried" in next(m["text"] for m in messages if m["type"] == "final").lower()
        assert close_code == 1000
