"""The parts of the guard, inside one Trio program: what no peer can bring about from outside."""

import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

from voice_agent.core.errors import AddressInUseError, OperatorError
from voice_agent.server import connection as connection_module
from voice_agent.server.connection import GUARDED_VERSION, UnsupportedHypercornError, check_hypercorn
from voice_agent.server.frame_guard import FrameGuard
from voice_agent.server.guard_limits import GuardHooks, GuardLimits, Intervention
from voice_agent.server.guarded_http import GuardedH11Protocol
from voice_agent.server.guarded_websocket import GuardedWSStream
from voice_agent.server.handler_tasks import HandlerInbox, HandlerStalledError
from voice_agent.server.listening import HttpServer, open_http_server
from voice_agent.settings.schema import ServerSettings, SessionSettings, Settings, WebSocketSettings

NO_RSV = RsvBits(rsv1=False, rsv2=False, rsv3=False)
LIMITS = GuardLimits(close_timeout_seconds=0.5, linger_seconds=0.5, handler_exit_seconds=0.5)


class Counting(GuardHooks):
    """Counts interventions."""

    def __init__(self) -> None:
        self.counts: Counter[Intervention] = Counter()

    def intervened(self, kind: Intervention) -> None:
        self.counts[kind] += 1


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Echo text; never answer ``/undecided``; say "hello" over HTTP."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})
        return
    if scope["path"] == "/undecided":
        await trio.sleep_forever()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        if "text" in message:
            await send({"type": "websocket.send", "text": message["text"]})


@asynccontextmanager
async def serving(limits: GuardLimits = LIMITS) -> AsyncIterator[tuple[HttpServer, Counting]]:
    """A server under the guard, and what it counts."""
    hooks = Counting()
    with trio.fail_after(50):
        async with open_http_server(
            echo, Settings(server=ServerSettings(port=0)), limits=limits, hooks=hooks
        ) as server:
            yield server, hooks


class Caller:
    """A WebSocket client over wsproto."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.wsproto = WSConnection(ConnectionType.CLIENT)

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self.wsproto.send(event))

    async def next_event(self) -> Any:
        while True:
            for event in self.wsproto.events():
                return event
            data = await self.stream.receive_some()
            self.wsproto.receive_data(data or None)


@asynccontextmanager
async def calling(server: HttpServer, path: str = "/") -> AsyncIterator[Caller]:
    """A client that has sent its handshake."""
    stream = await trio.open_tcp_stream(*server.addresses[0])
    async with stream:
        caller = Caller(stream)
        await caller.send(Request(host="localhost", target=path, extensions=[PerMessageDeflate()]))
        yield caller


async def get(server: HttpServer) -> bytes:
    """The whole answer to a request."""
    async with await trio.open_tcp_stream(*server.addresses[0]) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join([part async for part in stream])


# Defects inside a connection


def crash(*_arguments: Any, **_options: Any) -> Any:
    """Stand in for a method with a defect."""
    raise ValueError("a defect in the guard itself")


async def crash_async(*_arguments: Any, **_options: Any) -> None:
    """Stand in for a method with a defect."""
    raise ValueError("a defect in the guard itself")


async def test_a_defect_before_the_request_is_served_answers_400(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a protocol class raises ends its own connection with 400, is logged and counted; the server goes on."""
    async with serving() as (server, hooks):
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(GuardedH11Protocol, "_create_stream", crash_async)
            assert (await get(server)).startswith(b"HTTP/1.1 400")
        assert hooks.counts[Intervention.CRASH] == 1
        assert logs[0]["event"] == "protocol_crashed"
        assert (await get(server)).endswith(b"hello")


async def test_a_defect_inside_a_call_closes_it_with_1011(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on an open WebSocket is 1011."""
    async with serving() as (server, hooks), calling(server) as caller:
        assert isinstance(await caller.next_event(), AcceptConnection)
        monkeypatch.setattr(GuardedWSStream, "_deliver", crash_async)
        await caller.send(TextMessage("x"))
        event = await caller.next_event()
        assert (type(event), event.code) == (CloseConnection, 1011)
        assert hooks.counts[Intervention.CRASH] == 1


async def test_a_defect_in_the_connection_itself_stays_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where no answer is possible any more, the exception ends with the connection."""
    async with serving() as (server, hooks):
        with monkeypatch.context() as patch:
            patch.setattr(connection_module, "parse_socket_addr", crash)
            with pytest.raises(trio.BrokenResourceError):
                await get(server)
        assert hooks.counts[Intervention.CRASH] == 1
        assert (await get(server)).endswith(b"hello")


async def test_a_peer_that_is_gone_before_it_is_served_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system's own errors about a peer are not counted as crashes."""

    def gone(*_arguments: Any) -> Any:
        raise OSError(107, "Transport endpoint is not connected")

    async with serving() as (server, hooks):
        with monkeypatch.context() as patch:
            patch.setattr(connection_module, "parse_socket_addr", gone)
            with pytest.raises(trio.BrokenResourceError):
                await get(server)
        assert not hooks.counts


# Closing


async def test_leaving_ends_each_kind_of_connection() -> None:
    """A call gets 1012, a handshake and an unread request get 503, and what is idle just ends."""
    async with (
        serving() as (server, _),
        calling(server) as call,
        calling(server, "/undecided") as undecided,
        await trio.open_tcp_stream(*server.addresses[0]) as unread,
        await trio.open_tcp_stream(*server.addresses[0]) as idle,
    ):
        await unread.send_all(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        )
        assert (await unread.receive_some()).startswith(b"HTTP/1.1 100")
        assert isinstance(await call.next_event(), AcceptConnection)
        while server.connection_count < 4:  # noqa: ASYNC110 - the server has no event for it
            await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked(0.05)

        async def hang_up_when_told() -> None:
            assert (await call.next_event()).code == 1012
            await call.send(CloseConnection(code=1012))
            refused = await undecided.next_event()
            assert isinstance(refused, RejectConnection)
            assert refused.status_code == 503
            await undecided.stream.aclose()
            assert (await unread.receive_some()).startswith(b"HTTP/1.1 503")
            await unread.aclose()
            assert await idle.receive_some() == b""

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_up_when_told)
            await server._close()


