"""The in-memory pair: both directions, bounds, and every way it ends."""

import numpy as np
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.core.commands import Flush, Ping, Start, Stop
from voice_agent.core.errors import InvalidFieldError, SessionClosedError, TransportBrokenError
from voice_agent.core.events import Pong
from voice_agent.core.frames import AudioFrame
from voice_agent.transports.incoming import Incoming
from voice_agent.transports.memory import MemoryCaller, MemoryTransport, open_memory_pair


def frame(position: int = 0) -> AudioFrame:
    """Return 20 ms of silence."""
    return AudioFrame(np.zeros(320, np.int16), 16_000, position)


async def test_audio_commands_events_and_played_audio_pass_in_order() -> None:
    """What one end sends is what the other end receives, unchanged and in order."""
    transport, caller = open_memory_pair()
    sent = [frame(0), frame(320)]
    for piece in sent:
        await caller.send_audio(piece)
        await transport.send_audio(piece)
    for command in (Start(), Ping(id="1"), Flush(position_seconds=0.04)):
        await caller.send_command(command)
    assert [await transport.recv_audio() for _ in sent] == sent
    assert [await transport.recv_text() for _ in range(3)] == [
        Start(),
        Ping(id="1"),
        Flush(position_seconds=0.04),
    ]
    await transport.send_text(Pong(id="1"))
    await transport.aclose()
    assert [event async for event in caller.events()] == [Pong(id="1")]
    assert [piece async for piece in caller.received_audio()] == sent


async def test_stop_ends_the_audio_behind_what_is_queued() -> None:
    """The session hears everything sent before ``stop``, then the end; the command itself arrives too."""
    transport, caller = open_memory_pair()
    await caller.send_audio(frame())
    await caller.send_command(Stop())
    await transport.recv_audio()
    with pytest.raises(trio.EndOfChannel):
        await transport.recv_audio()
    assert await transport.recv_text() == Stop()
    with pytest.raises(SessionClosedError):
        await caller.send_audio(frame())
    await caller.send_command(Ping())
    assert await transport.recv_text() == Ping()


async def test_audio_can_end_without_a_command() -> None:
    """``stop_audio`` ends the audio and nothing else."""
    transport, caller = open_memory_pair()
    caller.stop_audio()
    with pytest.raises(trio.EndOfChannel):
        await transport.recv_audio()
    await caller.send_command(Ping())
    assert await transport.recv_text() == Ping()


async def test_what_was_said_before_a_hang_up_is_still_heard() -> None:
    """Queued audio and commands come first; then every method of the session's end raises."""
    transport, caller = open_memory_pair()
    await caller.send_audio(frame())
    await caller.send_command(Start())
    await transport.send_text(Pong())
    caller.hang_up()
    await transport.recv_audio()
    assert await transport.recv_text() == Start()
    with pytest.raises(TransportBrokenError, match="hung up"):
        await transport.recv_audio()
    with pytest.raises(TransportBrokenError):
        await transport.recv_text()
    with pytest.raises(TransportBrokenError):
        await transport.send_text(Pong())
    with pytest.raises(TransportBrokenError):
        await transport.send_audio(frame())
    assert [event async for event in caller.events()] == [Pong()]


async def test_a_hang_up_after_stop_is_no_second_end_of_the_audio() -> None:
    """Audio that the caller ended stays ended; only the commands tell of the hang-up."""
    transport, caller = open_memory_pair()
    await caller.send_command(Stop())
    caller.hang_up()
    with pytest.raises(trio.EndOfChannel):
        await transport.recv_audio()
    assert await transport.recv_text() == Stop()
    with pytest.raises(TransportBrokenError):
        await transport.recv_text()


async def test_a_hang_up_frees_everybody_who_waits() -> None:
    """A session blocked in any of the four methods is told at once."""
    transport, caller = open_memory_pair(max_frames=1, max_events=1)
    await transport.send_audio(frame())
    await transport.send_text(Pong())
    broken: list[str] = []

    async def expect_broken(name: str) -> None:
        with pytest.raises(TransportBrokenError):
            await {
                "recv_audio": transport.recv_audio,
                "recv_text": transport.recv_text,
                "send_audio": lambda: transport.send_audio(frame()),
                "send_text": lambda: transport.send_text(Pong()),
            }[name]()
        broken.append(name)

    names = ["recv_audio", "recv_text", "send_audio", "send_text"]
    async with trio.open_nursery() as nursery:
        for name in names:
            nursery.start_soon(expect_broken, name)
        await wait_all_tasks_blocked()
        assert broken == []
        caller.hang_up()
    assert sorted(broken) == sorted(names)


async def test_a_closed_transport_tells_both_ends() -> None:
    """After aclose, done twice, the session's end is broken and the caller's sends say the call is over."""
    transport, caller = open_memory_pair()
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(SessionClosedError):
        await caller.send_audio(frame())
    with pytest.raises(SessionClosedError):
        await caller.send_command(Ping())
    with pytest.raises(TransportBrokenError):
        await transport.recv_audio()
    with pytest.raises(TransportBrokenError):
        await transport.recv_text()
    assert [event async for event in caller.events()] == []


async def test_closing_happens_even_when_cancelled() -> None:
    """A cancelled aclose has closed."""
    transport, caller = open_memory_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.aclose()
    assert scope.cancelled_caught
    with pytest.raises(SessionClosedError):
        await caller.send_command(Ping())


@pytest.mark.parametrize("direction", ["audio", "commands", "played", "events"])
async def test_every_queue_is_bounded(direction: str, autojump_clock: MockClock) -> None:
    """Each direction takes its limit and no more until somebody reads."""
    transport, caller = open_memory_pair(max_frames=3, max_commands=3, max_events=3)
    sent = 0

    async def send_one(transport: MemoryTransport, caller: MemoryCaller) -> None:
        match direction:
            case "audio":
                await caller.send_audio(frame())
            case "commands":
                await caller.send_command(Ping())
            case "played":
                await transport.send_audio(frame())
            case "events":
                await transport.send_text(Pong())

    with trio.move_on_after(10) as scope:
        while True:
            await send_one(transport, caller)
            sent += 1
    assert scope.cancelled_caught
    assert sent == 3
    assert autojump_clock.current_time() == 10


async def test_a_writer_is_let_go_when_the_reader_closes() -> None:
    """A caller who waits for room in a call that ends is told that it is over."""
    transport, caller = open_memory_pair(max_frames=1)
    await caller.send_audio(frame())

    async def send_late() -> None:
        with pytest.raises(SessionClosedError):
            await caller.send_audio(frame())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_late)
        await wait_all_tasks_blocked()
        await transport.aclose()


async def test_an_error_is_raised_in_its_place_among_the_commands() -> None:
    """What can't be served is raised in order, and reading goes on."""
    incoming = Incoming(max_frames=1, max_commands=3)
    await incoming.put_text(Start())
    await incoming.put_text(InvalidFieldError("no", field="id"))
    await incoming.put_text(Ping())
    assert await incoming.recv_text() == Start()
    with pytest.raises(InvalidFieldError):
        await incoming.recv_text()
    assert await incoming.recv_text() == Ping()


async def test_a_cancelled_reader_loses_nothing() -> None:
    """Cancelling a read takes nothing out of the queue."""
    transport, caller = open_memory_pair()
    with trio.move_on_after(0):
        await transport.recv_text()
    await caller.send_command(Ping(id="kept"))
    with trio.CancelScope() as scope:
        scope.cancel()
        await transport.recv_text()
    assert await transport.recv_text() == Ping(id="kept")
