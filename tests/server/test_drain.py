"""The drain under virtual time: who is told, how long it waits, and what it does to those who stay."""

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.access.caller import Caller
from voice_agent.core.commands import Start, Stop
from voice_agent.core.events import CloseReason, Notice, SessionClosed, SessionEvent, Transcript
from voice_agent.core.frames import AudioFrame
from voice_agent.core.identity import ANONYMOUS
from voice_agent.server.calls import CallDesk
from voice_agent.server.drain import GOODBYE_SECONDS, LAST_WORDS_SECONDS, drain
from voice_agent.server.stopping import EXIT_WITHIN_SECONDS, LAST_RESORT_SECONDS, Stopping
from voice_agent.session.registry import CallRegistry
from voice_agent.session.services import Services
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import ServerSettings, SessionSettings, Settings
from voice_agent.speech.scripted import ScriptedEngine
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]

GRACE, FINISH, CLOSE = 20.0, 7.0, 3.0
CALLER = Caller(ANONYMOUS, "127.0.0.1")
LAME_DUCK = 4.0
SETTINGS = Settings(
    server=ServerSettings(grace_seconds=GRACE, lame_duck_seconds=0),
    session=SessionSettings(finish_timeout_seconds=FINISH, close_timeout_seconds=CLOSE),
)


@attrs.define
class Listener:
    """Stands for the HTTP server: notes when it stopped to listen, and how long its connections have at the end."""

    stopped_at: float | None = None
    close_seconds: float | None = None

    def stop_accepting(self) -> None:
        if self.stopped_at is None:
            self.stopped_at = trio.current_time()

    def hurry(self, close_seconds: float) -> None:
        self.close_seconds = close_seconds


async def drain_now(desk: CallDesk, settings: Settings = SETTINGS, **choices: Any) -> Listener:
    """Stop as a signal does."""
    listener = Listener()
    stopping = Stopping(CurrentSettings(settings))
    stopping.begin("SIGTERM", **choices)
    await drain(desk, stopping, listener)  # type: ignore[arg-type]
    return listener


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
            await desk._serve_call(desk.services, place, CALLER, transport)


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
        await drain_now(desk)
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
            await drain_now(desk)
        assert trio.current_time() - began == pytest.approx(2.0, abs=0.1)
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert (notice.code, notice.detail["grace_seconds"]) == ("draining", GRACE)
    until_deadline = datetime.fromisoformat(notice.detail["deadline"]) - datetime.now(UTC)
    assert timedelta() < until_deadline <= timedelta(seconds=GRACE)
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
        await drain_now(desk)
        assert trio.current_time() - began == pytest.approx(GRACE, abs=0.01)
    assert closings.texts == [["hello there"]]
    assert [record.reason for record in closings.records] == [CloseReason.DRAIN]