async def test_what_does_not_end_is_cut_off_in_time() -> None:
    """A call whose peer never answers the close is reset when the close timeout is over."""
    limits = attrs.evolve(LIMITS, linger_seconds=60)
    with trio.fail_after(50):
        async with serving(limits) as (server, hooks):
            call = await trio.open_tcp_stream(*server.addresses[0])
            caller = Caller(call)
            await caller.send(Request(host="localhost", target="/"))
            await caller.next_event()
        assert hooks.counts[Intervention.FORCED_CLOSE] == 1
        await call.aclose()


async def test_cancelling_the_server_tells_calls_that_it_restarts() -> None:
    """Cancelled from outside, with no time to wait, the guard still sends its close frames."""
    with trio.CancelScope() as everything:
        async with serving() as (server, _), calling(server) as caller:
            assert isinstance(await caller.next_event(), AcceptConnection)
            everything.cancel()
            with trio.CancelScope(shield=True):
                event = await caller.next_event()
            assert event.code == 1012
            await trio.lowlevel.checkpoint()
    assert everything.cancelled_caught


async def test_stop_accepting_leaves_connections_alone() -> None:
    """Nobody new gets in, while a call goes on; wait_closed returns when it has ended."""
    async with serving() as (server, _), trio.open_nursery() as nursery:
        async with calling(server) as caller:
            assert isinstance(await caller.next_event(), AcceptConnection)
            server.stop_accepting()
            await trio.testing.wait_all_tasks_blocked(0.01)
            with pytest.raises(OSError, match="attempts to connect"):
                await trio.open_tcp_stream(*server.addresses[0])
            await caller.send(TextMessage("still here"))
            assert (await caller.next_event()).data == "still here"
            ended = trio.Event()

            async def wait() -> None:
                await server.wait_closed()
                ended.set()

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not ended.is_set()
        await ended.wait()
        assert server.connection_count == 0


# Starting


async def test_a_port_that_is_taken_is_the_operators_error() -> None:
    """The error names the address and the setting."""
    async with serving() as (server, _):
        taken = Settings(server=ServerSettings(port=server.addresses[0][1]))
        with pytest.raises(AddressInUseError, match=r"127\.0\.0\.1.*server\.port") as caught:
            async with open_http_server(echo, taken):
                pass
    assert caught.value.field == "server.port"


def test_only_the_pinned_hypercorn_is_accepted() -> None:
    """The guard reaches into internals, so another version stops the start and says what to install."""
    check_hypercorn()
    with pytest.raises(UnsupportedHypercornError, match=rf"hypercorn=={GUARDED_VERSION}") as caught:
        check_hypercorn("0.19.0")
    assert isinstance(caught.value, OperatorError)


def test_limits_come_from_the_settings() -> None:
    """Every setting of the server that bounds a connection reaches its limit."""
    limits = GuardLimits.from_settings(
        Settings(
            server=ServerSettings(
                max_connections=7, header_timeout_seconds=1, keep_alive_seconds=2, send_timeout_seconds=3
            ),
            websocket=WebSocketSettings(
                max_binary_bytes=4096, max_text_bytes=512, ping_interval_seconds=4, read_timeout_seconds=5
            ),
            session=SessionSettings(finish_timeout_seconds=6, close_timeout_seconds=8),
        )
    )
    assert (limits.max_connections, limits.header_timeout_seconds, limits.keep_alive_seconds) == (7, 1, 2)
    assert (limits.send_timeout_seconds, limits.handler_stall_seconds) == (3, 3)
    assert (limits.max_binary_bytes, limits.max_text_bytes) == (4096, 512)
    assert (limits.ping_interval_seconds, limits.read_timeout_seconds) == (4, 5)
    assert (limits.handler_exit_seconds, limits.close_timeout_seconds) == (6 + 8 + 5, 8)


# TLS


