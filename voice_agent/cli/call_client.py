"""A client of protocol v1: one call, from the handshake to the close frame, in one nursery.

    call_server
     ├ reader    of trio-websocket
     └ _Conversation
        ├ listen   server's messages -> result; when it returns the call is over
        ├ hang up  waits for the event; stops the reading, gives the rest a deadline
        └ speak    start -> ready -> audio at the speed of sound -> stop
           └ read  source -> a few messages ahead

A cancelled ``send_message`` may leave half a frame on the wire and spoil the ``stop`` that follows, so hanging up
never cancels a send: pacing *is* waiting for the hang-up, with the next message's due time as deadline.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

import attrs
import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

from voice_agent.cli.call_audio import AudioMessage, AudioSource
from voice_agent.cli.call_connection import with_connection
from voice_agent.cli.call_messages import (
    PING_MESSAGE,
    STOP_MESSAGE,
    TRANSCRIPT_TYPES,
    ServerMessageError,
    number_at,
    parse_message,
    start_message,
    to_transcript,
)
from voice_agent.cli.call_pace import CallPace
from voice_agent.cli.latency import SendTimes
from voice_agent.cli.server_access import NO_ACCESS, ServerAccess
from voice_agent.core.errors import TransportBrokenError, UnreadableFileError
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.core.units import MS, SECONDS

READ_AHEAD_MESSAGES: Final = 16

ASK_PROGRESS_SECONDS: Final = 50 * MS
"""How often a server that has enough audio is asked how far it has heard."""


@attrs.frozen(kw_only=True)
class ClientOptions:
    """How a call is made.

    ``speed`` 1 sends audio at the speed of sound, 2 twice as fast, 0 as fast as the server hears it. At speeds other
    than 1 the client keeps to the limits that the server's ``ready`` tells, so that nothing is dropped.
    """

    language: str = "en"
    partials: bool = True
    speed: float = 1.0
    access: ServerAccess = NO_ACCESS
    connect_timeout_seconds: float = 10 * SECONDS
    """Address, TCP, TLS and handshake together."""
    ready_timeout_seconds: float = 10 * SECONDS
    """From ``start`` to ``ready``."""
    send_timeout_seconds: float = 10 * SECONDS
    """A server that takes no audio for so long is gone."""
    finish_timeout_seconds: float = 30 * SECONDS
    """From ``stop`` to the close frame; the server may have ten seconds of audio to hear still."""
    hang_up_seconds: float = 3 * SECONDS
    """From Ctrl-C to the close frame."""
    close_timeout_seconds: float = 2 * SECONDS
    """The WebSocket closing handshake."""


@attrs.frozen(kw_only=True)
class ReceivedMessage:
    """A server's message and when it came.

    ``received_at`` is on Trio's clock; ``latency_seconds`` is set for partials and finals (see ``latency.py``).
    """

    message: dict[str, Any]
    received_at: float
    transcript: TranscriptResult | None = None
    latency_seconds: float | None = None


@attrs.define(kw_only=True)
class CallResult:
    """What came of a call.

    ``failure_code`` and ``failure`` are set when it ended otherwise than by our own ``stop``: the server's error
    code or close reason, ``connection_lost``, ``timeout``, ``bad_server_message`` or ``unreadable_file``.
    """

    session_id: str | None = None
    finals: list[TranscriptResult] = attrs.field(factory=list)
    final_latencies_seconds: list[float] = attrs.field(factory=list)
    partial_latencies_seconds: list[float] = attrs.field(factory=list)
    notices: list[dict[str, Any]] = attrs.field(factory=list)
    errors: list[dict[str, Any]] = attrs.field(factory=list)
    closed: dict[str, Any] | None = None
    """The server's close record."""
    close_code: int | None = None
    audio_seconds: float = 0.0
    """Audio that was sent."""
    was_hung_up: bool = False
    failure_code: str | None = None
    failure: str | None = None

    def fail(self, code: str, message: str) -> None:
        """Record why the call ended; the first reason stays, the later ones follow from it."""
        if self.failure_code is None:
            self.failure_code, self.failure = code, message


OnMessage = Callable[[ReceivedMessage], None]


def ignore_message(_received: ReceivedMessage) -> None:
    """For callers who only want the result."""


