"""The drain under virtual time: who is told, how long it waits, and what it does to those who stay."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from voice_agent.core.commands import Start, Stop
from voice_agent.core.events import CloseReason, Notice, SessionEvent, Transcript
from voice_agent.core.frames import AudioFrame
from voice_agent.core.identity import ANONYMOUS
from voice_agent.server.calls import CallDesk
from voice_agent.server.drain import drain
from voice_agent.session.registry import CallRegistry
from voice_agent.session.services import Services
from voice_agent.settings.schema import ServerSettings, SessionSettings, Settings
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]

GRACE, FINISH, CLOSE = 20.0, 7.0, 3.0
SETTINGS = Settings(
    server=ServerSettings(grace_seconds=GRACE),
    session=SessionSettings(finish_timeout_seconds=FINISH, close_timeout_seconds=CLOSE),
)


async def hold_call(desk: CallDesk, events: list[SessionEvent], task_status: trio.TaskStatus[Any]) -> None:
    """One call at the desk, without a wire; what it is told is collected."""
    transport, caller = open_memory_pair()

    async def listen() -> None:
        async for event in caller.events():
            events.append(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await caller.send_command(Start())
        task_status.started(caller)
        with desk.registry.place() as place:
            await desk._serve_call(place, ANONYMOUS, transport)


async def speak(caller: MemoryCaller, frames: list[AudioFrame]) -> None:
    for frame in frames:
        await caller.send_audio(frame)
        await trio.sleep(frame.duration_seconds)


async def test_without_calls_there_is_nothing_to_wait_for(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """The desk is closed, and the drain is over at once."""
    async with open_scripted_services(settings=SETTINGS) as services:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        began = trio.current_time()
        await drain(desk, SETTINGS)
        assert trio.current_time() == began
        assert not desk.is_open


async def test_a_call_that_ends_within_the_grace_time_ends_as_it_wished(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """It is told how long it has, speaks on, stops, gets its words; the drain waits for it and no longer."""
    events: list[SessionEvent] = []
    async with open_scripted_services(settings=SETTINGS) as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        caller = await nursery.start(hold_call, desk, events)
        began = trio.current_time()

        async def go_on() -> None:
            await speak(caller, spoken(0.3, 1.0, 0.7))
            await caller.send_command(Stop())

        nursery.start_soon(go_on)
        with capture_logs() as logs:
            await drain(desk, SETTINGS)
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert (notice.code, notice.detail) == ("draining", {"grace_seconds": GRACE})
    assert [event.result.text for event in events if isinstance(event, Transcript)][-1] == "hello there"
    assert [record.reason for record in closings.records] == [CloseReason.STOPPED]
    assert "drain_grace_over" not in {line["event"] for line in logs}


async def test_a_call_that_goes_on_is_ended_at_the_grace_time_with_its_last_words(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Twenty seconds are twenty seconds; then the call is ended for the drain, and what was said is told."""
    events: list[SessionEvent] = []
    async with open_scripted_services(settings=SETTINGS) as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        caller = await nursery.start(hold_call, desk, events)
        began = trio.current_time()

        async def talk_until_ended() -> None:
            await speak(caller, spoken(GRACE - 1, 1.0 - 0.02))

        nursery.start_soon(talk_until_ended)
        await drain(desk, SETTINGS)
        assert trio.current_time() - began == pytest.approx(GRACE, abs=0.01)
    assert closings.texts == [["hello there"]]
    assert [record.reason for record in closings.records] == [CloseReason.DRAIN]


async def test_a_call_that_never_ends_is_left_at_the_last_deadline(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Grace, the finish of the last words, and both closes: then the drain is over, and scopes end what is left."""
    async with open_scripted_services(settings=SETTINGS) as services:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        with desk.registry.place(), capture_logs() as logs:
            began = trio.current_time()
            await drain(desk, SETTINGS)
            assert trio.current_time() == began + GRACE + FINISH + 2 * CLOSE
    assert [line["calls_cancelled"] for line in logs if line["event"] == "drain_ended"] == [1]
