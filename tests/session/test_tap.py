"""Those who listen to a session's events: what they get, and that they never hold it up."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.errors import SessionClosedError
from voice_agent.core.events import Notice, Pong, SessionClosed, SessionEvent, SessionReady
from voice_agent.core.request_errors import EventsGoneError, TooManyListenersError
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.session.tap import KEPT_EVENTS, MAX_LISTENERS, WAITING_EVENTS, EventTap, Listener

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]


def fill(tap: EventTap, first: int, last: int) -> None:
    for number in range(first, last + 1):
        tap.put(Pong(seq=number))


async def numbers(listener: Listener, count: int) -> list[int]:
    return [(await listener.receive()).seq for _ in range(count)]


async def everything(listener: Listener) -> list[SessionEvent]:
    """Read to the end."""
    found = []
    while True:
        try:
            found.append(await listener.receive())
        except trio.EndOfChannel:
            return found


async def rest(listener: Listener) -> list[int]:
    return [event.seq for event in await everything(listener)]


async def test_every_listener_gets_every_event_in_order() -> None:
    """From where it began to listen, each for itself."""
    tap = EventTap()
    fill(tap, 1, 3)
    with tap.listening(None) as first:
        fill(tap, 4, 5)
        with tap.listening(None) as second:
            fill(tap, 6, 7)
            assert tap.listener_count == 2
            assert await numbers(first, 4) == [4, 5, 6, 7]
            assert await numbers(second, 2) == [6, 7]
    assert tap.listener_count == 0


async def test_who_comes_back_misses_nothing_and_gets_nothing_twice() -> None:
    """Behind the last number it knows come the events that it missed, then those that come."""
    tap = EventTap()
    fill(tap, 1, 10)
    with tap.listening(7) as listener:
        fill(tap, 11, 12)
        assert await numbers(listener, 5) == [8, 9, 10, 11, 12]
    with tap.listening(12) as listener:
        fill(tap, 13, 13)
        assert await numbers(listener, 1) == [13]


@pytest.mark.parametrize(
    ("told", "after"), [(0, 1), (KEPT_EVENTS + 3, 2), (KEPT_EVENTS + 3, 0), (5, 6), (5, 10**12)]
)
def test_what_is_no_longer_kept_is_refused(told: int, after: int) -> None:
    """A gap is told as an error, never hidden; a number that never was is no place to go on from."""
    tap = EventTap()
    fill(tap, 1, told)
    with pytest.raises(EventsGoneError), tap.listening(after):
        pass
    with pytest.raises(EventsGoneError):
        tap.check(after)
    assert tap.listener_count == 0


@pytest.mark.parametrize(("told", "after"), [(0, 0), (5, 0), (KEPT_EVENTS + 3, 3), (5, 5)])
def test_the_edges_of_what_is_kept_are_served(told: int, after: int) -> None:
    """The oldest event that is kept, and the newest, are no gap."""
    tap = EventTap()
    fill(tap, 1, told)
    with tap.listening(after):
        assert tap.listener_count == 1


async def test_who_reads_too_slowly_is_cut_off_and_can_come_back() -> None:
    """It gets what was waiting for it, then its end; the other one and the session go on."""
    tap = EventTap()
    with tap.listening(None) as slow, tap.listening(None) as quick:
        for number in range(1, WAITING_EVENTS + 2):
            tap.put(Pong(seq=number))
            await quick.receive()
        assert slow.is_cut_off
        assert not quick.is_cut_off
        assert tap.listener_count == 1
        assert await rest(slow) == list(range(1, WAITING_EVENTS + 1))
        with tap.listening(WAITING_EVENTS) as again:
            assert await numbers(again, 1) == [WAITING_EVENTS + 1]


async def test_listeners_end_with_the_session() -> None:
    """Behind the close record nothing comes, and nobody can begin to listen."""
    tap = EventTap()
    with tap.listening(None) as listener:
        tap.put(Pong(seq=1))
        tap.close()
        tap.put(Pong(seq=2))
        assert await rest(listener) == [1]
        assert not listener.is_cut_off
    with pytest.raises(SessionClosedError):
        tap.check(None)


def test_listeners_are_bounded() -> None:
    """As many as may listen do; the next one is refused, and comes in when one has left."""
    tap = EventTap()
    listening = [tap.listening(None) for _ in range(MAX_LISTENERS)]
    for one in listening:
        one.__enter__()
    with pytest.raises(TooManyListenersError), tap.listening(None):
        pass
    listening.pop().__exit__(None, None, None)
    with tap.listening(None):
        assert tap.listener_count == MAX_LISTENERS


async def test_a_listener_hears_what_the_caller_is_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """The same events with the same numbers, to the close record; a listener who reads nothing changes nothing."""
    async with open_scripted_services() as services, open_session(services) as session:
        with session.tap.listening(None) as deaf, session.tap.listening(0) as listener:
            for _ in range(WAITING_EVENTS + 5):
                await session.publish(Notice(code="draining", message=""))
            await session.finish()
            told = [event async for event in session.events()]
            heard = await everything(listener)
            assert deaf.is_cut_off
    assert isinstance(told[0], SessionReady)
    assert isinstance(told[-1], SessionClosed)
    assert heard == told[:WAITING_EVENTS]  # it did not read while they came, so it was cut off there
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    assert attrs.evolve(told[0]) == heard[0]