async def call_server(
    url: str,
    source: AudioSource,
    *,
    options: ClientOptions | None = None,
    on_message: OnMessage = ignore_message,
    hang_up: trio.Event | None = None,
) -> CallResult:
    """Make one call to the server at ``url`` (``ws://`` or ``wss://``) and return what came of it.

    ``on_message`` is called for every server message in order; it must not block. Setting ``hang_up`` ends the
    call early but properly: ``stop`` is sent and the last final awaited for ``options.hang_up_seconds``. The
    source is opened before the connection, so an unreadable file costs the server nothing.

    Raises:
        ServerUnreachableError: nobody answered, or the server refused the handshake.
        UnreadableFileError: the source can't be opened.
    """
    options = options or ClientOptions()
    async with source.open() as audio:
        result = CallResult()
        try:
            await with_connection(
                url,
                partial(
                    converse,
                    source=source,
                    audio=audio,
                    result=result,
                    options=options,
                    on_message=on_message,
                    hang_up=hang_up,
                ),
                connect_timeout_seconds=options.connect_timeout_seconds,
                close_timeout_seconds=options.close_timeout_seconds,
                access=options.access,
            )
        except TransportBrokenError as error:
            result.fail("connection_lost", error.message)
        return result


async def converse(
    connection: WebSocketConnection,
    *,
    source: AudioSource,
    audio: AsyncIterator[AudioMessage],
    result: CallResult,
    options: ClientOptions,
    on_message: OnMessage = ignore_message,
    hang_up: trio.Event | None = None,
) -> None:
    """Hold the call on an open connection and fill ``result``; the connection is the caller's to close."""
    conversation = _Conversation(
        connection=connection,
        source=source,
        options=options,
        on_message=on_message,
        result=result,
        hang_up=trio.Event() if hang_up is None else hang_up,
    )
    await conversation.run(audio)


