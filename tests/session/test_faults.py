"""What goes wrong in one call: a crash at any stage, a cancellation at any step, a close that hangs."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from voice_agent.core.commands import Command, Ping, Start, Stop
from voice_agent.core.errors import SessionClosedError
from voice_agent.core.events import CloseReason, Fault, SessionClosed, SessionEvent, Transcript
from voice_agent.core.frames import AudioFrame
from voice_agent.session import hearing
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.settings.schema import SessionSettings, Settings
from voice_agent.speech.engine import Recognition, RecognitionRequest
from voice_agent.speech.scripted import ScriptedEngine, ScriptedVoiceActivity
from voice_agent.transports.memory import MemoryCaller, MemoryTransport, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]

VICTIM = "victim"


class InjectedError(Exception):
    """What the tests make stages raise."""


class FaultyTransport:
    """A transport one of whose methods raises something that it should not, the third time it is called."""

    def __init__(self, inner: MemoryTransport, method: str) -> None:
        self._inner = inner
        self._method = method
        self._calls = 0

    def _fail(self, method: str) -> None:
        if method == self._method:
            self._calls += 1
            if self._calls == 3:
                raise InjectedError(method)

    async def recv_audio(self) -> AudioFrame:
        self._fail("recv_audio")
        return await self._inner.recv_audio()

    async def recv_text(self) -> Command:
        self._fail("recv_text")
        return await self._inner.recv_text()

    async def send_audio(self, frame: AudioFrame) -> None:
        await self._inner.send_audio(frame)

    async def send_text(self, event: SessionEvent) -> None:
        self._fail("send_text")
        await self._inner.send_text(event)

    async def aclose(self) -> None:
        await self._inner.aclose()


class FaultyEngine(ScriptedEngine):
    """Raises for the victim's utterances."""

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        if request.utterance_key[0] == VICTIM:
            raise InjectedError("engine")
        return await super().recognise(request)


class FaultyVoiceActivity(ScriptedVoiceActivity):
    """Raises on windows that hold the mark."""

    def open_stream(self) -> Any:
        stream = super().open_stream()

        class Stream:
            async def probabilities(self, windows: Any) -> Any:
                if np.any(windows > 0.9):
                    raise InjectedError("voice activity")
                return await stream.probabilities(windows)

            def reset(self) -> None:
                stream.reset()

        return Stream()


async def talk(caller: MemoryCaller, frames: list[AudioFrame], events: list[SessionEvent]) -> None:
    """One caller's whole call, as far as the server lets it."""
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            async for event in caller.events():
                events.append(event)

        nursery.start_soon(listen)
        try:
            await caller.send_command(Start())
            await caller.send_command(Ping())
            for frame in frames:
                await caller.send_audio(frame)
                await trio.sleep(0.02)
            await caller.send_command(Stop())
        except SessionClosedError:
            # The victim's caller finds its call closed at any point.
            return


