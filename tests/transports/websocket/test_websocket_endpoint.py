"""The WebSocket endpoint against a scripted ASGI server: handshake, both directions, every way to close."""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.audio.decoding import open_decoder
from voice_agent.core.commands import CallOptions, Flush, Ping, Start, Stop
from voice_agent.core.errors import (
    AudioAfterStopError,
    BadAudioError,
    InternalError,
    InvalidFrameError,
    InvalidJsonError,
    StartTimeoutError,
    TransportBrokenError,
)
from voice_agent.core.events import CloseReason, CloseRecord, Fault, Pong, SessionClosed
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding
from voice_agent.core.transport import Transport
from voice_agent.settings.schema import WebSocketSettings
from voice_agent.transports.websocket.endpoint import (
    CLOSE_CODES,
    MAX_WAITING_FRAMES,
    handle_websocket,
    refuse_handshake,
)

SILENCE = bytes(640)


def record(reason: CloseReason = CloseReason.STOPPED, error_code: str | None = None) -> CloseRecord:
    """Return the close record of a call without anything special."""
    return CloseRecord(
        session_id="s",
        reason=reason,
        error_code=error_code,
        duration_seconds=1,
        audio_seconds=1,
        dropped_audio_ms=0,
        transcripts=0,
        close_seconds=0,
        stage_waited_for="",
        tasks_left=0,
    )


class Wire:
    """An ASGI server's side of one connection, scripted."""

    def __init__(self) -> None:
        self._to_app, self._from_caller = trio.open_memory_channel[dict[str, Any]](10_000)
        self.sent: list[dict[str, Any]] = []
        self.taken = 0
        self.is_stuck = False
        self.send_error: BaseException | None = None
        self.receive_error: BaseException | None = None
        self.put({"type": "websocket.connect"})

    def put(self, message: dict[str, Any]) -> None:
        self._to_app.send_nowait(message)

    def say(self, *messages: bytes | str | dict[str, Any]) -> None:
        """Send audio (bytes) and messages (text, or a dict to be written as JSON) as the caller."""
        for message in messages:
            if isinstance(message, bytes):
                self.put({"type": "websocket.receive", "bytes": message, "text": None})
            else:
                text = message if isinstance(message, str) else json.dumps(message)
                self.put({"type": "websocket.receive", "bytes": None, "text": text})

    def disconnect(self, code: int = 1006) -> None:
        self.put({"type": "websocket.disconnect", "code": code})

    async def receive(self) -> dict[str, Any]:
        message = await self._from_caller.receive()
        self.taken += 1
        if self.receive_error is not None and message["type"] == "websocket.receive":
            raise self.receive_error
        return message

    async def send(self, message: dict[str, Any]) -> None:
        if self.is_stuck:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        if self.send_error is not None:
            raise self.send_error
        self.sent.append(message)

    @property
    def types(self) -> list[str]:
        return [message["type"] for message in self.sent]

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(message["text"]) for message in self.sent if "text" in message]


def scope(path: str = "/v1/ws", query: bytes = b"", **more: Any) -> dict[str, Any]:
    """Return a handshake's ASGI scope."""
    return {
        "type": "websocket",
        "path": path,
        "query_string": query,
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
        **more,
    }


Script = Callable[[Transport], Awaitable[None]]


async def serve(
    wire: Wire, script: Script, query: bytes = b"", defaults: CallOptions | None = None, **limits: float
) -> None:
    """Run the endpoint with a script in the place of the session."""

    async def serve_call(transport: Transport) -> CloseRecord:
        await script(transport)
        return record()

    await handle_websocket(
        scope(query=query),
        wire.receive,
        wire.send,
        settings=attrs.evolve(WebSocketSettings(), **limits),
        serve_call=serve_call,
        defaults=defaults or CallOptions(),
    )


async def never(_transport: Transport) -> CloseRecord:
    """Stand where no call may begin."""
    raise AssertionError("a call began")


async def test_another_path_is_not_found() -> None:
    """A handshake for another path gets a 404 problem, and no call begins."""
    wire = Wire()
    await handle_websocket(
        scope("/v1/other"), wire.receive, wire.send, settings=WebSocketSettings(), serve_call=never
    )
    start, body = wire.sent
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 404
    assert (b"content-type", b"application/problem+json") in start["headers"]
    assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
    assert json.loads(body["body"])["code"] == "not_found"


