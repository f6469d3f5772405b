"""GuardedWSStream: one WebSocket under ASGI, with exact close codes and bounds on everything a peer can do.

Protocol: RFC 6455; the application's side: ASGI's WebSocket specification 2.3.
"""

import base64
import binascii
from collections import abc
from typing import Any, Final

import h11
import structlog
import trio
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request, Response, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, Handshake, WebsocketBuffer, WSStream
from hypercorn.utils import UnexpectedMessageError
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.events import Event as WSProtoEvent
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, generate_accept_token

from voice_agent.core.errors import InternalError
from voice_agent.core.request_errors import (
    BadHandshakeError,
    EarlyDataError,
    HandshakeRefusedError,
    RequestError,
    ServerClosingError,
    WebSocketVersionError,
)
from voice_agent.server.conversation import Answer, Conversation
from voice_agent.server.frame_guard import FrameGuard
from voice_agent.server.guard_limits import Intervention
from voice_agent.server.handler_tasks import IGNORED, HandlerEnd, HandlerStalledError

log = structlog.get_logger(__name__)

KEY_BYTES: Final = 16
SENDABLE_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
"""RFC 6455, section 7.4, and the IANA registry of close codes: what may stand in a close frame."""

_RIGHT_VERSION: Final = ((b"sec-websocket-version", b"13"), (b"upgrade", b"websocket"))
"""Headers of the answer to a wrong version (RFC 6455, section 4.4)."""

_FAILURES: Final = {
    CloseReason.PROTOCOL_ERROR: (Intervention.PROTOCOL_ERROR, "protocol error"),
    CloseReason.INVALID_FRAME_PAYLOAD_DATA: (Intervention.PROTOCOL_ERROR, "text is not UTF-8"),
    CloseReason.MESSAGE_TOO_BIG: (Intervention.MESSAGE_TOO_LARGE, "message too large"),
    CloseReason.POLICY_VIOLATION: (Intervention.CONTROL_FLOOD, "too many control frames"),
}


class GuardedHandshake(Handshake):
    """The opening handshake; declines every extension, permessage-deflate too."""

    def __init__(self, headers: list[tuple[bytes, bytes]], http_version: str) -> None:
        """Check the handshake; raises :class:`RequestError`."""
        values: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            if name.startswith(b"sec-websocket-"):
                values.setdefault(name, []).append(value)
        if any(not value.isascii() for line in values.values() for value in line):
            raise BadHandshakeError("A Sec-WebSocket header has bytes that are not ASCII.")
        # An extension that is never parsed can neither raise nor be accepted.
        super().__init__(
            [(name, value) for name, value in headers if name != b"sec-websocket-extensions"], http_version
        )
        if http_version != "1.1":
            raise BadHandshakeError("A WebSocket needs HTTP/1.1.")
        if values.get(b"sec-websocket-version") != [b"13"]:
            raise WebSocketVersionError("Speak version 13 of the protocol.", field="Sec-WebSocket-Version")
        keys = values.get(b"sec-websocket-key", [])
        if len(keys) != 1 or not _is_key(keys[0]):
            raise BadHandshakeError("Sec-WebSocket-Key must be there once, with 16 bytes in base64.")
        if any(
            name == b"transfer-encoding" or (name == b"content-length" and int(value))
            for name, value in headers
        ):
            raise BadHandshakeError("A handshake has no body.")
        offered = b",".join(values.get(b"sec-websocket-protocol", [])).decode("ascii")
        self.subprotocols = [token for token in map(str.strip, offered.split(",")) if token]

    def response_headers(
        self, subprotocol: str | None, additional: abc.Iterable[tuple[bytes, bytes]]
    ) -> list[tuple[bytes, bytes]]:
        """Return the headers of the 101 answer; raises ValueError for what the peer did not offer."""
        assert self.key is not None  # noqa: S101 - checked by the constructor
        headers = [
            (b"upgrade", b"websocket"),
            (b"connection", b"Upgrade"),
            (b"sec-websocket-accept", generate_accept_token(self.key)),
        ]
        if subprotocol is not None:
            if subprotocol not in (self.subprotocols or []):
                raise ValueError(f"the peer did not offer subprotocol {subprotocol!r}")
            headers.append((b"sec-websocket-protocol", subprotocol.encode()))
        for name, value in additional:
            if name.lower().startswith((b"sec-websocket-", b":")):
                raise ValueError(f"header {name!r} belongs to the handshake")
            headers.append((bytes(name), bytes(value)))
        return headers


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


