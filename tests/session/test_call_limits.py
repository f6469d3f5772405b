"""What one call may bring: told of once, then ended with its code; under virtual time, so to the frame."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.commands import Start, Stop, TypedText
from voice_agent.core.events import CloseReason, Fault, Notice, SessionClosed, SessionEvent, SessionReady
from voice_agent.core.frames import AudioFrame
from voice_agent.core.identity import ANONYMOUS, Quotas
from voice_agent.session.call_limits import CallLimits
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import LimitsSettings, SessionSettings, Settings
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]

SECOND = AudioFrame(np.zeros(16_000, np.int16), 16_000)
LIMITED = Settings(limits=LimitsSettings(max_audio_rate=2, audio_burst_seconds=10, max_transcript_chars=1000))


def hits(services: Services, limit: str) -> float:
    return services.metrics.registry.get_sample_value("voice_agent_limit_hits_total", {"limit": limit}) or 0.0


async def hold(
    open_services: OpenServices,
    behave: Callable[[MemoryCaller], Any],
    *,
    settings: Settings = LIMITED,
    current: CurrentSettings | None = None,
    identity: Any = ANONYMOUS,
) -> tuple[list[tuple[float, SessionEvent]], Services]:
    """Hold a call as a server does; return its events with their times, and its services."""
    events: list[tuple[float, SessionEvent]] = []
    async with open_services(settings=settings) as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair(max_frames=100_000)
        began_at = trio.current_time()

        async def listen() -> None:
            async for event in caller.events():
                events.append((round(trio.current_time() - began_at, 6), event))

        async def call() -> None:
            limits = CallLimits(current or CurrentSettings(settings))
            async with open_session(services, transport, identity=identity, limits=limits):
                pass
            nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        nursery.start_soon(call)
        await caller.send_command(Start())
        await behave(caller)
        await trio.sleep_forever()
    return events, services


def of(kind: type, events: list[tuple[float, SessionEvent]]) -> list[tuple[float, Any]]:
    return [(at, event) for at, event in events if isinstance(event, kind)]


def near(events: list[tuple[float, SessionEvent]]) -> list[tuple[float, dict[str, Any]]]:
    return [(at, notice.detail) for at, notice in of(Notice, events) if notice.code == "limit_near"]


async def test_a_caller_in_real_time_is_never_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Two minutes of audio in two minutes, in pieces of a second."""

    async def behave(caller: MemoryCaller) -> None:
        for _ in range(120):
            await caller.send_audio(SECOND)
            await trio.sleep(1)
        await caller.send_command(Stop())

    events, _ = await hold(open_scripted_services, behave)
    assert near(events) == []
    assert events[-1][1].record.reason is CloseReason.STOPPED