async def test_a_bad_query_is_a_bad_request() -> None:
    """A handshake with a bad query gets a 400 problem with the code and the parameter."""
    wire = Wire()
    await handle_websocket(
        scope(query=b"encoding=mp3"),
        wire.receive,
        wire.send,
        settings=WebSocketSettings(),
        serve_call=never,
    )
    assert wire.sent[0]["status"] == 400
    problem = json.loads(wire.sent[1]["body"])
    assert problem.pop("detail").startswith("encoding 'mp3' is unknown")
    assert problem == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "code": "unsupported_format",
        "field": "encoding",
    }


async def test_a_server_without_http_answers_refuses_by_closing() -> None:
    """Without the ASGI extension the refusal is a close before accept, which servers answer with 403."""
    wire = Wire()
    await handle_websocket(
        scope("/", extensions=None),
        wire.receive,
        wire.send,
        settings=WebSocketSettings(),
        serve_call=never,
    )
    assert wire.sent == [{"type": "websocket.close", "code": 1008, "reason": "not_found"}]


@pytest.mark.parametrize(
    ("offered", "selected"),
    [([], None), (["other"], None), (["other", "voice-agent.v1"], "voice-agent.v1")],
)
async def test_the_subprotocol_is_selected_when_offered(offered: list[str], selected: str | None) -> None:
    """``voice-agent.v1`` is selected if the client offers it; none is required."""
    wire = Wire()

    async def serve_call(_transport: Transport) -> CloseRecord:
        return record()

    await handle_websocket(
        scope(subprotocols=offered),
        wire.receive,
        wire.send,
        settings=WebSocketSettings(),
        serve_call=serve_call,
    )
    assert wire.sent[0] == {"type": "websocket.accept", "subprotocol": selected}


async def test_a_caller_who_leaves_during_the_handshake_is_no_call() -> None:
    """Gone before the accept, or during it: nothing is served and nothing raised."""
    wire = Wire()
    await wire.receive()
    wire.disconnect()
    await handle_websocket(scope(), wire.receive, wire.send, settings=WebSocketSettings(), serve_call=never)
    assert wire.sent == []
    broken = Wire()
    broken.send_error = trio.BrokenResourceError()
    await handle_websocket(
        scope(), broken.receive, broken.send, settings=WebSocketSettings(), serve_call=never
    )


async def test_audio_and_commands_arrive_on_their_two_sides() -> None:
    """Start and flush come as text, frames as audio, each in order; stop ends the audio."""
    wire = Wire()
    wire.say(
        {"type": "start", "sample_rate": 8000}, bytes(160), {"type": "flush"}, bytes(160), {"type": "stop"}
    )

    async def script(transport: Transport) -> None:
        assert await transport.recv_text() == Start(audio_format=AudioFormat(Encoding.PCM_S16LE, 8000, 1))
        assert (await transport.recv_audio()).position == 0
        assert (await transport.recv_audio()).position == 80
        with pytest.raises(trio.EndOfChannel):
            await transport.recv_audio()
        assert await transport.recv_text() == Flush(position_seconds=0.01)
        assert await transport.recv_text() == Stop()

    await serve(wire, script)


async def test_a_query_starts_the_call_before_anything_is_sent() -> None:
    """With a format in the query the session is started at once, with the operator's defaults for the rest."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        assert await transport.recv_text() == Start(
            audio_format=AudioFormat(Encoding.ALAW, 8000, 1), options=CallOptions(partials=False)
        )

    await serve(wire, script, b"encoding=alaw&sample_rate=8000", CallOptions(partials=False))


async def test_errors_are_raised_in_order_and_reading_goes_on() -> None:
    """What can't be served is raised from recv_text between the commands around it."""
    wire = Wire()
    wire.say({"type": "ping", "id": "1"}, "{", {"type": "ping", "id": "2"}, {"type": "stop"}, SILENCE, "{")

    async def script(transport: Transport) -> None:
        assert await transport.recv_text() == Ping(id="1")
        with pytest.raises(InvalidJsonError):
            await transport.recv_text()
        assert await transport.recv_text() == Ping(id="2")
        assert [type(await transport.recv_text()) for _ in range(2)] == [Start, Stop]
        with pytest.raises(AudioAfterStopError):
            await transport.recv_text()
        with pytest.raises(InvalidJsonError):
            await transport.recv_text()

    await serve(wire, script)


