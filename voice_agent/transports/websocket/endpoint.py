"""The ASGI endpoint of ``/v1/ws``: from a handshake to a Transport, and from a close record to a close code.

One task a call reads the wire (:meth:`WebSocketTransport.pump`); the session's tasks write to it. What the ASGI server
lets through (invalid UTF-8, oversize frames, readers that are too slow) is the connection guard's business.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import trio

from voice_agent.audio.encoding import AudioEncoder, open_encoder
from voice_agent.core.commands import CallOptions, Command, Stop
from voice_agent.core.errors import (
    CallerError,
    InternalError,
    InvalidFrameError,
    TransportBrokenError,
)
from voice_agent.core.events import CloseReason, CloseRecord, Fault, Notice, SessionClosed, SessionEvent
from voice_agent.core.frames import AudioFrame
from voice_agent.core.problem import PROBLEM_TYPE, Problem
from voice_agent.core.transport import Transport
from voice_agent.core.units import SECONDS
from voice_agent.settings.schema import WebSocketSettings
from voice_agent.transports.incoming import Incoming
from voice_agent.transports.message_rate import MessageRate
from voice_agent.transports.websocket.protocol import Output, State, WebSocketProtocol
from voice_agent.transports.wire import encode_event

PATH: Final = "/v1/ws"
SUBPROTOCOL: Final = "voice-agent.v1"

MAX_WAITING_FRAMES: Final = 64
MAX_WAITING_COMMANDS: Final = 64
"""A session takes both at once; these only bound what a burst may hold before the wire itself is made to wait."""

CLOSE_DEADLINE_SECONDS: Final = 5 * SECONDS

CLOSE_CODES: Final[Mapping[CloseReason, int]] = {
    CloseReason.STOPPED: 1000,
    CloseReason.HANGUP: 1000,  # nobody is left to read it
    CloseReason.IDLE_TIMEOUT: 4408,
    CloseReason.MAX_DURATION: 4410,
    CloseReason.DRAIN: 1012,
    CloseReason.ENDED_BY_OPERATOR: 4411,
    CloseReason.CALLER_ERROR: 1008,  # unless the fatal error that was told has a code of its own
    CloseReason.INTERNAL_ERROR: 1011,
    CloseReason.CANCELLED: 1012,
    CloseReason.TAKEN_OVER: 4409,
}
"""RFC 6455, section 7.4, and the IANA registry for 1012 (service restart); 4000-4999 are ours."""

Scope = Mapping[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
ServeCall = Callable[[Transport], Awaitable[CloseRecord]]

_DEFAULT_OPTIONS: Final = CallOptions()

_BROKEN: Final = (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel, OSError)
"""How an ASGI server's own receive and send say that there is nobody any more."""