async def test_a_tls_handshake_that_never_ends_costs_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The guard serves TLS streams too; their handshake has the deadline of headers."""
    hooks = Counting()
    client, server_end = await _socket_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    guarded = connection_module.GuardedTCPServer(
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        {},
        trio.SSLStream(server_end, context, server_side=True),
        LIMITS,
        hooks,
    )
    began = trio.current_time()
    await guarded.run()
    assert trio.current_time() - began == LIMITS.header_timeout_seconds
    assert hooks.counts == {Intervention.HEADER_TIMEOUT: 1}
    await client.aclose()


async def test_a_peer_that_speaks_no_tls_costs_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Plain HTTP on a TLS port, a scanner's bytes: counted, closed, and not logged as a crash."""
    hooks = Counting()
    client, server_end = await _socket_pair()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    guarded = connection_module.GuardedTCPServer(
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        {},
        trio.SSLStream(server_end, context, server_side=True),
        LIMITS,
        hooks,
    )
    await client.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await guarded.run()
    assert hooks.counts == {Intervention.TLS_HANDSHAKE: 1}
    await client.aclose()


async def _socket_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listeners[0] as listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        return client, await listener.accept()


# The inbox


async def test_the_disconnect_always_fits(autojump_clock: trio.testing.MockClock) -> None:
    """A full inbox takes the disconnect, behind what waits, and tells it as often as it is asked."""
    inbox = HandlerInbox(2, stall_seconds=3)
    for index in range(2):
        await inbox.put({"type": "websocket.receive", "bytes": bytes([index])})
    began = trio.current_time()
    with pytest.raises(HandlerStalledError):
        await inbox.put({"type": "websocket.receive", "bytes": b"too many"})
    assert trio.current_time() - began == 3
    gone = {"type": "websocket.disconnect", "code": 1006}
    await inbox.put(gone)
    await inbox.put({"type": "websocket.receive", "bytes": b"after the end"})
    assert [(await inbox.receive())["type"] for _ in range(2)] == ["websocket.receive"] * 2
    assert [await inbox.receive() for _ in range(3)] == [gone] * 3


async def test_a_message_waits_for_room(autojump_clock: trio.testing.MockClock) -> None:
    """A handler that reads in time gets everything, in order."""
    inbox = HandlerInbox(1, stall_seconds=3)
    taken = []

    async def read_slowly() -> None:
        for _ in range(3):
            await trio.sleep(2)
            taken.append((await inbox.receive())["bytes"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_slowly)
        for payload in (b"1", b"2", b"3"):
            await inbox.put({"type": "websocket.receive", "bytes": payload})
    assert taken == [b"1", b"2", b"3"]


async def test_messages_to_a_handler_that_returned_are_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever waits for room wakes up, and later messages vanish."""
    inbox = HandlerInbox(1, stall_seconds=3)
    message = {"type": "websocket.receive", "bytes": b""}
    await inbox.put(message)

    async def leave() -> None:
        await trio.sleep(1)
        inbox.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(leave)
        await inbox.put(message)
        assert trio.current_time() == pytest.approx(1)
    await inbox.put(message)


# Frames


class Decoder:
    """What wsproto shows an extension of the frame at hand."""

    def __init__(self, opcode: Opcode, payload_len: int) -> None:
        self.header = attrs.make_class("Header", ["opcode", "payload_len"])(opcode, payload_len)


async def test_a_header_that_is_seen_twice_is_counted_once() -> None:
    """Wsproto parses a header again when its mask comes later; the limit must not shrink by it."""
    guard = FrameGuard(max_binary_bytes=100, max_text_bytes=50, max_control_frames=5)
    for _ in range(3):
        assert guard.frame_inbound_header(None, Opcode.BINARY, NO_RSV, 100) == NO_RSV  # type: ignore[arg-type]
    assert guard.frame_inbound_header(None, Opcode.BINARY, NO_RSV, 101) is CloseReason.MESSAGE_TOO_BIG  # type: ignore[arg-type]
    assert not guard.offer()


async def test_each_kind_of_message_has_its_limit() -> None:
    """A continuation belongs to the kind that its message began with."""
    guard = FrameGuard(max_binary_bytes=100, max_text_bytes=50, max_control_frames=5)
    assert guard.frame_inbound_header(None, Opcode.TEXT, NO_RSV, 40) == NO_RSV  # type: ignore[arg-type]
    assert guard.frame_inbound_complete(Decoder(Opcode.TEXT, 40), fin=False) is None
    assert guard.frame_inbound_header(None, Opcode.CONTINUATION, NO_RSV, 11) is CloseReason.MESSAGE_TOO_BIG  # type: ignore[arg-type]


async def test_control_frames_are_counted_by_the_second(autojump_clock: trio.testing.MockClock) -> None:
    """As many as allowed may come every second, for ever; one more within a second is a flood."""
    guard = FrameGuard(max_binary_bytes=100, max_text_bytes=50, max_control_frames=5)
    await trio.sleep(1)
    for _ in range(10):
        for _ in range(5):
            assert guard.frame_inbound_complete(Decoder(Opcode.PING, 0), fin=True) is None
        await trio.sleep(1)
    results = [guard.frame_inbound_complete(Decoder(Opcode.PONG, 0), fin=True) for _ in range(6)]
    assert results == [None] * 5 + [CloseReason.POLICY_VIOLATION]