async def test_a_call_that_never_ends_is_left_at_the_last_deadline(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """The drain has its own time for last words and goodbye, less than the settings allow; scopes end what is left."""
    async with open_scripted_services(settings=SETTINGS) as services:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        with desk.registry.place(), capture_logs() as logs:
            began = trio.current_time()
            await drain_now(desk)
            assert trio.current_time() == began + GRACE + LAST_WORDS_SECONDS + GOODBYE_SECONDS
    assert min(FINISH, EXIT_WITHIN_SECONDS) > LAST_WORDS_SECONDS + GOODBYE_SECONDS
    assert [line["calls_cancelled"] for line in logs if line["event"] == "drain_ended"] == [1]


async def test_the_listener_stays_open_for_the_lame_duck_seconds(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Load balancers get their time also when no call is open; the desk is closed from the first moment on."""
    settings = attrs.evolve(SETTINGS, server=ServerSettings(grace_seconds=GRACE, lame_duck_seconds=LAME_DUCK))
    async with open_scripted_services(settings=settings) as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        began = trio.current_time()
        nursery.start_soon(drain_now, desk, settings)
        await wait_all_tasks_blocked()
        refusal = desk.room_for(CALLER)
        assert refusal is not None
        assert refusal.error.code == "draining"
    assert trio.current_time() == began + LAME_DUCK


@pytest.mark.parametrize(
    ("grace", "is_urgent", "stopped_after"),
    [(GRACE, False, LAME_DUCK), (1.0, False, 1.0), (GRACE, True, 0.0), (0.0, False, 0.0)],
)
async def test_the_lame_duck_seconds_are_a_part_of_the_grace_time(
    autojump_clock: MockClock,
    open_scripted_services: OpenServices,
    grace: float,
    is_urgent: bool,
    stopped_after: float,
) -> None:
    """A shorter grace time shortens them, Ctrl-C leaves them out; what is open is ended at the deadline all the same."""
    settings = attrs.evolve(SETTINGS, server=ServerSettings(grace_seconds=grace, lame_duck_seconds=LAME_DUCK))
    async with open_scripted_services(settings=settings) as services:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        with desk.registry.place():
            began = trio.current_time()
            listener = await drain_now(desk, settings, is_urgent=is_urgent)
    assert listener.stopped_at == began + stopped_after
    assert trio.current_time() == began + grace + LAST_WORDS_SECONDS + GOODBYE_SECONDS
    assert listener.close_seconds is not None


async def test_a_caller_on_the_way_in_is_told_too(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Who held a place before the drain and has a session after its start hears of it, with the time that is left."""
    events: list[SessionEvent] = []
    async with open_scripted_services(settings=SETTINGS) as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        with desk.registry.place():
            nursery.start_soon(drain_now, desk)
            await trio.sleep(5)
            caller = await nursery.start(hold_call, desk, events)
            await trio.sleep(1)
            await caller.send_command(Stop())
    [notice] = [event for event in events if isinstance(event, Notice)]
    assert (notice.code, notice.detail["grace_seconds"]) == ("draining", GRACE - 5)


async def test_a_call_whose_end_hangs_is_hurried(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """A recogniser that takes its time keeps a caller for the drain's seconds, not for the finish timeout."""
    engine = ScriptedEngine(["too late"], latency_seconds=60)
    async with open_scripted_services(engine, settings=SETTINGS) as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        caller = await nursery.start(hold_call, desk, [])
        await speak(caller, spoken(0.3, 1.0, 0.7))
        await caller.send_command(Stop())
        await trio.sleep(0.1)
        desk.registry.end_all(CloseReason.DRAIN, finish_seconds=1, close_seconds=1)
        with trio.move_on_after(1.5) as hurried:
            await desk.registry.wait_empty()
    assert not hurried.cancelled_caught
    assert [record.reason for record in closings.records] == [CloseReason.STOPPED]


async def test_a_call_that_was_ending_by_itself_gets_its_words_when_the_deadline_comes(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Hurried, its time counts from the deadline and not from its own decision: it is not forced, and is told its end."""
    events: list[SessionEvent] = []
    engine = ScriptedEngine(["at last"], latency_seconds=5)
    async with open_scripted_services(engine, settings=SETTINGS) as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(2))
        caller = await nursery.start(hold_call, desk, events)
        await speak(caller, spoken(0.3, 1.0, 0.7))
        await caller.send_command(Stop())
        await trio.sleep(4)
        desk.registry.end_all(
            CloseReason.DRAIN, finish_seconds=LAST_WORDS_SECONDS, close_seconds=GOODBYE_SECONDS
        )
        with capture_logs() as logs:
            await desk.registry.wait_empty()
    assert closings.texts == [["at last"]]
    assert isinstance(events[-1], SessionClosed)
    assert "close_overdue" not in {line["event"] for line in logs}


async def test_a_drain_is_begun_once(autojump_clock: MockClock) -> None:
    """The first cause stands and sets the clock; what would end the process from outside is told once."""
    told: list[float] = []
    stopping = Stopping(CurrentSettings(SETTINGS), last_resort=told.append)
    assert not stopping.begun.is_set()
    stopping.begin("request")
    deadline = stopping.deadline
    await trio.sleep(3)
    stopping.begin("SIGTERM")
    assert (stopping.cause, stopping.deadline) == ("request", deadline)
    assert told == [GRACE + LAST_RESORT_SECONDS]


async def test_what_comes_last_is_told_how_long_it_has(autojump_clock: MockClock) -> None:
    """Any time before a drain; then what is left of the five seconds after the deadline, and never nothing at all."""
    stopping = Stopping(CurrentSettings(SETTINGS))
    assert stopping.seconds_left() == math.inf
    stopping.begin("SIGTERM")
    assert GRACE < stopping.seconds_left() < GRACE + EXIT_WITHIN_SECONDS
    await trio.sleep(GRACE + EXIT_WITHIN_SECONDS)
    assert 0 < stopping.seconds_left() < 1