async def test_pings_are_answered_after_stop() -> None:
    """recv_text goes on after stop until the connection closes."""
    wire = Wire()
    wire.say({"type": "stop"}, {"type": "ping", "id": "late"})
    wire.disconnect()

    async def script(transport: Transport) -> None:
        assert [await transport.recv_text() for _ in range(3)] == [Start(), Stop(), Ping(id="late")]
        with pytest.raises(trio.EndOfChannel):
            await transport.recv_audio()
        with pytest.raises(TransportBrokenError):
            await transport.recv_text()

    await serve(wire, script)


async def test_a_caller_who_never_starts_is_told_in_time(autojump_clock: MockClock) -> None:
    """StartTimeoutError comes exactly at the timeout, pings or not."""
    wire = Wire()
    wire.say({"type": "ping"})

    async def script(transport: Transport) -> None:
        assert await transport.recv_text() == Ping()
        with pytest.raises(StartTimeoutError):
            await transport.recv_text()
        assert trio.current_time() == 7.5

    await serve(wire, script, start_timeout_seconds=7.5)
    assert autojump_clock.current_time() == 7.5


@pytest.mark.parametrize("first", [SILENCE, {"type": "start"}, {"type": "flush"}, {"type": "stop"}])
async def test_a_call_that_began_does_not_time_out(
    first: bytes | dict[str, Any], autojump_clock: MockClock
) -> None:
    """After audio, start, flush or stop the start timeout is void."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        await trio.sleep(7)
        wire.say(first)
        await trio.sleep(60)
        wire.say({"type": "ping", "id": "still here"})
        commands = []
        while Ping(id="still here") not in commands:
            commands.append(await transport.recv_text())

    await serve(wire, script, start_timeout_seconds=7.5)
    assert autojump_clock.current_time() == 67


async def test_bad_audio_is_raised_and_no_audio_follows(autojump_clock: MockClock) -> None:
    """After a fatal error the audio side neither ends nor brings anything: the session closes the call."""
    wire = Wire()
    wire.say(SILENCE, b"\0", SILENCE)

    async def script(transport: Transport) -> None:
        assert await transport.recv_text() == Start()
        with pytest.raises(BadAudioError):
            await transport.recv_text()
        await transport.recv_audio()
        with trio.move_on_after(30) as waited:
            await transport.recv_audio()
        assert waited.cancelled_caught

    await serve(wire, script)
    assert autojump_clock.current_time() == 30


async def test_what_was_sent_before_a_disconnect_is_still_heard() -> None:
    """The last words of a caller who hangs up are read; then every method raises, and nothing is sent."""
    wire = Wire()
    wire.say(SILENCE, {"type": "flush"})
    wire.disconnect(1001)

    async def script(transport: Transport) -> None:
        await wait_all_tasks_blocked()
        await transport.recv_audio()
        assert [await transport.recv_text() for _ in range(2)] == [Start(), Flush(position_seconds=0.02)]
        with pytest.raises(TransportBrokenError, match="1001"):
            await transport.recv_audio()
        with pytest.raises(TransportBrokenError, match="1001"):
            await transport.recv_text()
        with pytest.raises(TransportBrokenError):
            await transport.send_text(Pong())
        with pytest.raises(TransportBrokenError):
            await transport.send_audio(AudioFrame(np.zeros(320, np.int16), 16_000))

    await serve(wire, script)
    assert wire.types == ["websocket.accept"]


@pytest.mark.parametrize(
    "error",
    [trio.BrokenResourceError(), trio.ClosedResourceError(), ConnectionResetError(), BrokenPipeError()],
)
async def test_a_broken_send_is_a_broken_transport(error: Exception) -> None:
    """What the ASGI server raises when nobody is there becomes TransportBrokenError, for good, on both sides."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        wire.send_error = error
        with pytest.raises(TransportBrokenError):
            await transport.send_text(Pong())
        with pytest.raises(TransportBrokenError):
            await transport.send_text(Pong())
        with pytest.raises(TransportBrokenError):
            await transport.recv_text()

    await serve(wire, script)


