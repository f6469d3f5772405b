"""Reaching a server over a real loopback connection, and not reaching it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio_websocket import WebSocketRequest, serve_websocket

from voice_agent.cli.call_audio import AudioMessage, MemorySource
from voice_agent.cli.call_client import ClientOptions, call_server
from voice_agent.cli.call_files import FileSource
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


async def free_port() -> int:
    """Return a port where nobody listens."""
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_nobody_listening_is_told_with_the_address() -> None:
    """Connection refused: our error, the system's reason."""
    url = f"ws://127.0.0.1:{await free_port()}/v1/ws"
    with pytest.raises(ServerUnreachableError, match="can't be reached") as caught:
        await call_server(url, SOURCE, options=QUICK)
    assert url in caught.value.message


async def test_a_name_that_does_not_resolve_is_told() -> None:
    """The reserved top-level domain of RFC 2606 never resolves."""
    with pytest.raises(ServerUnreachableError):
        await call_server("ws://nowhere.invalid/v1/ws", SOURCE, options=QUICK)


@pytest.mark.parametrize("body", [b"", b'{"code": "too_many_calls"}'])
async def test_a_refused_handshake_is_told_with_its_status_and_body(body: bytes) -> None:
    """503 when the server is full, 401 without a token: the caller reads why."""

    async def refuse(request: WebSocketRequest) -> None:
        await request.reject(503, body=body)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, refuse, "127.0.0.1", 0, None)
        with pytest.raises(ServerUnreachableError) as caught:
            await call_server(f"ws://127.0.0.1:{server.port}/v1/ws", SOURCE, options=QUICK)
        nursery.cancel_scope.cancel()
    assert "refused the call with HTTP 503" in caught.value.message
    assert caught.value.message.endswith(body.decode() or "503")


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
        with trio.fail_after(10):
            result = await call_server(f"ws://127.0.0.1:{server.port}/", SOURCE, options=QUICK)
        nursery.cancel_scope.cancel()
    assert result.closed is not None
    assert result.failure_code == "timeout"


async def test_a_call_over_loopback() -> None:
    """The whole way: handshake, audio, final, close."""

    async def serve(request: WebSocketRequest) -> None:
        assert request.path == "/v1/ws?x=1"
        connection = await request.accept()
        await connection.get_message()
        await connection.send_message('{"type": "ready", "session": "x"}')
        count = 0
        while isinstance(await connection.get_message(), bytes):
            count += 1
        await connection.send_message(
            f'{{"type": "final", "text": "{count}", "start": 0, "end": 0.2, "utterance": 1}}'
        )
        await connection.send_message('{"type": "closed", "reason": "stopped"}')

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, serve, "127.0.0.1", 0, None)
        result = await call_server(
            f"ws://127.0.0.1:{server.port}/v1/ws?x=1", SOURCE, options=ClientOptions(speed=0)
        )
        nursery.cancel_scope.cancel()
    assert [final.text for final in result.finals] == ["10"]
    assert (result.failure, result.close_code) == (None, 1000)