@attrs.define(kw_only=True)
class _Conversation:
    connection: WebSocketConnection
    source: AudioSource
    options: ClientOptions
    on_message: OnMessage
    result: CallResult
    hang_up: trio.Event
    _heard_seconds: float = attrs.field(init=False, default=0.0)
    """How far the server has heard, as its last message told."""
    _pace: CallPace = attrs.field(init=False, factory=partial(CallPace.from_limits, None))
    _ready: trio.Event = attrs.field(init=False, factory=trio.Event)
    _sent: SendTimes = attrs.field(init=False, factory=SendTimes)
    _reading: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    _whole: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    """Its deadline moves: none while there is audio to send, then what is left of the call is timed."""
    _waits_since: str = attrs.field(init=False, default="")
    """What began the wait that the deadline ends."""

    async def run(self, audio: AsyncIterator[AudioMessage]) -> None:
        with self._whole:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_hang_up)
                nursery.start_soon(self._speak, audio)
                await self._listen()
                nursery.cancel_scope.cancel()
        if self._whole.cancelled_caught:
            self.result.fail("timeout", f"the server did not end the call in time after {self._waits_since}")
        self.result.was_hung_up = self.hang_up.is_set()
        self.result.audio_seconds = self._sent.audio_seconds
        if self.connection.closed is not None:
            self.result.close_code = self.connection.closed.code

    async def _listen(self) -> None:
        """Take the server's messages until the connection is closed, or the server talks nonsense."""
        while True:
            try:
                raw = await self.connection.get_message()
            except ConnectionClosed as error:
                if self.result.closed is None:
                    self.result.fail(
                        "connection_lost",
                        f"the server went away without a close record: {_closing(error.reason)}",
                    )
                return
            try:
                received = self._take(parse_message(raw), trio.current_time())
            except ServerMessageError as error:
                self.result.fail(error.code, error.message)
                return
            self.on_message(received)

    def _take(self, message: dict[str, Any], received_at: float) -> ReceivedMessage:
        result = self.result
        self._heard_seconds = max(self._heard_seconds, number_at(message, "position_ms", 0) * MS)
        match message["type"]:
            case "ready":
                result.session_id = message.get("session")
                self._pace = CallPace.from_limits(message.get("limits"))
                self._ready.set()
            case "notice":
                result.notices.append(message)
            case "error":
                result.errors.append(message)
                is_answer_to_start = not self._ready.is_set()
                if message.get("fatal") or is_answer_to_start:
                    result.fail(str(message.get("code")), str(message.get("message")))
                if is_answer_to_start:
                    # Nothing but another `start` would help, and we have no other one.
                    self._whole.cancel()
            case "closed":
                result.closed = message
                reason = str(message.get("reason"))
                if reason != "stopped":
                    result.fail(reason, f"the server ended the call: {reason}")
                self._expect_end_within(self.options.close_timeout_seconds, "its close record")
            case kind if kind in TRANSCRIPT_TYPES:
                return self._take_transcript(message, received_at)
            case _:
                pass
        return ReceivedMessage(message=message, received_at=received_at)

    def _take_transcript(self, message: dict[str, Any], received_at: float) -> ReceivedMessage:
        transcript = to_transcript(message)
        sent_at = self._sent.sent_at(transcript.end)
        latency = None if sent_at is None else received_at - sent_at
        latencies = self.result.partial_latencies_seconds
        if transcript.is_final:
            self.result.finals.append(transcript)
            latencies = self.result.final_latencies_seconds
        if latency is not None:
            latencies.append(latency)
        return ReceivedMessage(
            message=message, received_at=received_at, transcript=transcript, latency_seconds=latency
        )

    async def _watch_hang_up(self) -> None:
        await self.hang_up.wait()
        self._reading.cancel()
        self._expect_end_within(self.options.hang_up_seconds, "hanging up")

    async def _speak(self, audio: AsyncIterator[AudioMessage]) -> None:
        options = self.options
        start = start_message(self.source.audio_format, language=options.language, partials=options.partials)
        if not await self._send(start):
            return
        with trio.move_on_after(options.ready_timeout_seconds) as waiting:
            await self._ready.wait()
        if waiting.cancelled_caught:
            self.result.fail(
                "timeout", f"the server did not answer `start` within {options.ready_timeout_seconds:g} s"
            )
            self._whole.cancel()
            return
        ahead, messages = trio.open_memory_channel[AudioMessage](READ_AHEAD_MESSAGES)
        with messages:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, audio, ahead)
                is_open = await self._stream(messages)
                self._reading.cancel()
        if is_open and await self._send(STOP_MESSAGE):
            self._expect_end_within(options.finish_timeout_seconds, "`stop`")

    async def _read(
        self, audio: AsyncIterator[AudioMessage], ahead: "trio.MemorySendChannel[AudioMessage]"
    ) -> None:
        with ahead, self._reading:
            try:
                async for message in audio:
                    await ahead.send(message)
            except UnreadableFileError as error:
                # What was read before is still worth hearing: the call ends by `stop`, and the result tells.
                self.result.fail(error.code, error.message)

    async def _stream(self, messages: "trio.MemoryReceiveChannel[AudioMessage]") -> bool:
        """Send the audio, each message at its due time; return whether the connection is still open."""
        speed = 1 if self.source.is_live else self.options.speed
        began_at = trio.current_time()
        sent_at = began_at - self._pace.between_messages
        start_seconds = 0.0
        async for message in messages:
            if not self.source.is_live:
                due = began_at + start_seconds / speed if speed else began_at
                if speed != 1:
                    due = max(due, self._pace.due(message.end_seconds, began_at=began_at, sent_at=sent_at))
                with trio.move_on_at(due):
                    await self.hang_up.wait()
                if speed != 1 and not await self._wait_for_room(message.end_seconds):
                    return False
            if self.hang_up.is_set():
                break
            sent_at = trio.current_time()
            # Before the send: an answer may be read before the sending task runs again.
            self._sent.add(message.end_seconds, sent_at)
            if not await self._send(message.data):
                return False
            start_seconds = message.end_seconds
        return True

    async def _wait_for_room(self, end_seconds: float) -> bool:
        """Wait until audio up to ``end_seconds`` may be sent; return whether the call goes on.

        Pings ask how far the server has heard: silence alone gives no messages that would tell.
        """
        heard_seconds = self._heard_seconds
        gives_up_at = trio.current_time() + self.options.send_timeout_seconds
        while end_seconds > self._heard_seconds + self._pace.max_ahead and not self.hang_up.is_set():
            if self._heard_seconds > heard_seconds:
                heard_seconds = self._heard_seconds
                gives_up_at = trio.current_time() + self.options.send_timeout_seconds
            if trio.current_time() >= gives_up_at:
                self._fail_stalled()
                return False
            if not await self._send(PING_MESSAGE):
                return False
            with trio.move_on_after(ASK_PROGRESS_SECONDS):
                await self.hang_up.wait()
        return True

    async def _send(self, data: str | bytes) -> bool:
        """Send one message; return False when the connection is over (``_listen`` finds out why)."""
        try:
            with trio.fail_after(self.options.send_timeout_seconds):
                await self.connection.send_message(data)
        except ConnectionClosed:
            return False
        except trio.TooSlowError:
            self._fail_stalled()
            return False
        return True

    def _fail_stalled(self) -> None:
        self.result.fail("timeout", f"the server took no audio for {self.options.send_timeout_seconds:g} s")
        self._whole.cancel()

    def _expect_end_within(self, seconds: float, since: str) -> None:
        deadline = trio.current_time() + seconds
        if deadline < self._whole.deadline:
            self._whole.deadline = deadline
            self._waits_since = since


def _closing(reason: CloseReason | None) -> str:
    if reason is None:
        return "no close frame"
    return f"close code {reason.code}" + (f" ({reason.reason})" if reason.reason else "")
