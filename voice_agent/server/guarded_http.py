"""GuardedH11Protocol and GuardedHTTPStream: HTTP/1.1 only, bounded headers and bodies, an exact answer to bad bytes."""

from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, H11SendableEvent, TaskGroup

from voice_agent.core.errors import InternalError, VoiceAgentError
from voice_agent.core.problem import PROBLEM_TYPE, Problem
from voice_agent.core.request_errors import (
    BodyTooLargeError,
    EarlyDataError,
    HeadersTooLargeError,
    HttpVersionError,
    RequestError,
    ServerClosingError,
    error_of_status,
)
from voice_agent.server.conversation import Answer, Conversation, Headers, Phase
from voice_agent.server.guard_limits import GuardLimits, Intervention
from voice_agent.server.guarded_websocket import GuardedWSStream
from voice_agent.server.handler_tasks import IGNORED, SendMessage
from voice_agent.server.security_headers import completed


class GuardedHTTPStream(HTTPStream):
    """One request and its response; counts the body and ignores what is sent to a peer that has gone."""

    def __init__(self, *arguments: Any, answer: Answer, max_body_bytes: int) -> None:
        super().__init__(*arguments)
        self._answer = answer
        self._max_body_bytes = max_body_bytes
        self._body_bytes = 0

    async def handle(self, event: StreamEvent) -> None:
        """Pass what the peer sent to the application."""
        if isinstance(event, Body):
            self._body_bytes += len(event.data)
            if self._body_bytes > self._max_body_bytes:
                await self._answer(_too_large(self._max_body_bytes))
                return
        await super().handle(event)

    async def app_send(self, message: Any) -> Any:
        """Pass what the application sent to the peer."""
        if self.closed and message is not None:
            return IGNORED
        if message is None and not self.closed and self.state is ASGIHTTPState.REQUEST:
            return await self._answer(InternalError("The request failed; the server's log has the reason."))
        return await super().app_send(message)


