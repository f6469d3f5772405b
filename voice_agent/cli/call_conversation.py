"""One connection of a call: protocol v1 from ``start`` to the close frame, or to the loss of the connection.

    Conversation
     ├ listen   server's messages -> result; when it returns the conversation is over
     ├ hang up  waits for the event; stops the reading, gives the rest a deadline
     ├ watch    asks a server that has gone silent whether it is there
     └ speak    start -> ready -> audio at the speed of sound -> stop

A cancelled ``send_message`` may leave half a frame on the wire and spoil the ``stop`` that follows, so hanging up
never cancels a send: pacing *is* waiting for the hang-up, with the next message's due time as deadline.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import attrs
import trio
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection

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
from voice_agent.cli.call_result import ReceivedMessage
from voice_agent.cli.call_state import Call, Ending
from voice_agent.cli.call_tape import Tape
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.core.units import MS

ASK_PROGRESS_SECONDS: Final = 50 * MS
"""How often a server that has enough audio is asked how far it has heard."""

NOT_NOW: Final = "resume_unavailable"
"""The one answer to a wish to resume that may be another one in a moment, or elsewhere (docs/errors.md)."""

LOST_CLOSE_CODES: Final = frozenset({1001, 1006, 1011, 1012})
"""RFC 6455, section 7.4.1, and the IANA registry: the peer goes away, no close frame, a defect, a restart. Any other code
is a peer that means to end the call."""


@attrs.define(kw_only=True)
class Conversation:
    """Hold the call on an open connection, which is the caller's to close; ``on_ready`` is told ``ready`` first."""

    connection: WebSocketConnection
    call: Call
    on_ready: Callable[[dict[str, Any], float], None]
    """Called with the message, and where in the call's audio this connection begins."""
    ending: Ending = attrs.field(init=False, factory=Ending)
    _begins_at: float = attrs.field(init=False, default=0.0)
    """Where in the call's audio this connection begins, in seconds."""
    _late_until: float = attrs.field(init=False, default=0.0)
    """Audio up to here should have been sent already."""
    _asks_to_resume: bool = attrs.field(init=False, default=False)
    _heard_seconds: float = attrs.field(init=False, default=0.0)
    """How far the server has heard, as its last message told."""
    _told_at: float = attrs.field(init=False, factory=trio.current_time)
    """When the server said anything."""
    _pace: CallPace = attrs.field(init=False, factory=partial(CallPace.from_limits, None))
    _ready: trio.Event = attrs.field(init=False, factory=trio.Event)
    _whole: trio.CancelScope = attrs.field(init=False, factory=trio.CancelScope)
    """Its deadline moves: none while there is audio to send, then what is left of the call is timed."""
    _waits_since: str = attrs.field(init=False, default="")
    """What began the wait that the deadline ends."""

    async def run(self) -> Ending:
        """Converse until the call is over or the connection is lost; return how it ended."""
        call = self.call
        ring = call.tape.ring
        self._begins_at = ring.rewind()
        self._late_until = ring.end_seconds if call.source.is_live else call.sent.audio_seconds
        self._asks_to_resume = call.can_resume
        with self._whole:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_hang_up)
                nursery.start_soon(self._watch_silence)
                nursery.start_soon(self._speak)
                await self._listen()
                nursery.cancel_scope.cancel()
        if self._whole.cancelled_caught:
            self._end("timeout", f"the server did not end the call in time after {self._waits_since}")
        call.result.close_code = None if self.connection.closed is None else self.connection.closed.code
        return self.ending

    async def _listen(self) -> None:
        """Take the server's messages until the connection is closed, or the server talks nonsense."""
        while True:
            try:
                raw = await self.connection.get_message()
            except ConnectionClosed as error:
                if self.call.result.closed is None:
                    code = 1006 if error.reason is None else error.reason.code
                    self._end(
                        "connection_lost",
                        f"the server went away without a close record: {_closing(error.reason)}",
                        is_lost=code in LOST_CLOSE_CODES,
                    )
                return
            self._told_at = trio.current_time()
            try:
                message = parse_message(raw)
                if message["type"] != "ready" and not self.call.resume.take(message):
                    continue  # it was told on an earlier connection
                received = self._take(message, self._told_at)
            except ServerMessageError as error:
                self._end(error.code, error.message)
                return
            if received is not None:
                self.call.on_message(received)

    def _take(self, message: dict[str, Any], received_at: float) -> ReceivedMessage | None:
        """Take a message; return what is to be told of it, None for a final that was told before."""
        call, result = self.call, self.call.result
        self._heard_seconds = max(self._heard_seconds, number_at(message, "position_ms", 0) * MS)
        call.settled.take(message)
        match message["type"]:
            case "ready":
                self._take_ready(message)
            case "notice":
                result.notices.append(message)
            case "error":
                result.errors.append(message)
                is_answer_to_start = not self._ready.is_set()
                if message.get("fatal") or is_answer_to_start:
                    code = str(message.get("code"))
                    self._end(code, str(message.get("message")), is_lost=code == NOT_NOW)
                if is_answer_to_start:
                    # Nothing but another `start` would help, and we have no other one.
                    self._whole.cancel()
            case "closed":
                result.closed = message
                reason = str(message.get("reason"))
                if message.get("resumable") is True:
                    self.ending = Ending(reason, f"the server ended the call: {reason}", is_lost=True)
                elif reason != "stopped":
                    self._end(reason, f"the server ended the call: {reason}")
                self._expect_end_within(call.options.close_timeout_seconds, "its close record")
            case kind if kind in TRANSCRIPT_TYPES:
                return self._take_transcript(message, received_at)
            case _:
                pass
        return ReceivedMessage(message=message, received_at=received_at)

    def _take_ready(self, message: dict[str, Any]) -> None:
        call = self.call
        if self._asks_to_resume and message.get("resumed") is not True:
            self._end("resume_refused", "the server began another session instead of resuming this one")
            self._whole.cancel()
            return
        call.resume.take_ready(message)
        call.settled.begin_again()
        call.result.session_id = message.get("session")
        call.result.closed = None
        self._pace = CallPace.from_limits(message.get("limits"))
        # A gap before the beginning is not waited for: nobody sends it.
        heard_seconds = number_at(message, "heard_ms", 0) * MS
        self._heard_seconds = max(self._heard_seconds, heard_seconds, self._begins_at)
        self.on_ready(message, self._begins_at)
        call.began.set()
        self._ready.set()

    def _take_transcript(self, message: dict[str, Any], received_at: float) -> ReceivedMessage | None:
        call, result = self.call, self.call.result
        transcript = to_transcript(message)
        if transcript.is_final:
            if any(_is_same(transcript, told) for told in call.unkept):
                return None
            if message.get("stored") is False:
                call.unkept.append(transcript)
            else:
                call.unkept.clear()  # what is kept is kept in order
        sent_at = call.sent.sent_at(transcript.end)
        latency = None if sent_at is None else received_at - sent_at
        latencies = result.partial_latencies_seconds
        if transcript.is_final:
            result.finals.append(transcript)
            latencies = result.final_latencies_seconds
        if latency is not None:
            latencies.append(latency)
        return ReceivedMessage(
            message=message, received_at=received_at, transcript=transcript, latency_seconds=latency
        )

    async def _watch_hang_up(self) -> None:
        await self.call.hang_up.wait()
        self.call.reading.cancel()
        self._expect_end_within(self.call.options.hang_up_seconds, "hanging up")

    async def _watch_silence(self) -> None:
        """Notice a network that takes everything and brings nothing; a closed connection tells itself."""
        options = self.call.options
        await self._ready.wait()
        while self.call.can_resume:
            silent_seconds = trio.current_time() - self._told_at
            if silent_seconds >= options.silent_seconds:
                self._lose(f"the server has said nothing for {options.silent_seconds:g} s")
            elif silent_seconds >= options.ask_seconds:
                await self._send(PING_MESSAGE)
            await trio.sleep(options.ask_seconds)

    async def _speak(self) -> None:
        options, tape = self.call.options, self.call.tape
        start = start_message(
            self.call.source.audio_format,
            language=options.language,
            partials=options.partials,
            resume=self.call.resume.request(self._begins_at) if self._asks_to_resume else None,
        )
        if not await self._send(start):
            return
        with trio.move_on_after(options.ready_timeout_seconds) as waiting:
            await self._ready.wait()
        if waiting.cancelled_caught:
            self._lose(f"the server did not answer `start` within {options.ready_timeout_seconds:g} s")
            return
        is_open = await self._stream(tape)
        if is_open and await self._send(STOP_MESSAGE):
            self._expect_end_within(options.finish_timeout_seconds, "`stop`")

    async def _stream(self, tape: Tape) -> bool:
        """Send the audio, each message at its due time; return whether the connection is still open."""
        call = self.call
        speed = 1 if call.source.is_live else call.options.speed
        began_at = trio.current_time()
        sent_at = began_at - self._pace.between_messages
        # Two beginnings: of what this connection has to carry, and of what keeps the speed of sound.
        heard_from = self._heard_seconds
        paced_from, paced_since = self._begins_at, began_at
        start_seconds = self._begins_at
        while (message := await tape.play()) is not None:
            if tape.ring.has_gap and call.can_resume:
                self._lose("the network is slower than the speech")
                return False
            is_late = message.end_seconds <= self._late_until
            if is_late or not call.source.is_live:
                due = (
                    paced_since + (start_seconds - paced_from) / speed if speed and not is_late else began_at
                )
                if is_late or speed != 1:
                    ahead = message.end_seconds - heard_from
                    due = max(due, self._pace.due(ahead, began_at=began_at, sent_at=sent_at))
                with trio.move_on_at(due):
                    await call.hang_up.wait()
            if (call.can_resume or speed != 1) and not await self._wait_for_room(message.end_seconds):
                return False
            if call.hang_up.is_set():
                break
            sent_at = trio.current_time()
            if message.end_seconds > call.sent.audio_seconds:
                # Before the send: an answer may be read before the sending task runs again.
                call.sent.add(message.end_seconds, sent_at)
            if not await self._send(message.data):
                return False
            start_seconds = message.end_seconds
            if is_late:
                paced_from, paced_since = start_seconds, sent_at
            tape.ring.settle(call.settled.seconds if call.can_resume else start_seconds)
        return True

    async def _wait_for_room(self, end_seconds: float) -> bool:
        """Wait until audio up to ``end_seconds`` may be sent; return whether the call goes on.

        Pings ask how far the server has heard: silence alone gives no messages that would tell.
        """
        send_timeout_seconds = self.call.options.send_timeout_seconds
        heard_seconds = self._heard_seconds
        gives_up_at = trio.current_time() + send_timeout_seconds
        while end_seconds > self._heard_seconds + self._pace.max_ahead and not self.call.hang_up.is_set():
            if self._heard_seconds > heard_seconds:
                heard_seconds = self._heard_seconds
                gives_up_at = trio.current_time() + send_timeout_seconds
            if trio.current_time() >= gives_up_at:
                self._lose_stalled()
                return False
            if not await self._send(PING_MESSAGE):
                return False
            with trio.move_on_after(ASK_PROGRESS_SECONDS):
                await self.call.hang_up.wait()
        return True

    async def _send(self, data: str | bytes) -> bool:
        """Send one message; return False when the connection is over (``_listen`` finds out why)."""
        try:
            with trio.fail_after(self.call.options.send_timeout_seconds):
                await self.connection.send_message(data)
        except ConnectionClosed:
            return False
        except trio.TooSlowError:
            self._lose_stalled()
            return False
        return True

    def _lose_stalled(self) -> None:
        self._lose(f"the server took no audio for {self.call.options.send_timeout_seconds:g} s")

    def _lose(self, why: str) -> None:
        """End this conversation at once; the call may go on elsewhere."""
        self._end("timeout", why, is_lost=True)
        self._whole.cancel()

    def _end(self, code: str, message: str, *, is_lost: bool = False) -> None:
        """Note how it ended; the first reason stays, the later ones follow from it."""
        if self.ending.code is None:
            self.ending = Ending(code, message, is_lost)

    def _expect_end_within(self, seconds: float, since: str) -> None:
        deadline = trio.current_time() + seconds
        if deadline < self._whole.deadline:
            self._whole.deadline = deadline
            self._waits_since = since


def _closing(reason: CloseReason | None) -> str:
    if reason is None:
        return "no close frame"
    return f"close code {reason.code}" + (f" ({reason.reason})" if reason.reason else "")


def _is_same(transcript: TranscriptResult, told: TranscriptResult) -> bool:
    """Whether two finals tell the same piece of the call's audio."""
    return told.start < (transcript.start + transcript.end) / 2 < told.end
