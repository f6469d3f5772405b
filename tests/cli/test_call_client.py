"""One call, against a server that is played by the test, in memory and on virtual time."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from trio.abc import Clock
from trio_websocket import WebSocketConnection, wrap_client_stream, wrap_server_stream

from voice_agent.cli.call_audio import AudioMessage, AudioSource, MemorySource
from voice_agent.cli.call_client import (
    CallResult,
    ClientOptions,
    ReceivedMessage,
    call_server,
    ignore_message,
)
from voice_agent.core.errors import UnreadableFileError
from voice_agent.core.formats import AudioFormat

MESSAGE_SECONDS = 0.02


def source_of(count: int, *, is_live: bool = False) -> MemorySource:
    """``count`` messages of 20 ms; the bytes of each are its number."""
    return MemorySource(
        AudioFormat(),
        [AudioMessage(bytes([i]) * 2, (i + 1) * MESSAGE_SECONDS) for i in range(count)],
        is_live,
    )


@attrs.define
class Server:
    """The server's end of one call."""

    connection: WebSocketConnection
    audio: list[bytes] = attrs.field(factory=list)
    audio_times: list[float] = attrs.field(factory=list)
    start: dict[str, Any] = attrs.field(factory=dict)
    _seq: int = 0

    async def say(self, kind: str, **fields: Any) -> None:
        """Send a message with ``seq`` and ``position_ms``."""
        self._seq += 1
        await self.connection.send_message(
            json.dumps({"type": kind, "seq": self._seq, "position_ms": 0} | fields)
        )

    async def accept(self, **limits: Any) -> None:
        """Read ``start``, answer ``ready``."""
        self.start = json.loads(await self.connection.get_message())
        await self.say("ready", session="abc", protocol=1, format={}, limits=limits)

    async def hear_one(self) -> bytes:
        """Read one audio message."""
        data = await self.connection.get_message()
        assert isinstance(data, bytes)
        self.audio.append(data)
        self.audio_times.append(trio.current_time())
        return data

    async def hear(self, count: int) -> None:
        """Read ``count`` audio messages."""
        for _ in range(count):
            await self.hear_one()

    async def hear_until_stop(self) -> None:
        """Read audio up to ``stop``."""
        while isinstance(data := await self.connection.get_message(), bytes):
            self.audio.append(data)
            self.audio_times.append(trio.current_time())
        assert json.loads(data) == {"type": "stop"}

    async def final(self, text: str, end: float, **fields: Any) -> None:
        """Send a final that ends at ``end``."""
        await self.say("final", utterance=1, text=text, start=0.0, end=end, stable=text, **fields)

    async def close(self, reason: str = "stopped", code: int = 1000) -> None:
        """Send the close record and the close frame."""
        await self.say("closed", reason=reason, duration_seconds=1.0, audio_seconds=1.0, transcripts=1)
        await self.connection.aclose(code, reason)


Play = Callable[[Server], Awaitable[None]]