@pytest.mark.parametrize("error", [trio.EndOfChannel(), trio.ClosedResourceError(), ConnectionResetError()])
async def test_a_broken_receive_is_a_disconnect(error: Exception) -> None:
    """An ASGI receive that ends with an exception means that the caller went away."""
    wire = Wire()
    wire.receive_error = error
    wire.say(SILENCE)

    async def script(transport: Transport) -> None:
        with pytest.raises(TransportBrokenError, match=type(error).__name__):
            await transport.recv_text()

    await serve(wire, script)


@pytest.mark.parametrize("reason", CloseReason)
async def test_a_close_record_closes_with_its_code(reason: CloseReason) -> None:
    """The closed message comes last, then the close frame with the code of the table."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        await transport.send_text(SessionClosed(record=record(reason)))
        with pytest.raises(TransportBrokenError):
            await transport.send_text(Pong())

    await serve(wire, script)
    assert wire.types == ["websocket.accept", "websocket.send", "websocket.close"]
    assert wire.told[0]["reason"] == reason
    assert wire.sent[-1] == {"type": "websocket.close", "code": CLOSE_CODES[reason], "reason": str(reason)}


async def test_a_fatal_error_closes_with_its_own_code() -> None:
    """For a caller's error the close code is that of the fatal error; a non-fatal one before does not count."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        await transport.send_text(Fault(code="bad_audio", message="m", is_fatal=True, close_code=4400))
        await transport.send_text(Fault(code="invalid_json", message="m", is_fatal=False, close_code=1008))
        await transport.send_text(SessionClosed(record=record(CloseReason.CALLER_ERROR, "bad_audio")))

    await serve(wire, script)
    assert wire.sent[-1] == {"type": "websocket.close", "code": 4400, "reason": "bad_audio"}


async def test_a_close_for_another_reason_keeps_its_own_code() -> None:
    """A drain that overtakes a caller's error closes with the drain's code."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        await transport.send_text(Fault(code="bad_audio", message="m", is_fatal=True, close_code=4400))
        await transport.send_text(SessionClosed(record=record(CloseReason.DRAIN)))

    await serve(wire, script)
    assert wire.sent[-1]["code"] == 1012


async def test_a_call_that_fails_closes_1011_and_the_error_goes_on() -> None:
    """An exception of the session is no normal close, and it is not swallowed."""
    wire = Wire()

    async def script(_transport: Transport) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await serve(wire, script)
    assert caught.value.subgroup(ZeroDivisionError) is not None
    assert wire.sent[-1]["code"] == 1011


async def test_a_call_that_dies_after_a_fatal_error_closes_with_its_code() -> None:
    """Without a close record the fatal error that was told still gives the code."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        await transport.send_text(Fault(code="rate_exceeded", message="m", is_fatal=True, close_code=4429))

    await serve(wire, script)
    assert wire.sent[-1]["code"] == 4429


async def test_a_cancelled_call_closes_1012() -> None:
    """Cancelling the call around the endpoint closes the connection all the same, as a restart."""
    wire = Wire()
    with trio.CancelScope() as around:

        async def script(_transport: Transport) -> None:
            around.cancel()
            await trio.sleep_forever()

        await serve(wire, script)
    assert around.cancelled_caught
    assert wire.sent[-1]["code"] == 1012


async def test_closing_twice_closes_once() -> None:
    """Closing is idempotent, and afterwards nothing can be read or sent."""
    wire = Wire()

    async def script(transport: Transport) -> None:
        await transport.send_text(SessionClosed(record=record()))
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(TransportBrokenError):
            await transport.recv_audio()
        with pytest.raises(TransportBrokenError):
            await transport.recv_text()

    await serve(wire, script)
    assert wire.types.count("websocket.close") == 1


