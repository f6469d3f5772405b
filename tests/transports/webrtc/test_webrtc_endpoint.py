"""The session's view of a WebRTC caller, against a real aiortc caller."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import trio

from voice_agent.core.commands import CallOptions, Flush, Ping, Start, Stop
from voice_agent.core.errors import (
    AlreadyStartedError,
    IceTimeoutError,
    InvalidJsonError,
    RateExceededError,
    SessionClosedError,
    TooManyUnknownTypesError,
    TransportBrokenError,
    UnknownTypeError,
)
from voice_agent.core.events import CloseReason, CloseRecord, Notice, Pong, SessionClosed
from voice_agent.core.frames import Encoding
from voice_agent.transports.message_rate import MessageRate
from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.endpoint import WebRtcTransport
from voice_agent.transports.webrtc.media_thread import MediaThread

RECORD = CloseRecord(
    session_id="s",
    reason=CloseReason.STOPPED,
    error_code=None,
    duration_seconds=1.0,
    audio_seconds=1.0,
    dropped_audio_ms=0,
    transcripts=0,
    close_seconds=0.0,
    stage_waited_for="",
    tasks_left=0,
)


async def test_the_call_starts_with_its_signalled_options(connect: Callable) -> None:
    """The first command is the start that signalling agreed on; a second start is refused."""
    peer, caller = await connect()
    transport = WebRtcTransport(peer, CallOptions(partials=False))
    start = await transport.recv_text()
    assert isinstance(start, Start)
    assert start.options == CallOptions(partials=False)
    assert (start.audio_format.encoding, start.audio_format.sample_rate) == (Encoding.OPUS, 48_000)
    await caller.until(lambda: caller.channel.readyState == "open")
    await caller.send('{"type":"start"}')
    with pytest.raises(AlreadyStartedError):
        await transport.recv_text()


async def test_the_protocol_is_spoken_on_the_data_channel(connect: Callable) -> None:
    """Messages are read as on the WebSocket: commands, typed errors, and the end of a client of another protocol."""
    peer, caller = await connect(np.zeros(48_000, np.int16))
    transport = WebRtcTransport(peer)
    await transport.recv_text()
    await caller.until(lambda: caller.channel.readyState == "open" and peer.received_samples > 0)
    await caller.send('{"type":"ping","id":"a"}')
    assert await transport.recv_text() == Ping(id="a")
    await caller.send('{"type":"flush"}')
    flush = await transport.recv_text()
    assert isinstance(flush, Flush)
    assert flush.position_seconds > 0
    await caller.send("no JSON")
    with pytest.raises(InvalidJsonError):
        await transport.recv_text()
    for number in range(10):
        await caller.send('{"type":"bonjour"}')
        with pytest.raises(UnknownTypeError if number < 9 else TooManyUnknownTypesError):
            await transport.recv_text()


async def test_the_rate_of_messages_is_that_of_the_websocket(connect: Callable) -> None:
    """Near the limit a notice comes ahead of the message, which is not lost; at the limit the call fails."""
    peer, caller = await connect()
    transport = WebRtcTransport(peer, messages=MessageRate(lambda: 10))
    await transport.recv_text()
    await caller.until(lambda: caller.channel.readyState == "open")
    for number in range(11):
        await caller.send(f'{{"type":"ping","id":"{number}"}}')
    # All of them are there before the first is counted, so that they are read within a second.
    with trio.fail_after(60):
        while len(peer._messages._items) < 11:  # noqa: ASYNC110 (a queue between threads tells nobody that it grew)
            await trio.sleep(0.01)
    got = [await transport.recv_text() for _ in range(11)]
    notice = got.pop(8)
    assert isinstance(notice, Notice)
    assert notice.detail == {"limit": "messages", "used": 9, "allowed": 10}
    assert got == [Ping(id=str(number)) for number in range(10)]
    with pytest.raises(RateExceededError):
        await transport.recv_text()


async def test_events_are_told_and_the_last_one_closes(connect: Callable) -> None:
    """Events arrive as JSON, the close record too before the connection ends, and closing again does nothing."""
    peer, caller = await connect()
    transport = WebRtcTransport(peer)
    await caller.until(lambda: caller.channel.readyState == "open")
    await transport.send_text(Pong(id="b", seq=1))
    await transport.send_text(SessionClosed(record=RECORD, seq=2))
    await caller.until(lambda: len(caller.received) == 2)
    assert [json.loads(message)["type"] for message in caller.received] == ["pong", "closed"]
    await caller.until(lambda: caller.pc.connectionState == "closed")
    await transport.aclose()
    with pytest.raises(TransportBrokenError):
        await transport.send_text(Pong(seq=3))


async def test_stop_ends_the_audio_behind_what_is_under_way(connect: Callable) -> None:
    """After ``stop`` the audio that the network still holds is returned, then the end; no text is taken any more."""
    peer, caller = await connect(np.zeros(48_000, np.int16))
    transport = WebRtcTransport(peer)
    await transport.recv_text()
    await caller.until(lambda: caller.channel.readyState == "open")
    await caller.send('{"type":"stop"}')
    frames = []

    async def hear() -> None:
        while True:
            frames.append(await transport.recv_audio())

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:

            async def hear_to_the_end() -> None:
                with pytest.raises(trio.EndOfChannel):
                    await hear()

            nursery.start_soon(hear_to_the_end)
            assert await transport.recv_text() == Stop()
    assert frames
    with pytest.raises(trio.EndOfChannel):
        await transport.recv_audio()
    await caller.send('{"type":"flush"}')
    with pytest.raises(SessionClosedError):
        await transport.recv_text()


async def test_a_hang_up_is_told_on_both_sides(connect: Callable) -> None:
    """A caller who goes away breaks both readers."""
    peer, caller = await connect()
    transport = WebRtcTransport(peer)
    await transport.recv_text()
    await caller.hang_up()
    with pytest.raises(TransportBrokenError), trio.fail_after(60):
        await transport.recv_text()


async def test_media_that_never_comes_is_an_error_and_not_a_hang_up(
    media: MediaThread, make_caller: Callable
) -> None:
    """The session is told ``ice_timeout`` first; only then do its readers find the connection broken."""
    peer = await media.open_peer(PeerConfig(setup_timeout_seconds=0.2))
    transport = WebRtcTransport(peer)
    await peer.answer(await make_caller().offer())
    await transport.recv_text()
    order: list[str] = []

    async def hear() -> None:
        with pytest.raises(TransportBrokenError):
            await transport.recv_audio()
        order.append("audio")

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            with pytest.raises(IceTimeoutError):
                await transport.recv_text()
            order.append("text")
    with pytest.raises(TransportBrokenError):
        await transport.recv_text()
    assert order == ["text", "audio"]
    await transport.aclose()
