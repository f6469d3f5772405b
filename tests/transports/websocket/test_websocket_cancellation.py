"""Cancellation and disconnection of a WebSocket call at every point where they can happen."""

import itertools
import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.commands import Ping, Start, Stop
from voice_agent.core.errors import CallerError, TransportBrokenError
from voice_agent.core.events import CloseReason, CloseRecord, Fault, Pong, SessionClosed, SessionReady
from voice_agent.core.transport import Transport
from voice_agent.settings.schema import WebSocketSettings
from voice_agent.transports.websocket.endpoint import handle_websocket

SCRIPT: list[dict[str, Any]] = [
    {"type": "websocket.connect"},
    {"type": "websocket.receive", "text": '{"type":"ping"}'},
    {"type": "websocket.receive", "text": '{"type":"start"}'},
    {"type": "websocket.receive", "bytes": bytes(640)},
    {"type": "websocket.receive", "text": "{"},
    {"type": "websocket.receive", "bytes": bytes(640)},
    {"type": "websocket.receive", "text": '{"type":"flush"}'},
    {"type": "websocket.receive", "text": '{"type":"stop"}'},
    {"type": "websocket.receive", "bytes": bytes(640)},
]
SCOPE = {
    "type": "websocket",
    "path": "/v1/ws",
    "query_string": b"",
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
}


def record(reason: CloseReason) -> CloseRecord:
    """Return the close record of a call that ended for a reason."""
    return CloseRecord(
        session_id="s",
        reason=reason,
        error_code=None,
        duration_seconds=0,
        audio_seconds=0,
        dropped_audio_ms=0,
        transcripts=0,
        close_seconds=0,
        stage_waited_for="",
        tasks_left=0,
    )


async def echo(transport: Transport) -> None:
    """Play back what is heard."""
    try:
        while True:
            await transport.send_audio(await transport.recv_audio())
    except (trio.EndOfChannel, TransportBrokenError):
        return


async def answer(transport: Transport) -> None:
    """Answer commands and tell errors, until stop."""
    while True:
        try:
            match await transport.recv_text():
                case Start(audio_format=audio_format, options=options):
                    await transport.send_text(
                        SessionReady(session_id="s", audio_format=audio_format, options=options)
                    )
                case Ping(id=ping_id):
                    await transport.send_text(Pong(id=ping_id))
                case Stop():
                    return
        except CallerError as error:
            await transport.send_text(Fault(code=error.code, message=error.message, is_fatal=error.fatal))


async def hold_call(transport: Transport) -> CloseRecord:
    """Hold a call as a session does: hear, answer, close; a caller who goes away ends it."""
    reason = CloseReason.HANGUP
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, transport)
            await answer(transport)
        reason = CloseReason.STOPPED
        await transport.send_text(SessionClosed(record=record(reason)))
    except* TransportBrokenError:
        pass
    return record(reason)


class Wire:
    """An ASGI server that plays the script, then hangs up or waits, and whose sends may begin to fail."""

    def __init__(self, script: list[dict[str, Any]], *, sends: int = 10_000) -> None:
        self._script = iter(script)
        self._sends = sends
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        message = next(self._script, None)
        if message is None:
            await trio.sleep_forever()
            raise AssertionError
        return message

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if len(self.sent) == self._sends:
            raise trio.BrokenResourceError
        self.sent.append(message)

    def check(self) -> None:
        """What was sent is legal ASGI: accept first, at most one close, nothing behind it; whole messages."""
        types = [message["type"] for message in self.sent]
        assert types[:1] in ([], ["websocket.accept"])
        assert types.count("websocket.accept") <= 1
        assert "websocket.close" not in types[:-1]
        for message in self.sent:
            if "text" in message:
                json.loads(message["text"])


async def serve(wire: Wire) -> None:
    """Hold one call over the wire; a call may take a minute of virtual time and no more."""
    with trio.fail_after(60):
        await handle_websocket(
            SCOPE, wire.receive, wire.send, settings=WebSocketSettings(), serve_call=hold_call
        )


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope just before the run's n-th task step."""

    def __init__(self, step: int) -> None:
        self._steps_left = step
        self.scope = trio.CancelScope()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # the instrument's interface
        self._steps_left -= 1
        if self._steps_left == 0:
            self.scope.cancel()


def run_cancelled_at(step: int) -> tuple[Wire, bool]:
    """Run a whole call and cancel it at a step; return the wire, and whether the call was long enough for that."""
    wire = Wire(SCRIPT)

    async def main() -> bool:
        instrument = CancelAtStep(step)
        trio.lowlevel.add_instrument(instrument)
        with instrument.scope:
            await serve(wire)
        trio.lowlevel.remove_instrument(instrument)
        return instrument.scope.cancel_called

    return wire, trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_call_can_be_cancelled_at_every_step() -> None:
    """Whatever step it happens at, the call ends, an accepted connection is closed once, and nothing follows."""
    codes: dict[int, int] = {}
    for step in itertools.count(1):  # pragma: no branch
        wire, is_cancelled = run_cancelled_at(step)
        wire.check()
        if wire.sent:
            assert wire.sent[-1]["type"] == "websocket.close", step
            codes[step] = wire.sent[-1]["code"]
        if not is_cancelled:
            break
    assert set(codes.values()) == {1012, 1000}
    assert codes[step] == 1000
    assert len(codes) > 20


@pytest.mark.parametrize("length", range(1, len(SCRIPT) + 1))
def test_a_caller_can_disconnect_behind_every_message(length: int) -> None:
    """After any prefix of a call the disconnect ends it; what was told is legal, and no more is told."""
    wire = Wire([*SCRIPT[:length], {"type": "websocket.disconnect", "code": 1006}])
    trio.run(serve, wire, clock=MockClock(autojump_threshold=0))
    wire.check()


@pytest.mark.parametrize("sends", range(12))
def test_a_connection_can_break_at_every_send(sends: int) -> None:
    """When the n-th send fails the call ends, and nothing is sent after it."""
    wire = Wire(SCRIPT, sends=sends)
    trio.run(serve, wire, clock=MockClock(autojump_threshold=0))
    wire.check()
    assert len(wire.sent) <= sends


def test_a_disconnect_instead_of_a_connect_is_no_call() -> None:
    """A caller who is gone before the handshake is read costs nothing."""
    wire = Wire([{"type": "websocket.disconnect", "code": 1006}])
    trio.run(serve, wire, clock=MockClock(autojump_threshold=0))
    assert wire.sent == []
