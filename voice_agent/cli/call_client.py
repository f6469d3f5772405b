"""A client of protocol v1: one call, from the first handshake to the last close frame, over as many connections as it takes.

    call_server
     ├ record         source -> tape, from the first `ready` on
     └ connections    one after the other, while the call can be resumed
        └ connection
           ├ reader   of trio-websocket
           └ Conversation

A connection that is lost costs nothing that was said: the server has kept what it told, the tape holds what it may not
have heard, and the next connection says where its audio stands in the call.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from http import HTTPStatus
from itertools import cycle
from random import Random, SystemRandom
from typing import Any, Final

import attrs
import trio
from trio_websocket import WebSocketConnection

from voice_agent.cli.call_audio import AudioMessage, AudioSource
from voice_agent.cli.call_backoff import Backoff
from voice_agent.cli.call_connection import check_address, with_connection
from voice_agent.cli.call_conversation import Conversation
from voice_agent.cli.call_messages import number_at
from voice_agent.cli.call_result import (
    CallResult,
    OnMessage,
    OnNews,
    ReceivedMessage,
    Reconnecting,
    Resumed,
    ignore_message,
    ignore_news,
)
from voice_agent.cli.call_state import Call, ClientOptions, Ending
from voice_agent.cli.call_tape import Tape
from voice_agent.core.errors import ServerUnreachableError, TransportBrokenError, UnreadableFileError
from voice_agent.core.units import MS, SECONDS

__all__ = ["CallResult", "ClientOptions", "ReceivedMessage", "call_server", "ignore_message"]

STEADY_SECONDS: Final = 10 * SECONDS
"""A connection that held for so long ends an outage; one that breaks sooner belongs to the outage before it."""

_NEVER: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND})
"""Refusals that the same request gets again."""

Connect = Callable[[str, Callable[[WebSocketConnection], Awaitable[None]], float], Awaitable[None]]
"""Connects to an address within so many seconds, and lends the connection."""


async def call_server(
    urls: str | Sequence[str],
    source: AudioSource,
    *,
    options: ClientOptions | None = None,
    on_message: OnMessage = ignore_message,
    on_news: OnNews = ignore_news,
    hang_up: trio.Event | None = None,
    connect: Connect | None = None,
    chance: Random | None = None,
) -> CallResult:
    """Make one call to the server at ``urls`` (``ws://`` or ``wss://``) and return what came of it.

    Of several addresses the next one is tried when one fails, before the call and in it. A connection that is lost
    is followed by another one that resumes the session, where the server offers that; ``on_news`` is told.

    ``on_message`` is called for every server message in order; it must not block. Setting ``hang_up`` ends the
    call early but properly: ``stop`` is sent and the last final awaited for ``options.hang_up_seconds``; without a
    connection the call ends at once. The source is opened before the connection, so an unreadable file costs the
    server nothing. ``connect`` and ``chance`` stand for the network and for luck in tests.

    Raises:
        ServerUnreachableError: nobody answered, or every server refused the handshake.
        UnreadableFileError: the source can't be opened.
        ValueError: an address is no WebSocket address.
    """
    options = options or ClientOptions()
    addresses = [urls] if isinstance(urls, str) else list(urls)
    for url in addresses:
        check_address(url)
    async with source.open() as audio:
        call = Call(
            source=source,
            options=options,
            on_message=on_message,
            hang_up=trio.Event() if hang_up is None else hang_up,
            tape=Tape(is_live=source.is_live),
        )
        connections = _Connections(
            call=call,
            urls=addresses,
            on_news=on_news,
            connect=connect or _connect_for(call),
            backoff=Backoff(chance or SystemRandom()),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_record, call, audio)
            await connections.run()
            nursery.cancel_scope.cancel()
        if connections.unreachable is not None:
            raise connections.unreachable
        return call.result


async def _record(call: Call, audio: AsyncIterator[AudioMessage]) -> None:
    await call.began.wait()
    with call.reading:
        try:
            await call.tape.record(audio)
        except UnreadableFileError as error:
            # What was read before is still worth hearing: the call ends by `stop`, and the result tells.
            call.result.fail(error.code, error.message)


@attrs.define(kw_only=True)
class _Connections:
    """The connections of a call, one after the other."""

    call: Call
    urls: Sequence[str]
    on_news: OnNews
    connect: Connect
    backoff: Backoff
    unreachable: ServerUnreachableError | None = attrs.field(init=False, default=None)
    """Why there never was a call."""
    _url: str = attrs.field(init=False, default="")
    _lost_at: float | None = attrs.field(init=False, default=None)
    """When the outage began."""
    _ready_at: float | None = attrs.field(init=False, default=None)
    """Of the last connection; None when it did not come so far."""

    async def run(self) -> None:
        """Call, and come back as often as it takes; failures stand in the call's result."""
        urls = cycle(self.urls)
        ending = await self._begin(urls)
        while ending.is_lost and self.call.can_resume:
            returned = await self._come_back(ending, urls)
            if returned is None:
                break
            ending = returned
        result = self.call.result
        result.was_hung_up = self.call.hang_up.is_set()
        result.audio_seconds = self.call.sent.audio_seconds
        if ending.code is not None:
            result.fail(ending.code, ending.message)

    async def _begin(self, urls: "cycle[str]") -> Ending:
        """Make the first connection, with the first server that takes the call."""
        for _ in self.urls:
            self._url = next(urls)
            try:
                ending = await self._converse(self.call.options.connect_timeout_seconds)
            except ServerUnreachableError as error:
                self.unreachable = error
            else:
                self.unreachable = None
                return ending
        return Ending()

    async def _come_back(self, lost: Ending, urls: "cycle[str]") -> Ending | None:
        """Try once more, after a wait; return how that ended, None when it is time to give up."""
        call = self.call
        now = trio.current_time()
        is_new = self._ready_at is not None and now - self._ready_at >= STEADY_SECONDS
        if self._lost_at is None or is_new:
            self._lost_at = now
            self.backoff.reset()
        wait_seconds = self.backoff.next_wait()
        deadline = self._lost_at + call.resume.window_seconds
        if now + wait_seconds >= deadline:
            return None
        self._url = next(urls)
        self.on_news(
            Reconnecting(
                reason=lost.message, attempt=self.backoff.attempts, wait_seconds=wait_seconds, url=self._url
            )
        )
        with trio.move_on_after(wait_seconds):
            await call.hang_up.wait()
        if call.hang_up.is_set():
            return None
        left_seconds = min(call.options.connect_timeout_seconds, deadline - trio.current_time())
        try:
            return await self._converse(left_seconds)
        except ServerUnreachableError as error:
            if error.http_status in _NEVER and len(self.urls) == 1:
                return Ending(error.code, error.message)
            return Ending("connection_lost", error.message, is_lost=True)

    async def _converse(self, connect_timeout_seconds: float) -> Ending:
        """Hold one conversation; hanging up before there is a connection ends the attempt.

        Raises:
            ServerUnreachableError: there was no connection.
        """
        call = self.call
        ending = Ending()
        failure: TransportBrokenError | ServerUnreachableError | None = None
        is_connected = False
        self._ready_at = None
        attempt = trio.CancelScope()

        async def leave_when_hung_up() -> None:
            await call.hang_up.wait()
            if not is_connected:
                attempt.cancel()

        async def hold(connection: WebSocketConnection) -> None:
            nonlocal ending, is_connected
            is_connected = True
            conversation = Conversation(connection=connection, call=call, on_ready=self._note_ready)
            try:
                ending = await conversation.run()
            finally:
                call.tape.ring.park()

        with attempt:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave_when_hung_up)
                try:
                    await self.connect(self._url, hold, connect_timeout_seconds)
                except (TransportBrokenError, ServerUnreachableError) as error:
                    failure = error
                nursery.cancel_scope.cancel()
        if isinstance(failure, ServerUnreachableError):
            raise failure
        if failure is not None and ending.code is None:
            return Ending("connection_lost", failure.message, is_lost=call.result.closed is None)
        return ending

    def _note_ready(self, ready: dict[str, Any], begins_at: float) -> None:
        """Take note that the call goes on, or begins."""
        self._ready_at = trio.current_time()
        if ready.get("resumed") is not True:
            return
        call = self.call
        heard_from = number_at(ready, "heard_ms", 0.0) * MS
        # What the server had settled and told so is not lost, although it may not have kept how far that was.
        lost_seconds = max(0.0, begins_at - max(heard_from, call.settled.seconds))
        call.result.resumes += 1
        call.result.lost_seconds += lost_seconds
        self.on_news(
            Resumed(
                session=str(call.result.session_id),
                url=self._url,
                attempts=self.backoff.attempts,
                away_seconds=self._ready_at - (self._ready_at if self._lost_at is None else self._lost_at),
                resent_seconds=max(0.0, call.tape.ring.end_seconds - max(begins_at, heard_from)),
                lost_seconds=lost_seconds,
            )
        )


def _connect_for(call: Call) -> Connect:
    async def connect(
        url: str, use: Callable[[WebSocketConnection], Awaitable[None]], timeout_seconds: float
    ) -> None:
        await with_connection(
            url,
            use,
            connect_timeout_seconds=timeout_seconds,
            close_timeout_seconds=call.options.close_timeout_seconds,
            access=call.options.access,
            resumes=call.resume.session_id if call.resume.is_offered else None,
        )

    return connect