class GuardedH11Protocol(H11Protocol):
    """The requests of one connection, one after the other."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        connection_state: ConnectionState,
        ssl: bool,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: SendMessage,
        conversation: Conversation,
    ) -> None:
        super().__init__(app, config, context, task_group, connection_state, ssl, client, server, send)
        self._conversation = conversation
        self._http = h11.Connection(
            h11.SERVER, max_incomplete_event_size=conversation.limits.max_header_bytes
        )
        self.connection = self._http
        self._websocket: GuardedWSStream | None = None
        self._method = b""

    @property
    def has_waiting_bytes(self) -> bool:
        """Whether a part of the next request is here."""
        return bool(self._http.trailing_data[0])

    async def receive(self, data: bytes) -> None:
        """Take what the peer sent."""
        if self._websocket is not None:
            await self._websocket.receive(data)
        else:
            self._http.receive_data(data)
            await self._handle_events()

    async def handle(self, event: Event) -> None:
        """Take what the peer sent, or its end."""
        if isinstance(event, RawData):
            await self.receive(event.data)
        elif isinstance(event, Closed):
            await self._close_stream()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send what a stream answers; here pass all answers but the guard's own."""
        if isinstance(event, Response) and event.status_code >= HTTPStatus.OK:
            event = replace(event, headers=completed(event.headers))
        await super().stream_send(event)

    async def answer(self, error: VoiceAgentError, headers: Headers = ()) -> None:
        """Tell a problem if no response has begun, then close; the application is told that it is over."""
        stream, self.stream = self.stream, None
        may_answer = self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}
        if stream is not None:
            # Nothing of this yields before the socket, so the application's own answer can't come between.
            await stream.handle(StreamClosed(stream_id=STREAM_ID))
        if may_answer:
            await self._conversation.send(self._answer_bytes(Problem.of(error), headers))
            await self._conversation.begin_close()
        else:
            self._conversation.abort()

    def _answer_bytes(self, problem: Problem, headers: Headers) -> bytes:
        body = problem.to_json().encode()
        described = [
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *headers,
            *self.config.response_headers("h11"),
        ]
        described = completed(described)
        events: list[H11SendableEvent] = [
            h11.Response(status_code=problem.status, headers=described, reason=problem.title.encode())
        ]
        if self._method != b"HEAD":
            events.append(h11.Data(data=body))
        events.append(h11.EndOfMessage())
        return b"".join(self._http.send(event) or b"" for event in events)

    async def refuse_crash(self) -> None:
        """Something below the application raised: 400 where no response has begun, close code 1011 on a WebSocket."""
        if self._websocket is not None and self._websocket.is_open:
            await self._websocket.fail(1011, "internal error")
        else:
            await self.answer(RequestError("The request can't be understood."))

    async def shut_down(self, code: int) -> None:
        """The server is closing: a WebSocket ends with ``code``, an unread request with 503, a response when it is sent."""
        if self._websocket is not None:
            await self._websocket.shut_down(code)
        elif self._conversation.phase is Phase.BODY:
            await self.answer(ServerClosingError("The server is shutting down; try again."))

    async def _handle_events(self) -> None:
        conversation = self._conversation
        while conversation.phase not in {Phase.CLOSING, Phase.OVER}:
            if self._http.they_are_waiting_for_100_continue:
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                conversation.hooks.intervened(Intervention.BAD_REQUEST)
                await self.answer(
                    error_of_status(error.error_status_hint)(f"The request can't be understood: {error}.")
                )
                return
            if event is h11.PAUSED:
                await self._await_response()
            elif isinstance(event, h11.Request):
                await self._admit(event)
                if self._websocket is not None:
                    return
            elif self.stream is not None and isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=STREAM_ID, data=bytes(event.data)))
            elif self.stream is not None and event is not h11.NEED_DATA:
                await self.stream.handle(EndBody(stream_id=STREAM_ID))
                if conversation.phase is Phase.BODY:
                    conversation.enter(Phase.RESPONDING)
            else:
                return

    async def _await_response(self) -> None:
        """Wait for the response under way before the next request is looked at, and notice a peer that hangs up."""
        await self.can_read.clear()
        room = self._conversation.limits.max_header_bytes
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._cancel_when_readable, nursery.cancel_scope)
            while room > 0:
                data = await self._conversation.receive()
                if not data:
                    self._conversation.hang_up()
                    break
                self._http.receive_data(data)
                room -= len(data)

    async def _cancel_when_readable(self, scope: trio.CancelScope) -> None:
        await self.can_read.wait()
        scope.cancel()

    async def _admit(self, request: h11.Request) -> None:
        self._method = request.method
        self.connection_state = ConnectionState(self._conversation.settle())
        limits = self._conversation.limits
        refusal = _refusal(request, limits)
        if refusal is not None:
            is_too_large = isinstance(refusal, BodyTooLargeError)
            self._conversation.hooks.intervened(
                Intervention.BODY_TOO_LARGE if is_too_large else Intervention.BAD_REQUEST
            )
            await self.answer(refusal)
            return
        await self.send(Updated(idle=False))
        self._conversation.enter(Phase.BODY, limits.body_timeout_seconds)
        await self._create_stream(request)

    async def _create_stream(self, request: h11.Request) -> None:
        arguments = (
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        if _wants_websocket(request):
            if self._http.trailing_data[0]:
                # RFC 6455, section 4.1: a client sends nothing before the server's handshake.
                await self.answer(EarlyDataError("Wait for the answer to the handshake."))
                return
            self._conversation.enter(Phase.WEBSOCKET)
            self.connection = H11WSConnection(self._http)
            self.stream = self._websocket = GuardedWSStream(
                *arguments, conversation=self._conversation, answer=self.answer
            )
        else:
            self.stream = GuardedHTTPStream(
                *arguments,
                answer=self._answer_for_stream,
                max_body_bytes=self._conversation.limits.max_body_bytes,
            )
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()

    async def _answer_for_stream(self, error: VoiceAgentError, headers: Headers = ()) -> None:
        if isinstance(error, BodyTooLargeError):
            self._conversation.hooks.intervened(Intervention.BODY_TOO_LARGE)
        await self.answer(error, headers)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        if self._http.our_state is not h11.ERROR:
            await super()._send_h11_event(event)

    async def _maybe_recycle(self) -> None:
        if self._http.our_state in {h11.SEND_BODY, h11.ERROR}:
            # A response that breaks off must not look like a whole one.
            await self._close_stream()
            self._conversation.abort()
        else:
            await super()._maybe_recycle()


_AROUND_A_FIELD: Final = len(b": \r\n")
"""Thousands of empty fields are a flood too."""


def _refusal(request: h11.Request, limits: GuardLimits) -> RequestError | None:
    """Return what refuses a request before the application sees it."""
    # h11 bounds what is incomplete; headers that came in one piece are complete at once.
    fields = sum(len(name) + len(value) + _AROUND_A_FIELD for name, value in request.headers)
    if len(request.target) + fields > limits.max_header_bytes:
        return HeadersTooLargeError(f"The headers are over the limit of {limits.max_header_bytes} bytes.")
    if request.http_version not in {b"1.0", b"1.1"}:
        # Also the preface of HTTP/2, which is "PRI * HTTP/2.0" (RFC 9113, section 3.4).
        return HttpVersionError("Speak HTTP/1.1.")
    if not request.target.isascii():
        return RequestError("The address has bytes that are not ASCII; write them as %XX.")
    for name, value in request.headers:
        # h11 has checked that it is a number, and that there is one.
        if name == b"content-length" and int(value) > limits.max_body_bytes:
            return _too_large(limits.max_body_bytes)
    return None


def _too_large(max_body_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is over the limit of {max_body_bytes} bytes.")


def _wants_websocket(request: h11.Request) -> bool:
    if request.method.upper() != b"GET":
        return False
    tokens: dict[bytes, set[bytes]] = {b"upgrade": set(), b"connection": set()}
    for name, value in request.headers:
        if name in tokens:
            tokens[name].update(token.strip().lower() for token in value.split(b","))
    return b"websocket" in tokens[b"upgrade"] and b"upgrade" in tokens[b"connection"]