@pytest.mark.parametrize(
    "stage", ["recv_audio", "recv_text", "send_text", "engine", "voice activity", "resampler"]
)
async def test_a_crash_in_one_of_ten_calls_ends_that_call_alone(
    stage: str,
    autojump_clock: MockClock,
    open_scripted_services: OpenServices,
    spoken: Spoken,
    closings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nine calls get their finals; the tenth is closed with `internal_error`, logged, and leaves nothing behind."""
    if stage == "resampler":
        real = hearing.open_resampler

        def open_faulty(input_rate: int, *args: Any, **kwargs: Any) -> Any:
            if input_rate == 8000:
                raise InjectedError("resampler")
            return real(input_rate, *args, **kwargs)

        monkeypatch.setattr(hearing, "open_resampler", open_faulty)
    events: list[list[SessionEvent]] = [[] for _ in range(10)]
    frames = spoken(0.3, 1.0, 0.6)
    marked = [
        *frames[:20],
        AudioFrame(np.full(320, 0.95, np.float32), 16_000, frames[20].position),
        *frames[21:],
    ]
    others = {"voice activity": marked, "resampler": spoken(0.3, 1.0, 0.6, rate=8000)}
    with capture_logs() as logs:
        async with (
            open_scripted_services(
                engine=FaultyEngine(["hello there"]), voice_activity=FaultyVoiceActivity()
            ) as services,
            trio.open_nursery() as nursery,
        ):

            async def serve(number: int, transport: Any) -> None:
                name = VICTIM if number == 4 and stage == "engine" else f"call-{number}"
                async with open_session(services, transport, session_id=name):
                    pass

            for number in range(10):
                transport, caller = open_memory_pair()
                is_victim = number == 4
                nursery.start_soon(
                    serve, number, FaultyTransport(transport, stage) if is_victim else transport
                )
                nursery.start_soon(
                    talk, caller, others.get(stage, frames) if is_victim else frames, events[number]
                )
    for number, heard in enumerate(events):
        texts = [e.result.text for e in heard if isinstance(e, Transcript) and e.result.is_final]
        if number != 4:
            assert texts == ["hello there"]
    crashed = [r for r in closings.records if r.reason is CloseReason.INTERNAL_ERROR]
    assert len(closings.records) == 10
    assert len(crashed) == 1
    assert crashed[0].tasks_left == 0
    assert crashed[0].error_code == "internal_error"
    assert "stage_crashed" in {line["event"] for line in logs}
    if stage != "send_text":
        assert [e.code for e in events[4] if isinstance(e, Fault)] == ["internal_error"]
        assert isinstance(events[4][-1], SessionClosed)


class CancelAtStep(trio.abc.Instrument):
    """Cancels a scope at the n-th step that any task takes."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self._scope = scope
        self._left = step

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._left -= 1
        if self._left == 0:
            self._scope.cancel()


async def test_a_call_can_be_cancelled_at_every_step(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Cancelled at step 1, 2, 3 … of a whole call: it is recorded once, its caller is let go, and no task is left."""
    frames = spoken(0.1, 0.5, 0.4)
    step = 0
    is_cancelled = True
    async with open_scripted_services(engine=ScriptedEngine(["hello"] * 5, latency_seconds=0.05)) as services:
        while is_cancelled:
            step += 1 + step // 40
            transport, caller = open_memory_pair()
            events: list[SessionEvent] = []
            before = len(closings.records)
            tasks_before = trio.lowlevel.current_statistics().tasks_living
            async with trio.open_nursery() as nursery:
                nursery.start_soon(talk, caller, frames, events)
                with trio.CancelScope() as scope:
                    instrument = CancelAtStep(scope, step)
                    trio.lowlevel.add_instrument(instrument)
                    try:
                        async with open_session(services, transport):
                            pass
                    finally:
                        trio.lowlevel.remove_instrument(instrument)
                is_cancelled = scope.cancel_called
                if len(closings.records) == before:
                    caller.hang_up()
                    await transport.aclose()
            assert len(closings.records) == before + 1
            assert closings.records[-1].tasks_left == 0
            assert isinstance(events[-1], SessionClosed)
            await trio.testing.wait_all_tasks_blocked()
            # The watchdog of the call ends with the call.
            assert trio.lowlevel.current_statistics().tasks_living == tasks_before
    assert step > 100


async def test_a_caller_who_never_reads_does_not_hold_the_call(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Events pile up to their bound, then the close timeout ends the wait."""
    settings = Settings(session=SessionSettings(finish_timeout_seconds=2, close_timeout_seconds=1))
    async with open_scripted_services(settings=settings) as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair(max_events=1)

        async def serve() -> None:
            async with open_session(services, transport):
                pass

        nursery.start_soon(serve)
        await caller.send_command(Start())
        for frame in spoken(0.3, 1.0, 0.6):
            await caller.send_audio(frame)
            await trio.sleep(0.02)
        caller.hang_up()
    assert closings.records[0].reason is CloseReason.HANGUP
    assert closings.texts == [["hello there"]]