async def test_a_stuck_close_is_given_up(autojump_clock: MockClock) -> None:
    """A close that can't be sent takes five seconds and no longer, cancelled or not."""
    wire = Wire()

    async def script(_transport: Transport) -> None:
        wire.is_stuck = True

    await serve(wire, script)
    assert autojump_clock.current_time() == 5


async def test_a_close_into_a_broken_connection_is_quiet() -> None:
    """Nobody is there to be told."""
    wire = Wire()

    async def script(_transport: Transport) -> None:
        wire.send_error = trio.BrokenResourceError()

    await serve(wire, script)
    assert wire.types == ["websocket.accept"]


async def test_waiting_audio_is_bounded_and_the_wire_waits(autojump_clock: MockClock) -> None:
    """A session that does not read makes the wire wait; reading lets it flow again, without a loss."""
    wire = Wire()
    wire.say(*[SILENCE] * 200)

    async def script(transport: Transport) -> None:
        await wait_all_tasks_blocked()
        # connect, what is queued, and the one that waits for room
        assert wire.taken == 1 + MAX_WAITING_FRAMES + 1
        positions = [(await transport.recv_audio()).position for _ in range(200)]
        assert positions == list(range(0, 200 * 320, 320))

    await serve(wire, script)
    assert autojump_clock.current_time() == 0


async def test_a_closed_transport_still_empties_the_wire() -> None:
    """After aclose whatever the caller goes on sending is taken and dropped, so that the server never blocks on it."""
    wire = Wire()
    wire.say(*[SILENCE] * 200)

    async def script(transport: Transport) -> None:
        await wait_all_tasks_blocked()
        await transport.aclose()
        await wait_all_tasks_blocked()
        assert wire.taken == 201

    await serve(wire, script)


@pytest.mark.parametrize("encoding", Encoding)
async def test_played_audio_is_sent_in_the_calls_own_format(encoding: Encoding) -> None:
    """Binary messages decode, by the call's format, to what was played."""
    wire = Wire()
    tone = (0.5 * np.sin(np.arange(4800) * 2 * np.pi * 300 / 48_000)).astype(np.float32)

    async def script(transport: Transport) -> None:
        await transport.recv_text()
        for start in range(0, 4800, 960):
            await transport.send_audio(AudioFrame(tone[start : start + 960], 48_000, start))

    await serve(wire, script, f"encoding={encoding}&sample_rate=48000".encode())
    decoder = open_decoder(AudioFormat(encoding, 48_000, 1))
    messages = [message["bytes"] for message in wire.sent if "bytes" in message]
    heard = np.concatenate([decoder.decode(message).to_float32() for message in messages])
    assert len(heard) == 4800
    # Opus delays by its look-ahead; the energy is what stays comparable.
    assert np.sqrt(np.mean(heard[1200:] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


async def test_audio_of_another_rate_is_not_played() -> None:
    """A frame that would play at the wrong speed is refused, and so is one before the format is known."""
    wire = Wire()
    frame = AudioFrame(np.zeros(320, np.int16), 48_000)

    async def script(transport: Transport) -> None:
        with pytest.raises(InternalError):
            await transport.send_audio(frame)
        wire.say({"type": "start"})
        await transport.recv_text()
        with pytest.raises(InvalidFrameError):
            await transport.send_audio(frame)

    await serve(wire, script)
    assert wire.types == ["websocket.accept", "websocket.close"]


async def test_an_empty_asgi_message_is_empty_audio() -> None:
    """A receive event with neither text nor bytes is treated as the empty binary message that it is."""
    wire = Wire()
    wire.put({"type": "websocket.receive"})

    async def script(transport: Transport) -> None:
        with pytest.raises(BadAudioError):
            await transport.recv_text()

    await serve(wire, script)


async def test_a_refusal_carries_its_own_headers() -> None:
    """Whoever refuses can say when to come back."""
    wire = Wire()
    await refuse_handshake(
        scope(),
        wire.send,
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        code="full",
        detail="later",
        headers=[(b"retry-after", b"5")],
    )
    assert wire.sent[0]["status"] == 503
    assert (b"retry-after", b"5") in wire.sent[0]["headers"]
    assert json.loads(wire.sent[1]["body"])["title"] == "Service Unavailable"
