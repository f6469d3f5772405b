"""What a transport does once nobody is at the other end: it reads no more, hears no more, and says so."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from voice_agent.core.commands import Start
from voice_agent.core.errors import TransportBrokenError
from voice_agent.core.events import Pong
from voice_agent.settings.schema import WebSocketSettings
from voice_agent.transports.websocket.endpoint import WebSocketTransport
from voice_agent.transports.websocket.protocol import State, WebSocketProtocol


class Wire:
    """An ASGI server's side; ``receive`` gives what was put in, and the last of it for ever."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = list(messages)
        self.taken = 0
        self.sent: list[dict[str, Any]] = []
        self.is_broken = False
        self.more = trio.Event()

    async def receive(self) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if not self.messages:
            await self.more.wait()
        self.taken += 1
        return self.messages.pop(0) if len(self.messages) > 1 else self.messages[0]

    async def send(self, message: dict[str, Any]) -> None:
        if self.is_broken:
            raise trio.BrokenResourceError
        self.sent.append(message)


def transport_of(wire: Wire) -> tuple[WebSocketTransport, WebSocketProtocol]:
    protocol = WebSocketProtocol(WebSocketSettings())
    return WebSocketTransport(protocol, wire.receive, wire.send, start_timeout_seconds=10), protocol


def said(text: str) -> dict[str, Any]:
    return {"type": "websocket.receive", "text": text}


async def test_a_disconnect_is_read_once(autojump_clock: MockClock) -> None:
    """ASGI repeats it as often as it is asked: the pump ends with the first, and the reason is told to the readers."""
    wire = Wire(said('{"type":"start"}'), {"type": "websocket.disconnect"})
    transport, protocol = transport_of(wire)
    with trio.fail_after(1):
        await transport.pump()
    assert wire.taken == 2
    assert protocol.state is State.CLOSED
    assert isinstance(await transport.recv_text(), Start)
    with pytest.raises(TransportBrokenError, match=r"the caller closed the connection \(1005\)"):
        await transport.recv_text()
    with pytest.raises(TransportBrokenError, match="the caller closed the connection"):
        await transport.recv_audio()


async def test_after_a_send_that_broke_nothing_is_heard(autojump_clock: MockClock) -> None:
    """What arrives behind it belongs to a call that is over: no command, no audio, and no complaint about it."""
    wire = Wire()
    transport, protocol = transport_of(wire)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(transport.pump)
        await wait_all_tasks_blocked()
        wire.is_broken = True
        with pytest.raises(TransportBrokenError):
            await transport.send_text(Pong())
        assert protocol.state is State.CLOSED
        wire.messages = [said("{"), said('{"type":"ping"}'), {"type": "websocket.disconnect", "code": 1006}]
        wire.more.set()
    with pytest.raises(TransportBrokenError):
        await transport.recv_text()


async def test_a_close_that_breaks_is_a_close(autojump_clock: MockClock) -> None:
    """The caller went away in that moment: nothing is raised, the call is over, and closing again is nothing."""
    wire = Wire()
    wire.is_broken = True
    transport, protocol = transport_of(wire)
    await transport.aclose()
    assert protocol.state is State.CLOSED
    with assert_checkpoints():
        await transport.aclose()
    with pytest.raises(TransportBrokenError):
        await transport.send_text(Pong())
    assert wire.sent == []


async def test_a_send_is_a_checkpoint_even_where_the_server_has_room(autojump_clock: MockClock) -> None:
    """A call that tells much lets the others have their turn, also when the ASGI server never waits."""
    wire = Wire()
    transport, _ = transport_of(wire)
    with assert_checkpoints():
        await transport.send_text(Pong())
    assert len(wire.sent) == 1
