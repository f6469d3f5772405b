"""The registry of open calls: places, who is told of a drain, and who is ended by it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.core.commands import Start
from voice_agent.core.events import CloseReason, Notice
from voice_agent.core.transport import Wire
from voice_agent.session.open import open_session
from voice_agent.session.registry import REMEMBERED_ENDED, REMEMBERED_SECONDS, CallRegistry
from voice_agent.session.services import Services
from voice_agent.session.summary import SessionState
from voice_agent.settings.schema import SessionSettings, Settings
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
DRAINING = Notice(code="draining", message="The server stops.")


def test_places_are_counted_to_the_last() -> None:
    """With two places the second call is the last, and a place that was left is free again, whatever ended the call."""
    registry = CallRegistry(2)
    assert (len(registry), registry.is_full) == (0, False)
    with registry.place():
        assert (len(registry), registry.is_full) == (1, False)
        with pytest.raises(KeyError), registry.place():  # noqa: PT012 (what is raised is raised in the place)
            assert (len(registry), registry.is_full) == (2, True)
            raise KeyError("a call that crashed")
        assert (len(registry), registry.is_full) == (1, False)
    assert len(registry) == 0


async def test_waiting_for_the_last_call_ends_with_it_and_not_with_another(autojump_clock: MockClock) -> None:
    """Who waits is woken when no call is left, however often that happens; without calls nobody waits."""
    registry = CallRegistry(10)
    await registry.wait_empty()

    async def call(seconds: float) -> None:
        with registry.place():
            await trio.sleep(seconds)

    for _ in range(2):
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, 1)
            nursery.start_soon(call, 3)
            await trio.sleep(0.5)
            with trio.fail_after(60):
                await registry.wait_empty()
            assert trio.current_time() == began + 3


async def open_call(
    services: Services, registry: CallRegistry, transport: Any, task_status: trio.TaskStatus[Any]
) -> None:
    """Hold a call as the server does."""
    with registry.place() as place:
        async with open_session(services, transport, wire=Wire.WEBSOCKET) as session:
            place.hold(session)
            task_status.started(session)
            await session.heard_all.wait()


async def notices_of(caller: MemoryCaller, told: list[str]) -> None:
    async for event in caller.events():
        if isinstance(event, Notice):
            told.append(event.code)


async def test_every_open_call_is_told_and_ended(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """A notice reaches the calls that are open and no other; then all are ended for the reason given, at once."""
    registry = CallRegistry(10)
    told: list[list[str]] = [[] for _ in range(3)]
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        for number in range(3):
            transport, caller = open_memory_pair()
            session = await nursery.start(open_call, services, registry, transport)
            nursery.start_soon(notices_of, caller, told[number])
            await caller.send_command(Start())
            if number == 0:
                caller.hang_up()
                await session.closed.wait()
        await registry.tell_all(lambda: DRAINING)
        await wait_all_tasks_blocked()
        assert told == [[], ["draining"], ["draining"]]
        registry.end_all(CloseReason.DRAIN)
        with trio.fail_after(1):
            await session.closed.wait()
    assert [record.reason for record in closings.records] == [
        CloseReason.HANGUP,
        CloseReason.DRAIN,
        CloseReason.DRAIN,
    ]
    assert registry._sessions == {}


async def test_a_call_that_is_over_can_still_be_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Between its last event and its last task a call takes no notice any more; that is nobody's error."""
    registry = CallRegistry(10)
    async with open_scripted_services() as services, open_session(services) as session:
        await session.finish()
        await session.closed.wait()
        with registry.place() as place:
            place.hold(session)
            await registry.tell_all(lambda: DRAINING)
        assert not any([isinstance(event, Notice) async for event in session.events()])


async def test_who_does_not_read_is_waited_for_no_longer_than_a_close(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A call whose events are not read takes its own time; the other hears of the drain at once."""
    settings = Settings(session=SessionSettings(max_waiting_events=16, close_timeout_seconds=3))
    registry = CallRegistry(10)
    async with (
        open_scripted_services(settings=settings) as services,
        open_session(services) as deaf,
        open_session(services) as hearing,
    ):
        while deaf._outbox._send.statistics().current_buffer_used < 16:
            await deaf.publish(DRAINING)
        began = trio.current_time()
        with registry.place() as one, registry.place() as other:
            one.hold(deaf)
            other.hold(hearing)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(registry.tell_all, lambda: DRAINING)
                seen = [event async for _, event in _until_notice(hearing)]
                assert isinstance(seen[-1], Notice)
                assert trio.current_time() == began
        assert trio.current_time() == began + 3
        assert not deaf.is_ending
        assert len([event async for _, event in _first(deaf, 16)]) == 16


async def _until_notice(session: Any) -> Any:
    async for event in session.events():
        yield None, event
        if isinstance(event, Notice):
            return


async def _first(session: Any, count: int) -> Any:
    for number in range(count):
        yield number, await anext(session.events())


async def test_a_session_is_found_until_shortly_after_its_end(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Live, ending, ended with its close record; ten minutes later nobody knows it any more."""
    registry = CallRegistry(10)
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        session = await nursery.start(open_call, services, registry, transport)
        await caller.send_command(Start())
        await wait_all_tasks_blocked()
        assert registry.find(session.id) is session
        live = registry.find_summary(session.id)
        assert live is not None
        assert (live.state, live.wire, live.key, live.tenant) == (
            SessionState.LIVE,
            Wire.WEBSOCKET,
            "anonymous",
            "default",
        )
        assert live.close is None
        assert {"listen", "transcribe", "send"} <= set(live.stages)
        await trio.sleep(5)
        session.end(CloseReason.ENDED_BY_OPERATOR)
        ending = registry.find_summary(session.id)
        assert ending is not None
        assert (ending.state, ending.duration_seconds) == (SessionState.ENDING, 5)
        await registry.wait_empty()
        assert registry.find(session.id) is None
        ended = registry.find_summary(session.id)
        assert ended is not None
        assert (ended.state, ended.stages) == (SessionState.ENDED, ())
        assert ended.ended_at is not None
        assert ended.close is not None
        assert ended.close.reason is CloseReason.ENDED_BY_OPERATOR
        await trio.sleep(REMEMBERED_SECONDS + 1)
        assert registry.find_summary(session.id) is None
        assert list(registry.summaries()) == []


async def test_summaries_come_newest_first(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """The order is that of opening, whether a session is open or remembered."""
    registry = CallRegistry(10)
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        sessions = []
        for number in range(4):
            transport, caller = open_memory_pair()
            sessions.append(await nursery.start(open_call, services, registry, transport))
            await caller.send_command(Start())
            if number == 1:
                caller.hang_up()
                await sessions[1].closed.wait()
        await wait_all_tasks_blocked()
        everybody = list(registry.summaries())
        assert [one.id for one in everybody] == [session.id for session in reversed(sessions)]
        assert [one.state for one in everybody] == ["live", "live", "ended", "live"]
        nursery.cancel_scope.cancel()


async def test_no_more_of_the_ended_are_remembered_than_the_bound(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A server that ends many calls a minute keeps the newest of them, and its memory."""
    registry = CallRegistry(10)
    async with open_scripted_services() as services, open_session(services) as session:
        for _ in range(REMEMBERED_ENDED + 5):
            with registry.place() as place:
                place.hold(session)
        assert len(list(registry.summaries())) == REMEMBERED_ENDED