class GuardedWSStream(WSStream):
    """One WebSocket, from its handshake to its close."""

    def __init__(self, *arguments: Any, conversation: Conversation, answer: Answer) -> None:
        super().__init__(*arguments)
        self._conversation = conversation
        self._answer = answer
        limits = conversation.limits
        self.buffer = WebsocketBuffer(max(limits.max_binary_bytes, limits.max_text_bytes))
        self._close_code = int(CloseReason.ABNORMAL_CLOSURE)
        self._close_reason = ""

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and no close was sent."""
        return self.state is ASGIWebsocketState.CONNECTED and not self.closed

    # What the peer sends

    async def handle(self, event: StreamEvent) -> None:
        """Take the request, or the end."""
        if isinstance(event, Request):
            try:
                self.handshake = GuardedHandshake(event.headers, event.http_version)
            except RequestError as error:
                self._conversation.hooks.intervened(Intervention.BAD_REQUEST)
                is_version = isinstance(error, WebSocketVersionError)
                await self._answer(error, _RIGHT_VERSION if is_version else ())
            else:
                await self._spawn(event)
        elif isinstance(event, StreamClosed):
            self.closed = True
            put, self.app_put = self.app_put, None
            if put is not None:
                await put(
                    {"type": "websocket.disconnect", "code": self._close_code, "reason": self._close_reason}
                )

    async def _spawn(self, request: Request) -> None:
        extensionless = [pair for pair in request.headers if pair[0] != b"sec-websocket-extensions"]
        handshake = self.handshake
        await super().handle(
            Request(
                stream_id=request.stream_id,
                headers=extensionless,
                http_version=request.http_version,
                method=request.method,
                raw_path=request.raw_path,
                state=request.state,
            )
        )
        self.handshake = handshake
        self.scope["subprotocols"] = handshake.subprotocols or []

    async def receive(self, data: bytes) -> None:
        """Take what came after the handshake."""
        if self.state is ASGIWebsocketState.HANDSHAKE:
            self._conversation.hooks.intervened(Intervention.BAD_REQUEST)
            await self._answer(EarlyDataError("Wait for the answer to the handshake."))
            return
        if self.state in {ASGIWebsocketState.HTTPCLOSED, ASGIWebsocketState.RESPONSE} or self.closed:
            return
        connection = self.connection
        connection.receive_data(data)
        for event in connection.events():
            if isinstance(event, Message):
                if connection.state is ConnectionState.OPEN and not await self._deliver(event):
                    return
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._end(event)
                return

    async def _deliver(self, event: Message[Any]) -> bool:
        """Hand a message to the application when it is whole; False when that ended the connection."""
        if event.message_finished and self.buffer.value is None:
            is_bytes = isinstance(event, BytesMessage)
            message = {
                "type": "websocket.receive",
                "bytes": event.data if is_bytes else None,
                "text": None if is_bytes else event.data,
            }
        else:
            self.buffer.extend(event)
            if not event.message_finished:
                return True
            message = self.buffer.to_message()
            self.buffer.clear()
        if self.app_put is None:
            return False
        try:
            await self.app_put(message)
        except HandlerStalledError:
            self._conversation.hooks.intervened(Intervention.HANDLER_STALLED)
            log.warning("handler_stalled", path=self.scope["path"][:200])
            await self.fail(CloseReason.INTERNAL_ERROR, "the application does not read")
            return False
        return True

    async def _end(self, event: CloseConnection) -> None:
        if self.connection.state is ConnectionState.REMOTE_CLOSING:
            self._close_code, self._close_reason = int(event.code), event.reason or ""
            self.state = ASGIWebsocketState.CLOSED
            await self._send_wsproto_event(event.response())
            await self._conversation.begin_close()
        elif self.connection.state is ConnectionState.OPEN:
            intervention, reason = _FAILURES[CloseReason(event.code)]
            self._conversation.hooks.intervened(intervention)
            await self.fail(event.code, reason)
        else:
            # The peer answered our close, or broke the protocol under it: either way it is over.
            self._conversation.hang_up()

    # What the application sends

    async def app_send(self, message: Any) -> Any:
        """Pass a message, or how the application ended, to the peer."""
        if isinstance(message, HandlerEnd):
            return await self._end_handler(message)
        if self.closed or self.state in {ASGIWebsocketState.CLOSED, ASGIWebsocketState.HTTPCLOSED}:
            return IGNORED
        kind = message["type"]
        if kind == "websocket.send" and self.state is ASGIWebsocketState.CONNECTED:
            return await self._send_wsproto_event(_as_event(message))
        if kind == "websocket.close":
            code = message.get("code")
            return await self.close(
                int(CloseReason.NORMAL_CLOSURE if code is None else code), message.get("reason") or ""
            )
        if kind == "websocket.accept" and self.state is ASGIWebsocketState.HANDSHAKE:
            return await self._accept(message)
        if kind.startswith("websocket.http.response.") and self.state in {
            ASGIWebsocketState.HANDSHAKE,
            ASGIWebsocketState.RESPONSE,
        }:
            return await self._respond(message)
        raise UnexpectedMessageError(self.state, kind)

    async def _respond(self, message: Any) -> None:
        await super().app_send(message)
        if self.state is ASGIWebsocketState.HTTPCLOSED:
            await self._conversation.begin_close()

    async def _end_handler(self, end: HandlerEnd) -> None:
        if self.closed:
            return
        if self.state is ASGIWebsocketState.HANDSHAKE:
            if end is HandlerEnd.CANCELLED:
                await self._answer(ServerClosingError("The server is shutting down; try again."))
            else:
                await self._answer(InternalError("The call failed; the server's log has the reason."))
        elif self.state is ASGIWebsocketState.CONNECTED:
            if end is HandlerEnd.CRASHED:
                await self.fail(CloseReason.INTERNAL_ERROR, "internal error")
            elif end is HandlerEnd.CANCELLED:
                await self.close(CloseReason.SERVICE_RESTART, "server is closing")
            else:
                await self.close(CloseReason.NORMAL_CLOSURE, "")
        elif self.state is ASGIWebsocketState.RESPONSE:
            self._conversation.abort()

    async def _accept(self, message: Any) -> None:
        headers = self.handshake.response_headers(  # type: ignore[attr-defined]
            message.get("subprotocol"), message.get("headers") or []
        )
        limits = self._conversation.limits
        guard = FrameGuard(
            max_binary_bytes=limits.max_binary_bytes,
            # Up to the larger limit the application can answer in its own words.
            max_text_bytes=max(limits.max_text_bytes, limits.max_binary_bytes),
            max_control_frames=limits.max_control_frames_per_second,
        )
        self.connection = Connection(ConnectionType.SERVER, [guard])
        # Before the answer is sent, for the peer's first message can be here before the send returns.
        self.state = ASGIWebsocketState.CONNECTED
        try:
            await self.send(Response(stream_id=self.stream_id, status_code=101, headers=headers))
        except h11.LocalProtocolError:
            self.state = ASGIWebsocketState.HANDSHAKE
            raise
        self._conversation.start_companion(self._send_pings)

    async def shut_down(self, code: int) -> None:
        """The server is closing."""
        if self.is_open:
            await self.close(code, "server is closing")
        elif self.state is ASGIWebsocketState.HANDSHAKE:
            await self._answer(ServerClosingError("The server is shutting down; try again."))

    async def close(self, code: int, reason: str) -> None:
        """Close with ``code``, and give the peer the linger time to answer."""
        if self.state is ASGIWebsocketState.HANDSHAKE:
            self.state = ASGIWebsocketState.HTTPCLOSED
            await self._answer(HandshakeRefusedError("The handshake was refused."))
            return
        if code not in SENDABLE_CODES:
            log.error("invalid_close_code", close_code=code)
            code = int(CloseReason.INTERNAL_ERROR)
        self.state = ASGIWebsocketState.CLOSED
        self._close_code, self._close_reason = code, reason
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self._conversation.begin_close(half_close=False, discard=False)

    async def fail(self, code: int, reason: str) -> None:
        """Fail the connection (RFC 6455, section 7.1.7): a close frame, then nothing the peer sends counts."""
        self.state = ASGIWebsocketState.CLOSED
        self.buffer.clear()
        self._close_code, self._close_reason = int(code), reason
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self._conversation.begin_close()

    async def _send_wsproto_event(self, event: WSProtoEvent) -> None:
        try:
            data = self.connection.send(event)
        except LocalProtocolError:
            return  # a close has gone out already; nothing may follow it
        await self._conversation.send(data)

    async def _send_pings(self) -> None:
        conversation, limits = self._conversation, self._conversation.limits
        ping_at = trio.current_time() + limits.ping_interval_seconds
        while True:
            await trio.sleep_until(min(ping_at, conversation.heard_at + limits.read_timeout_seconds))
            now = trio.current_time()
            if now >= conversation.heard_at + limits.read_timeout_seconds:
                conversation.abort(Intervention.PEER_SILENT)
                return
            if now >= ping_at:
                ping_at = now + limits.ping_interval_seconds
                await self._send_wsproto_event(Ping())


def _as_event(message: Any) -> WSProtoEvent:
    data = message.get("bytes")
    if data is not None:
        return BytesMessage(data=bytes(data))
    text = message.get("text")
    if not isinstance(text, str):
        raise TypeError("websocket.send needs bytes or text")
    return TextMessage(data=text)