async def test_audio_at_four_times_real_time_is_told_then_ended(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Of a burst of 10 s, a caller at 4 times real time uses 2 s each second: told at three quarters, ended when it is used."""

    async def behave(caller: MemoryCaller) -> None:
        for _ in range(100):
            await caller.send_audio(SECOND)
            await trio.sleep(0.25)

    events, services = await hold(open_scripted_services, behave)
    [(told_at, detail)] = near(events)
    assert detail == {"limit": "audio", "used": pytest.approx(7.5, abs=0.5), "allowed": 10}
    assert told_at == pytest.approx(3.25, abs=0.3)
    [(failed_at, fault)] = of(Fault, events)
    assert (fault.code, fault.is_fatal, fault.close_code) == ("audio_rate_exceeded", True, 4429)
    assert failed_at == pytest.approx(4.75, abs=0.3)
    assert [type(event) for _, event in events[-2:]] == [Fault, SessionClosed]
    record = events[-1][1].record
    assert (record.reason, record.error_code) == (CloseReason.CALLER_ERROR, "audio_rate_exceeded")
    assert hits(services, "audio") == 1


async def test_a_burst_as_long_as_allowed_is_served(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A short file at once, and another one when the first would have been played: told, and not ended."""

    async def behave(caller: MemoryCaller) -> None:
        for _ in range(10):
            await caller.send_audio(SECOND)
        await trio.sleep(10)
        for _ in range(10):
            await caller.send_audio(SECOND)
        await caller.send_command(Stop())

    events, _ = await hold(open_scripted_services, behave)
    assert [at for at, _ in near(events)] == [0, 10]
    assert of(Fault, events) == []


async def test_a_program_that_feeds_its_own_session_is_not_limited(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Without a transport there is nobody to be protected from: an hour of audio in no time."""
    async with open_scripted_services(settings=LIMITED) as services, open_session(services) as session:
        for _ in range(3600):
            await session.send_audio(SECOND)
        await session.finish()
        events = [event async for event in session.events()]
    assert isinstance(events[-1], SessionClosed)
    assert events[-1].record.audio_seconds == 3600
    assert not [event for event in events if isinstance(event, Notice | Fault)]


async def test_text_beyond_the_limit_ends_the_call(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Told at nine tenths; the final that is too much is still told, then 4413."""

    async def behave(caller: MemoryCaller) -> None:
        for _ in range(11):
            await caller.send_command(TypedText(text="x" * 100))

    events, services = await hold(open_scripted_services, behave)
    assert [detail for _, detail in near(events)] == [{"limit": "transcript", "used": 900, "allowed": 1000}]
    [(_, fault)] = of(Fault, events)
    assert (fault.code, fault.close_code) == ("transcript_too_large", 4413)
    assert events[-1][1].record.transcripts == 11
    assert hits(services, "transcript") == 1


async def test_a_silent_caller_is_told_then_ended(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Idle for 60 s: told at 45 s, and again in the next silence; ended after a whole one."""
    settings = attrs.evolve(LIMITED, session=SessionSettings(idle_timeout_seconds=60))

    async def behave(caller: MemoryCaller) -> None:
        await trio.sleep(50)
        await caller.send_audio(SECOND)

    events, services = await hold(open_scripted_services, behave, settings=settings)
    assert [at for at, _ in near(events)] == [45, 95]
    [(failed_at, fault)] = of(Fault, events)
    assert (failed_at, fault.code, fault.close_code) == (110, "idle_timeout", 4408)
    assert events[-1][1].record.reason is CloseReason.IDLE_TIMEOUT
    assert hits(services, "idle") == 1


@pytest.mark.parametrize(("quota", "ends_at"), [(None, 600), (90.0, 90), (1200.0, 1200)])
async def test_a_call_ends_at_its_maximum_and_a_key_may_have_its_own(
    autojump_clock: MockClock, open_scripted_services: OpenServices, quota: float | None, ends_at: float
) -> None:
    """The key's quota goes before the setting, whichever is longer; told a minute before, or a quarter of it."""
    settings = attrs.evolve(
        LIMITED, session=SessionSettings(max_duration_seconds=600, idle_timeout_seconds=5000)
    )
    identity = attrs.evolve(ANONYMOUS, key_id="key", quotas=Quotas(max_duration_seconds=quota))

    async def behave(caller: MemoryCaller) -> None:
        await trio.lowlevel.checkpoint()

    events, services = await hold(open_scripted_services, behave, settings=settings, identity=identity)
    notice_seconds = min(60, ends_at / 4)
    assert near(events) == [
        (
            ends_at - notice_seconds,
            {"limit": "duration", "used": ends_at - notice_seconds, "allowed": ends_at},
        )
    ]
    [(failed_at, fault)] = of(Fault, events)
    assert (failed_at, fault.code, fault.close_code) == (ends_at, "max_duration", 4410)
    assert events[-1][1].record.reason is CloseReason.MAX_DURATION
    assert of(SessionReady, events)[0][1].limits["max_duration_seconds"] == ends_at
    assert hits(services, "duration") == 1


async def test_a_limit_that_is_changed_holds_for_the_running_call(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """The call began with a burst of 10 s; the operator makes it 3 s, and the fourth second at once is too much."""
    current = CurrentSettings(LIMITED)

    async def behave(caller: MemoryCaller) -> None:
        current.replace(attrs.evolve(LIMITED, limits=attrs.evolve(LIMITED.limits, audio_burst_seconds=3)))
        await trio.sleep(1)
        for _ in range(4):
            await caller.send_audio(SECOND)

    events, _ = await hold(open_scripted_services, behave, current=current)
    [(_, fault)] = of(Fault, events)
    assert fault.code == "audio_rate_exceeded"
    ready = of(SessionReady, events)[0][1]
    assert ready.limits["max_audio_rate"] == 2
    assert ready.limits["max_transcript_chars"] == 1000