class WebSocketTransport:
    """A caller on a WebSocket; a :class:`~voice_agent.core.transport.Transport`.

    ``protocol`` is fresh; ``receive`` and ``send`` are ASGI's, of a connection that has been accepted. :meth:`pump`
    must run for the transport to hear anything; :func:`open_websocket_transport` sees to it.
    """

    def __init__(
        self, protocol: WebSocketProtocol, receive: Receive, send: Send, *, start_timeout_seconds: float
    ) -> None:
        self._protocol = protocol
        self._receive = receive
        self._send = send
        self._start_deadline = trio.current_time() + start_timeout_seconds
        self._incoming = Incoming(max_frames=MAX_WAITING_FRAMES, max_commands=MAX_WAITING_COMMANDS)
        self._encoder: AudioEncoder | None = None
        self._gone_because = ""
        self._is_closed = False
        self._close_code: int | None = None
        self._fault_close_code: int | None = None
        self._close_reason = ""

    async def recv_audio(self) -> AudioFrame:
        """As :meth:`voice_agent.core.transport.Transport.recv_audio`; queued audio is read before a hang-up is told."""
        return await self._incoming.recv_audio()

    async def recv_text(self) -> Command | Notice:
        """As :meth:`voice_agent.core.transport.Transport.recv_text`; queued commands come before a hang-up is told."""
        return await self._incoming.recv_text()

    async def send_audio(self, frame: AudioFrame) -> None:
        """Send audio as binary messages in the call's own encoding.

        Raises:
            TransportBrokenError: the caller went away.
            InvalidFrameError: the frame has not the call's rate or channel count.
            InternalError: the call's format is not settled yet.
        """
        for message in self._encode(frame):
            await self._send_message({"type": "websocket.send", "bytes": message})

    async def send_text(self, event: SessionEvent) -> None:
        """Send an event as JSON; after :class:`SessionClosed` the connection is closed with the fitting code.

        Raises:
            TransportBrokenError: the caller went away.
        """
        match event:
            case Fault(is_fatal=True, close_code=close_code):
                self._fault_close_code = close_code
            case SessionClosed(record=record):
                self._set_close(record)
        await self._send_message({"type": "websocket.send", "text": encode_event(event)})
        if isinstance(event, SessionClosed):
            await self.aclose()

    async def aclose(self) -> None:
        """Close with the code of the told close record; without one with 1011, for then the session failed."""
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            return
        self._is_closed = True
        self._incoming.close()
        if self._gone_because:
            return
        code = self._close_code or self._fault_close_code or _close_code_of_the_untold()
        with trio.move_on_after(CLOSE_DEADLINE_SECONDS, shield=True):
            await self._send_close(code)

    async def pump(self) -> None:
        """Read the wire until the caller goes away; after :meth:`aclose` only to empty it."""
        for output in self._protocol.opening:
            await self._deliver(output)
        while True:
            message = await self._next_message()
            if message["type"] == "websocket.disconnect":
                self._lose(f"the caller closed the connection ({message.get('code', 1005)})")
                return
            for output in self._understand(message):
                await self._deliver(output)

    async def _next_message(self) -> Message:
        try:
            while self._protocol.state is State.NEGOTIATING:
                with trio.move_on_at(self._start_deadline):
                    return await self._receive()
                for output in self._protocol.start_timed_out():
                    await self._deliver(output)
            return await self._receive()
        except _BROKEN as error:
            return {"type": "websocket.disconnect", "code": f"{type(error).__name__}"}

    def _understand(self, message: Message) -> list[Output]:
        if self._is_closed:
            return []
        now_seconds = trio.current_time()
        text = message.get("text")
        if text is not None:
            return self._protocol.receive_text(text, now_seconds)
        return self._protocol.receive_binary(message.get("bytes") or b"", now_seconds)

    async def _deliver(self, output: Output) -> None:
        if isinstance(output, AudioFrame):
            await self._incoming.put_audio(output)
            return
        await self._incoming.put_text(output)
        if isinstance(output, Stop):
            self._incoming.end_audio()

    def _lose(self, because: str) -> None:
        self._gone_because = because
        self._protocol.hang_up()
        self._incoming.break_off(because)

    def _set_close(self, record: CloseRecord) -> None:
        self._close_code = CLOSE_CODES[record.reason]
        if record.reason is CloseReason.CALLER_ERROR and self._fault_close_code is not None:
            self._close_code = self._fault_close_code
        self._close_reason = record.error_code or str(record.reason)

    def _encode(self, frame: AudioFrame) -> list[bytes]:
        audio_format = self._protocol.audio_format
        if audio_format is None:
            raise InternalError("audio was to be played before the call's format was settled")
        if frame.sample_rate != audio_format.sample_rate:
            raise InvalidFrameError(
                f"a frame at {frame.sample_rate} Hz can't be played into a call at {audio_format.sample_rate} Hz",
                field="sample_rate",
            )
        if self._encoder is None:
            self._encoder = open_encoder(audio_format)
        return self._encoder.encode(frame.to_float32())

    async def _send_message(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if self._gone_because or self._is_closed:
            raise TransportBrokenError(self._gone_because or "the transport is closed")
        try:
            await self._send(message)
        except _BROKEN as error:
            self._lose(f"the connection broke ({error!r})")
            raise TransportBrokenError(self._gone_because) from error

    async def _send_close(self, code: int) -> None:
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": self._close_reason})
        except _BROKEN as error:
            self._lose(f"the connection broke ({error!r})")


def _close_code_of_the_untold() -> int:
    """Return the code for a call that ended without a close record: it was cancelled, or it failed."""
    is_cancelled = trio.current_effective_deadline() == -math.inf
    return CLOSE_CODES[CloseReason.CANCELLED if is_cancelled else CloseReason.INTERNAL_ERROR]


@asynccontextmanager
async def open_websocket_transport(
    receive: Receive, send: Send, settings: WebSocketSettings, protocol: WebSocketProtocol
) -> AsyncIterator[WebSocketTransport]:
    """Run the transport of an accepted connection; it is closed on the way out, whatever happened inside."""
    async with trio.open_nursery() as nursery:
        transport = WebSocketTransport(
            protocol, receive, send, start_timeout_seconds=settings.start_timeout_seconds
        )
        nursery.start_soon(transport.pump, name="websocket pump")
        try:
            yield transport
        finally:
            await transport.aclose()
            nursery.cancel_scope.cancel()


async def handle_websocket(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    settings: WebSocketSettings,
    serve_call: ServeCall,
    defaults: CallOptions = _DEFAULT_OPTIONS,
    messages: MessageRate | None = None,
) -> None:
    """Answer one ASGI connection of type ``websocket``.

    ``serve_call`` holds the call on the given transport and returns when it is over. ``defaults`` are the options of a
    caller who does not choose; ``messages`` holds the call's rate of messages. A handshake for another path is answered with 404, one with a bad query with 400; both
    as problem documents.
    """
    protocol = await _shake_hands(scope, receive, send, settings, defaults, messages)
    if protocol is None:
        return
    async with open_websocket_transport(receive, send, settings, protocol) as transport:
        await serve_call(transport)


async def refuse_handshake(
    scope: Scope,
    send: Send,
    *,
    status: HTTPStatus,
    code: str,
    detail: str,
    field: str | None = None,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Answer a handshake with an HTTP problem (RFC 9457), and with more ``headers`` (lower-case names) if wanted.

    An ASGI server without the extension for HTTP answers gives a bare 403 instead.
    """
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1008, "reason": code})
        return
    problem = Problem(status=int(status), code=code, detail=detail, field=field)
    body = problem.to_json().encode()
    all_headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        *headers,
    ]
    await send({"type": "websocket.http.response.start", "status": int(status), "headers": all_headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _shake_hands(
    scope: Scope,
    receive: Receive,
    send: Send,
    settings: WebSocketSettings,
    defaults: CallOptions,
    messages: MessageRate | None,
) -> WebSocketProtocol | None:
    """Accept the connection; ``None`` when it was refused, or when the caller did not stay for the answer."""
    try:
        message = await receive()
        if message["type"] != "websocket.connect":
            return None
        if scope["path"] != PATH:
            await refuse_handshake(
                scope,
                send,
                status=HTTPStatus.NOT_FOUND,
                code="not_found",
                detail=f"calls are served at {PATH}",
            )
            return None
        try:
            protocol = WebSocketProtocol(settings, defaults, scope["query_string"], messages=messages)
        except CallerError as error:
            await refuse_handshake(
                scope,
                send,
                status=HTTPStatus.BAD_REQUEST,
                code=error.code,
                detail=error.message,
                field=error.field,
            )
            return None
        offered = scope.get("subprotocols") or ()
        await send(
            {"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None}
        )
    except _BROKEN:
        return None
    return protocol