async def hold_call(
    play: Play,
    source: AudioSource,
    *,
    options: ClientOptions | None = None,
    on_message: Callable[[ReceivedMessage], None] = ignore_message,
    hang_up: trio.Event | None = None,
    streams: Callable[[], Any] = trio.testing.memory_stream_pair,
) -> CallResult:
    """Let the client hold a call with the server that ``play`` plays; return the result when the client is done."""

    async def connect(
        _url: str, use: Callable[[WebSocketConnection], Awaitable[None]], _timeout_seconds: float
    ) -> None:
        client_stream, server_stream = streams()

        async def serve() -> None:
            async with trio.open_nursery() as serving:
                request = await wrap_server_stream(serving, server_stream)
                await play(Server(await request.accept()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            await use(await wrap_client_stream(nursery, client_stream, "test", "/v1/ws"))
            nursery.cancel_scope.cancel()

    return await call_server(
        "ws://test", source, options=options, on_message=on_message, hang_up=hang_up, connect=connect
    )


async def test_a_call_says_start_sends_all_audio_in_order_and_says_stop(autojump_clock: Clock) -> None:
    """The whole of protocol v1 from the client's side, and what comes of it."""
    servers: list[Server] = []

    async def play(server: Server) -> None:
        servers.append(server)
        await server.accept()
        await server.hear_until_stop()
        await server.say("notice", code="no_words", message="nothing was said", detail={})
        await server.final("hello", 0.06, confidence=0.9, language="en", speaker="caller", revision=3)
        await server.close()

    seen: list[str] = []
    result = await hold_call(
        play,
        source_of(4),
        options=ClientOptions(language="en", partials=False),
        on_message=lambda received: seen.append(received.message["type"]),
    )
    assert servers[0].start == {
        "type": "start",
        "encoding": "pcm_s16le",
        "sample_rate": 16_000,
        "channels": 1,
        "language": "en",
        "partials": False,
    }
    assert servers[0].audio == [bytes([i]) * 2 for i in range(4)]
    assert seen == ["ready", "notice", "final", "closed"]
    assert (result.failure_code, result.session_id, result.close_code) == (None, "abc", 1000)
    assert [(f.text, f.end, f.revision, f.confidence) for f in result.finals] == [("hello", 0.06, 3, 0.9)]
    assert [notice["code"] for notice in result.notices] == ["no_words"]
    assert result.closed is not None
    assert result.closed["reason"] == "stopped"
    assert result.audio_seconds == pytest.approx(0.08)


@pytest.mark.parametrize(("speed", "step"), [(1.0, 0.02), (2.0, 0.01), (0.5, 0.04), (0.0, 0.00125)])
async def test_audio_is_sent_at_absolute_deadlines(autojump_clock: Clock, speed: float, step: float) -> None:
    """Message k leaves exactly k steps after the first; at speed 0, 800 leave a second, for a server lets 1000 pass."""
    times: list[float] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear_until_stop()
        times.extend(server.audio_times)
        await server.close()

    await hold_call(play, source_of(200), options=ClientOptions(speed=speed))
    assert [t - times[0] for t in times] == pytest.approx([k * step for k in range(200)])


async def test_at_full_speed_the_client_keeps_to_what_the_server_says_that_it_can_take(
    autojump_clock: Clock,
) -> None:
    """Of a second that may wait never more than half does; it takes as long as hearing at four times the speed."""
    most_waiting: list[float] = []

    async def play(server: Server) -> None:
        await server.accept(max_waiting_audio_ms=1000, max_messages_per_second=100_000)
        began_at = trio.current_time()
        sent_seconds = 0.0
        while True:
            message = await server.connection.get_message()
            heard_seconds = min(sent_seconds, (trio.current_time() - began_at) * 4)
            if isinstance(message, bytes):
                sent_seconds += MESSAGE_SECONDS
                most_waiting.append(sent_seconds - heard_seconds)
            elif json.loads(message)["type"] == "ping":
                await server.say("pong", id=None, position_ms=round(heard_seconds * 1000))
            else:
                break
        assert sent_seconds == pytest.approx(200 * MESSAGE_SECONDS)
        await server.close()

    began_at = trio.current_time()
    result = await hold_call(play, source_of(200), options=ClientOptions(speed=0))
    assert result.failure_code is None
    assert 0.4 < max(most_waiting) < 0.53
    hearing_seconds = (200 * MESSAGE_SECONDS - 0.5) / 4
    # The server is asked every 50 ms, so at most two askings are lost.
    assert hearing_seconds <= trio.current_time() - began_at <= hearing_seconds + 0.1


async def test_at_full_speed_the_client_keeps_to_the_rate_of_audio(autojump_clock: Clock) -> None:
    """Seven tenths of the burst at once, then nineteen twentieths of the rate: a server that counts never complains."""
    began_at = trio.current_time()

    async def play(server: Server) -> None:
        await server.accept(max_audio_rate=2, audio_burst_seconds=1, max_messages_per_second=100_000)
        while isinstance(await server.connection.get_message(), bytes):
            await server.say("pong", id=None, position_ms=3_600_000)
        await server.close()

    result = await hold_call(play, source_of(200), options=ClientOptions(speed=0))
    assert result.failure_code is None
    assert trio.current_time() - began_at == pytest.approx((200 * MESSAGE_SECONDS - 0.7) / 1.9, abs=0.02)


async def test_at_full_speed_a_server_that_hears_nothing_more_is_left_after_ten_seconds(
    autojump_clock: Clock,
) -> None:
    """It answers pings, and its position stands still."""

    async def play(server: Server) -> None:
        await server.accept()
        while True:
            if isinstance(await server.connection.get_message(), str):
                await server.say("pong", id=None)

    result = await hold_call(play, source_of(255), options=ClientOptions(speed=0))
    assert (result.failure_code, result.failure) == ("timeout", "the server took no audio for 10 s")


async def test_hanging_up_does_not_wait_for_room(autojump_clock: Clock) -> None:
    """Ctrl-C while a fast call waits for the server says `stop` at once."""
    hang_up = trio.Event()

    async def play(server: Server) -> None:
        await server.accept()
        while isinstance(await server.connection.get_message(), bytes):
            pass
        hang_up.set()
        assert json.loads(await server.connection.get_message()) == {"type": "stop"}
        await server.close()

    result = await hold_call(play, source_of(255), options=ClientOptions(speed=0), hang_up=hang_up)
    assert result.failure_code is None
    assert result.audio_seconds == pytest.approx(5.0)


async def test_strange_limits_are_taken_for_none(autojump_clock: Clock) -> None:
    """What is no number is not kept to; the call goes on."""

    async def play(server: Server) -> None:
        await server.accept(max_waiting_audio_ms="many", max_messages_per_second=0)
        await server.hear_until_stop()
        await server.close()

    result = await hold_call(play, source_of(3), options=ClientOptions(speed=0))
    assert result.failure_code is None


@attrs.frozen
class StallingSource:
    """Gives its messages only after a pause before message ``stalls_at``; or breaks off there."""

    stalls_at: int
    seconds: float = 0.0
    error: Exception | None = None
    audio_format: AudioFormat = attrs.field(factory=AudioFormat)
    is_live: bool = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[AudioMessage]]:
        """Begin."""
        async with aclosing(self._iterate()) as messages:
            yield messages

    async def _iterate(self) -> AsyncGenerator[AudioMessage, None]:
        for i in range(self.stalls_at + 50):
            if i == self.stalls_at:
                if self.error is not None:
                    raise self.error
                await trio.sleep(self.seconds)
            yield AudioMessage(bytes([i]) * 2, (i + 1) * MESSAGE_SECONDS)


async def test_a_late_source_is_caught_up_with_and_the_schedule_does_not_drift(autojump_clock: Clock) -> None:
    """What was late goes at once; then each message leaves at the deadline that it always had."""
    times: list[float] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear_until_stop()
        times.extend(server.audio_times)
        await server.close()

    await hold_call(play, StallingSource(stalls_at=10, seconds=0.5))
    expected = [k * 0.02 if k < 10 else max(0.5, k * 0.02) for k in range(60)]
    assert [t - times[0] for t in times] == pytest.approx(expected)


async def test_a_live_source_is_not_paced(autojump_clock: Clock) -> None:
    """A microphone has a clock of its own; a second one would only add delay."""
    times: list[float] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear_until_stop()
        times.extend(server.audio_times)
        await server.close()

    await hold_call(play, source_of(50, is_live=True))
    assert times[-1] == times[0]


async def test_latency_counts_from_the_sending_of_the_last_sample_covered(autojump_clock: Clock) -> None:
    """A final for speech up to 0.1 s, 0.3 s after the fifth message was sent, is 0.3 s late; a partial likewise."""
    latencies: list[tuple[str, float | None]] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(5)
        await trio.sleep(0.05)
        await server.say("partial", utterance=1, text="hel", start=0.0, end=0.08, stable="")
        await trio.sleep(0.25)
        await server.final("hello", 0.1)
        await server.hear_until_stop()
        await server.close()

    result = await hold_call(
        play,
        source_of(50),
        on_message=lambda received: latencies.append((received.message["type"], received.latency_seconds)),
    )
    assert result.final_latencies_seconds == pytest.approx([0.3])
    assert result.partial_latencies_seconds == pytest.approx([0.07])
    assert [(kind, pytest.approx(value)) for kind, value in latencies if value] == [
        ("partial", 0.07),
        ("final", 0.3),
    ]


async def test_a_final_without_audio_has_no_latency(autojump_clock: Clock) -> None:
    """A transcript that no audio was sent for (typed text) would have an invented figure."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.final("typed", 0.0)
        await server.hear_until_stop()
        await server.close()

    result = await hold_call(play, source_of(0))
    assert [f.text for f in result.finals] == ["typed"]
    assert result.final_latencies_seconds == []


async def test_hanging_up_says_stop_at_once_and_waits_for_the_last_final(autojump_clock: Clock) -> None:
    """Ctrl-C in mid-sentence: no more audio, `stop`, the last words, a clean close, no failure."""
    hang_up = trio.Event()
    heard: list[int] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(10)
        hang_up.set()
        await server.hear_until_stop()
        heard.append(len(server.audio))
        await trio.sleep(1)
        await server.final("the last", 0.2)
        await server.close()

    result = await hold_call(play, source_of(200), hang_up=hang_up)
    assert heard == [10]
    assert result.was_hung_up
    assert [f.text for f in result.finals] == ["the last"]
    assert result.failure_code is None


async def test_hanging_up_interrupts_a_source_that_gives_nothing(autojump_clock: Clock) -> None:
    """A microphone that has gone silent must not keep Ctrl-C waiting."""
    hang_up = trio.Event()

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(10)
        hang_up.set()
        await server.hear_until_stop()
        await server.close()

    began_at = trio.current_time()
    result = await hold_call(play, StallingSource(stalls_at=10, seconds=1000), hang_up=hang_up)
    assert result.failure_code is None
    assert trio.current_time() - began_at == pytest.approx(9 * MESSAGE_SECONDS)


async def test_hanging_up_on_a_server_that_does_not_answer_takes_three_seconds(autojump_clock: Clock) -> None:
    """Ctrl-C is bounded in time whatever the server does."""
    hang_up = trio.Event()
    hung_up_at: list[float] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(10)
        hung_up_at.append(trio.current_time())
        hang_up.set()
        await trio.sleep_forever()

    result = await hold_call(play, source_of(200), hang_up=hang_up)
    assert result.failure_code == "timeout"
    assert result.failure == "the server did not end the call in time after hanging up"
    assert trio.current_time() - hung_up_at[0] == pytest.approx(3)


async def test_a_server_that_does_not_answer_start_is_left_after_ten_seconds(autojump_clock: Clock) -> None:
    """No audio is sent into the void."""
    servers: list[Server] = []

    async def play(server: Server) -> None:
        servers.append(server)
        server.start = json.loads(await server.connection.get_message())
        await server.hear_one()

    began_at = trio.current_time()
    result = await hold_call(play, source_of(5))
    assert (result.failure_code, result.failure) == (
        "timeout",
        "the server did not answer `start` within 10 s",
    )
    assert trio.current_time() - began_at == pytest.approx(10)
    assert servers[0].audio == []


async def test_a_server_that_does_not_end_the_call_is_left_after_thirty_seconds(
    autojump_clock: Clock,
) -> None:
    """The wait for the last final is bounded; what came until then is kept."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear_until_stop()
        await server.final("something", 0.02)
        await trio.sleep_forever()

    began_at = trio.current_time()
    result = await hold_call(play, source_of(1))
    assert (result.failure_code, result.failure) == (
        "timeout",
        "the server did not end the call in time after `stop`",
    )
    assert trio.current_time() - began_at == pytest.approx(30)
    assert [f.text for f in result.finals] == ["something"]


async def test_a_close_record_without_a_close_frame_is_waited_for_two_seconds_only(
    autojump_clock: Clock,
) -> None:
    """The record says that nothing more comes."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear_until_stop()
        await server.say("closed", reason="stopped")
        await trio.sleep_forever()

    began_at = trio.current_time()
    result = await hold_call(play, source_of(1))
    assert result.failure == "the server did not end the call in time after its close record"
    assert trio.current_time() - began_at == pytest.approx(2)


async def test_a_server_that_takes_no_audio_is_left_after_ten_seconds(autojump_clock: Clock) -> None:
    """A peer whose buffers are full for so long is gone, and a blocked send has no other end."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(3)
        # The library reads ahead by a message or two; then nobody reads.
        await trio.sleep_forever()

    result = await hold_call(play, source_of(200), streams=trio.testing.lockstep_stream_pair)
    assert (result.failure_code, result.failure) == ("timeout", "the server took no audio for 10 s")


async def test_a_fatal_error_is_the_failure_of_the_call(autojump_clock: Clock) -> None:
    """Its stable code is kept, not the close that follows from it."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(2)
        await server.say("error", code="bad_audio", message="odd number of bytes", fatal=True, field=None)
        await server.close("caller_error", 4400)

    result = await hold_call(play, source_of(200))
    assert (result.failure_code, result.failure) == ("bad_audio", "odd number of bytes")
    assert result.close_code == 4400
    assert [error["code"] for error in result.errors] == ["bad_audio"]


async def test_an_error_that_is_not_fatal_does_not_fail_the_call(autojump_clock: Clock) -> None:
    """The server goes on, so does the client; the error is told."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.say("error", code="invalid_field", message="no such field", fatal=False, field="x")
        await server.hear_until_stop()
        await server.close()

    result = await hold_call(play, source_of(3))
    assert result.failure_code is None
    assert [error["code"] for error in result.errors] == ["invalid_field"]


async def test_an_error_in_answer_to_start_ends_the_call_at_once(autojump_clock: Clock) -> None:
    """A language that is not understood leaves nothing to wait for, fatal or not."""

    async def play(server: Server) -> None:
        await server.connection.get_message()
        await server.say("error", code="invalid_field", message="language", fatal=False, field="language")
        await trio.sleep_forever()

    began_at = trio.current_time()
    result = await hold_call(play, source_of(3))
    assert (result.failure_code, result.failure) == ("invalid_field", "language")
    assert trio.current_time() == began_at


@pytest.mark.parametrize(
    ("reason", "code"), [("drain", 1012), ("idle_timeout", 1000), ("internal_error", 1011)]
)
async def test_a_call_that_the_server_ends_has_failed(autojump_clock: Clock, reason: str, code: int) -> None:
    """Only `stopped` means that everything sent was heard."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(5)
        await server.close(reason, code)

    result = await hold_call(play, source_of(200))
    assert (result.failure_code, result.close_code) == (reason, code)
    assert result.failure == f"the server ended the call: {reason}"


async def test_a_connection_that_breaks_is_told_with_what_was_heard(autojump_clock: Clock) -> None:
    """The server process dies in mid-call: the finals so far are kept."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(5)
        await server.final("so far", 0.1)
        await server.hear(5)
        await server.connection._stream.aclose()

    result = await hold_call(play, source_of(200))
    assert result.failure_code == "connection_lost"
    assert result.failure == "the server went away without a close record: close code 1006"
    assert [f.text for f in result.finals] == ["so far"]


async def test_a_close_frame_without_a_record_is_a_lost_connection(autojump_clock: Clock) -> None:
    """Its code and reason are told."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear(5)
        await server.connection.aclose(1011, "oops")

    result = await hold_call(play, source_of(200))
    assert result.failure == "the server went away without a close record: close code 1011 (oops)"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x00\x01",
        "no json",
        "[1]",
        '{"seq": 1}',
        '{"type": "final", "text": "x", "start": 0, "end": NaN, "utterance": 1}',
        '{"type": "final", "text": 5, "start": 0, "end": 1, "utterance": 1}',
        '{"type": "partial", "start": 0, "end": 1, "utterance": 1}',
        '{"type": "partial", "text": "a", "stable": "b", "start": 0, "end": 1, "utterance": 1}',
        '{"type": "final", "text": "a", "start": 2, "end": 1, "utterance": 1}',
        '{"type": "final", "text": "a", "start": 0, "end": 1' + "0" * 400 + ', "utterance": 1}',
    ],
)
async def test_nonsense_from_the_server_ends_the_call_with_its_own_code(
    autojump_clock: Clock, nonsense: str | bytes
) -> None:
    """Something else listens at that address; no traceback, and the call is not counted as good."""

    async def play(server: Server) -> None:
        await server.accept()
        await server.connection.send_message(nonsense)
        await trio.sleep_forever()

    result = await hold_call(play, source_of(200))
    assert result.failure_code == "bad_server_message"


async def test_an_unknown_message_of_a_later_server_is_passed_on(autojump_clock: Clock) -> None:
    """Version 1 may grow; a client that does not know a message lets it by."""
    seen: list[dict[str, Any]] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.say("weather", is_fine=True)
        await server.hear_until_stop()
        await server.close()

    result = await hold_call(play, source_of(1), on_message=lambda received: seen.append(received.message))
    assert seen[1] == {"type": "weather", "seq": 2, "position_ms": 0, "is_fine": True}
    assert result.failure_code is None


async def test_a_source_that_breaks_off_ends_the_call_properly_and_fails_it(autojump_clock: Clock) -> None:
    """What was read before is still heard; the result says that the file is broken."""
    heard: list[int] = []

    async def play(server: Server) -> None:
        await server.accept()
        await server.hear_until_stop()
        heard.append(len(server.audio))
        await server.final("half", 0.1)
        await server.close()

    source = StallingSource(stalls_at=10, error=UnreadableFileError("it breaks off"))
    result = await hold_call(play, source)
    assert heard == [10]
    assert (result.failure_code, result.failure) == ("unreadable_file", "it breaks off")
    assert [f.text for f in result.finals] == ["half"]


@pytest.mark.parametrize("after_seconds", [0.0, 0.005, 0.1, 1.0, 50.0])
async def test_cancelling_a_call_ends_it_at_once(autojump_clock: Clock, after_seconds: float) -> None:
    """At any stage: before `ready`, in the audio, after `stop`; nothing waits for the server."""

    async def play(server: Server) -> None:
        await trio.sleep(0.01)
        await server.accept()
        while True:
            await server.connection.get_message()

    began_at = trio.current_time()
    with trio.move_on_after(after_seconds) as scope:
        await hold_call(play, source_of(20), options=ClientOptions(finish_timeout_seconds=100))
    assert scope.cancelled_caught
    assert trio.current_time() - began_at == pytest.approx(after_seconds)


async def test_what_on_message_raises_is_not_swallowed(autojump_clock: Clock) -> None:
    """A display that fails (its pipe was closed) ends the call and is told."""

    async def play(server: Server) -> None:
        await server.accept()
        await trio.sleep_forever()

    def fail(_received: ReceivedMessage) -> None:
        raise BrokenPipeError

    with pytest.raises(ExceptionGroup) as caught:
        await hold_call(play, source_of(200), on_message=fail)
    assert caught.value.subgroup(BrokenPipeError) is not None
