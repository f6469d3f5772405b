"""What a session promises at its edges: what keeps it alive, how long each end may take, and what the record says."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.core.commands import CallOptions, Ping, Start, Stop
from voice_agent.core.errors import BadAudioError, RecognitionFailedError, SessionClosedError
from voice_agent.core.events import (
    CloseReason,
    Fault,
    SessionClosed,
    SessionEvent,
    SessionReady,
    SpeechStarted,
    Transcript,
)
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.settings.schema import LimitsSettings, SessionSettings, Settings, WebSocketSettings
from voice_agent.speech.engine import Recognition, RecognitionRequest
from voice_agent.speech.scripted import ScriptedEngine
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]


class SilentEngine:
    """Never answers."""

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        await trio.sleep_forever()
        raise AssertionError


def sample(services: Services, name: str, **labels: str) -> float:
    """Return a value as an operator scrapes it; 0 when there is none yet."""
    return services.metrics.registry.get_sample_value(f"voice_agent_{name}", labels) or 0.0


async def hold(services: Services, transport: Any) -> None:
    async with open_session(services, transport):
        pass


async def listen(caller: MemoryCaller, events: list[SessionEvent]) -> None:
    async for event in caller.events():
        events.append(event)


async def all_events(session: Session) -> list[SessionEvent]:
    return [event async for event in session.events()]


async def test_ready_says_what_was_chosen_and_what_is_allowed(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """The caller's format and options, the session's id, and the limits that are in force, each by its setting."""
    settings = Settings(
        session=SessionSettings(idle_timeout_seconds=7, max_duration_seconds=70, max_waiting_audio_ms=700),
        websocket=WebSocketSettings(max_binary_bytes=2048, max_text_bytes=1024),
        limits=LimitsSettings(max_messages_per_second=77),
    )
    audio_format = AudioFormat(Encoding.MULAW, 8_000, 1)
    options = CallOptions(partials=False)
    events: list[SessionEvent] = []
    async with open_scripted_services(settings=settings) as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(listen, caller, events)
        async with open_session(services, transport, session_id="me"):
            await caller.send_command(Start(audio_format=audio_format, options=options))
            await caller.send_command(Stop())
    ready = events[0]
    assert isinstance(ready, SessionReady)
    assert (ready.session_id, ready.audio_format, ready.options) == ("me", audio_format, options)
    assert ready.limits == {
        "max_binary_bytes": 2048,
        "max_text_bytes": 1024,
        "max_messages_per_second": 77,
        "max_waiting_audio_ms": 700,
        "idle_timeout_seconds": 7,
        "max_duration_seconds": 70,
    }
    assert (ready.seq, ready.position_ms) == (1, 0)


async def test_typed_text_is_a_final_at_its_place_in_the_call(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """It takes an utterance number as speech does, stands where the audio stood, and is in the transcript."""
    async with open_scripted_services() as services, open_session(services) as session:
        for frame in spoken(0.5, 1.0, 0.5):
            await session.send_audio(frame)
        await wait_all_tasks_blocked()
        await session.send_text("I write")
        await session.finish()
        results = [
            e.result for e in await all_events(session) if isinstance(e, Transcript) and e.result.is_final
        ]
    typed = results[1]
    assert (typed.text, typed.stable, typed.utterance) == ("I write", "I write", 2)
    assert (typed.start, typed.end) == (2.0, 2.0)
    assert [result.text for result in session.transcript] == ["hello there", "I write"]
    assert sample(services, "transcripts_total", kind="final") == 2


async def test_a_program_can_flush(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The final comes without silence and without the end, at the place of the audio sent; without audio it is nothing."""
    async with open_scripted_services() as services, open_session(services) as session:
        await session.flush()
        for frame in spoken(0.5, 1.0):
            await session.send_audio(frame)
        await session.flush()
        await wait_all_tasks_blocked()
        assert [result.text for result in session.transcript] == ["hello there"]
        for frame in spoken(1.0, starts_silent=False):
            await session.send_audio(frame)
        await session.finish()
    assert [result.text for result in session.transcript] == ["hello there", "how are you"]
    assert session.transcript[1].start == pytest.approx(1.5, abs=0.01)


async def test_the_language_that_was_chosen_is_that_of_every_transcript(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Partials and finals alike."""
    async with (
        open_scripted_services() as services,
        open_session(services, options=CallOptions(language="xx")) as session,
    ):
        for frame in spoken(0.3, 2.0, 0.6):
            await session.send_audio(frame)
            await trio.sleep(0.02)
        await session.finish()
        told = [event.result for event in await all_events(session) if isinstance(event, Transcript)]
    assert {result.is_final for result in told} == {False, True}
    assert {result.language for result in told} == {"xx"}


@pytest.mark.parametrize("sign", ["audio", "text", "ping"])
async def test_whatever_comes_keeps_a_call_alive(
    sign: str, autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Something every fifty seconds for five minutes; then nothing, and the end comes sixty seconds after the last."""
    settings = Settings(session=SessionSettings(idle_timeout_seconds=60))
    silence = spoken(0.02)[0]
    async with open_scripted_services(settings=settings) as services, open_session(services) as session:
        for _ in range(6):
            match sign:
                case "audio":
                    await session.send_audio(silence)
                case "text":
                    await session.send_text("still here")
                case "ping":
                    await session.obey(Ping(id="1"))
            last = trio.current_time()
            await trio.sleep(50)
        with trio.fail_after(60):
            await session.closed.wait()
        assert trio.current_time() == last + 60
        assert session.record is not None
        assert session.record.reason is CloseReason.IDLE_TIMEOUT
        with pytest.raises(SessionClosedError):
            await session.send_audio(silence)


async def test_finish_waits_for_the_last_words_and_no_longer(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Three seconds of recognition are waited for, and stand in the record as the seconds that the close took."""
    engine = ScriptedEngine(["last words"], latency_seconds=3)
    async with open_scripted_services(engine=engine) as services, open_session(services) as session:
        for frame in spoken(0.5, 1.0):
            await session.send_audio(frame)
        await trio.sleep(5)
        began = trio.current_time()
        await session.finish()
        assert trio.current_time() == began + 3
        assert [result.text for result in session.transcript] == ["last words"]
    [record] = closings.records
    assert record.close_seconds == 3
    assert record.duration_seconds == pytest.approx(8)
    assert record.audio_seconds == 1.5
    assert record.transcripts == 1
    assert sample(services, "close_seconds_count", stage=record.stage_waited_for) == 1
    assert sample(services, "close_seconds_sum", stage=record.stage_waited_for) == 3
    assert sample(services, "call_seconds_sum") == pytest.approx(8)
    assert sample(services, "calls_total", reason="stopped") == 1
    assert sample(services, "active_sessions") == 0


async def test_finish_is_bounded(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """An engine that never answers costs the finish timeout, to the instant, and its words."""
    settings = Settings(session=SessionSettings(finish_timeout_seconds=4))
    async with (
        open_scripted_services(engine=SilentEngine(), settings=settings) as services,
        open_session(services) as session,
    ):
        assert sample(services, "active_sessions") == 1
        for frame in spoken(0.5, 1.0):
            await session.send_audio(frame)
        began = trio.current_time()
        await session.finish()
        assert trio.current_time() == began + 4
        events = await all_events(session)
    assert isinstance(events[-1], SessionClosed)
    assert session.transcript == ()


@attrs.define(eq=False)
class FaultyTransport:
    """A memory transport that raises what it is given to raise, or that never closes."""

    inner: Any
    error: Exception | None = None
    never_closes: bool = False

    async def recv_audio(self) -> AudioFrame:
        frame: AudioFrame = await self.inner.recv_audio()
        if self.error is not None:
            raise self.error
        return frame

    async def recv_text(self) -> Any:
        return await self.inner.recv_text()

    async def send_audio(self, frame: AudioFrame) -> None:
        await self.inner.send_audio(frame)

    async def send_text(self, event: SessionEvent) -> None:
        await self.inner.send_text(event)

    async def aclose(self) -> None:
        await self.inner.aclose()
        if self.never_closes:
            await trio.sleep_forever()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("secret of the inside"), "internal_error"),
        (RecognitionFailedError("secret of the inside"), "recognition_failed"),
        (
            ExceptionGroup("g", [ExceptionGroup("h", [RecognitionFailedError("secret")])]),
            "recognition_failed",
        ),
        (ExceptionGroup("g", [RecognitionFailedError("secret"), ValueError("x")]), "internal_error"),
    ],
    ids=["foreign", "ours", "ours in groups", "several"],
)
async def test_a_crash_ends_the_call_at_once_and_tells_nothing_of_the_inside(
    error: Exception,
    code: str,
    autojump_clock: MockClock,
    open_scripted_services: OpenServices,
    spoken: Spoken,
    closings: Any,
) -> None:
    """What is being recognised is not waited for; the caller gets a stable code, close code 1011, and no details."""
    events: list[SessionEvent] = []
    async with (
        open_scripted_services(engine=SilentEngine()) as services,
        trio.open_nursery() as nursery,
        crashes_logged() as crashes,
    ):
        transport, caller = open_memory_pair(max_frames=1000)
        faulty = FaultyTransport(transport)
        nursery.start_soon(listen, caller, events)
        nursery.start_soon(hold, services, faulty)
        await caller.send_command(Start())
        for frame in spoken(0.5, 1.0, 0.5):
            await caller.send_audio(frame)
        await wait_all_tasks_blocked()
        began = trio.current_time()
        faulty.error = error
        await caller.send_audio(spoken(0.02)[0])
        await wait_all_tasks_blocked()
        assert len(closings.records) == 1
        assert trio.current_time() == began
    [fault] = [event for event in events if isinstance(event, Fault)]
    assert (fault.code, fault.is_fatal, fault.close_code) == (code, True, 1011)
    assert "secret" not in fault.message
    [record] = closings.records
    assert (record.reason, record.error_code) == (CloseReason.INTERNAL_ERROR, code)
    assert (record.close_seconds, record.tasks_left) == (0, 0)
    assert crashes == ["receive audio"]
    assert sample(services, "calls_total", reason="internal_error") == 1


@asynccontextmanager
async def crashes_logged() -> AsyncIterator[list[str]]:
    """Collect the stages whose crash was logged; the list is full behind the block."""
    stages: list[str] = []
    with capture_logs() as logs:
        yield stages
    stages.extend(line["stage"] for line in logs if line["event"] == "stage_crashed")


async def test_a_callers_error_is_told_with_its_field_and_close_code(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """As the error's class has them: the transport closes with that code."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(listen, caller, events)
        nursery.start_soon(hold, services, transport)
        await caller.send_command(Start())
        await transport._line.incoming.put_text(BadAudioError("odd", field="audio"))
    [fault] = [event for event in events if isinstance(event, Fault)]
    assert (fault.code, fault.field, fault.close_code, fault.message) == (
        "bad_audio",
        "audio",
        BadAudioError.close_code,
        "odd",
    )


async def test_positions_are_counted_across_sample_rates(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A second at 48 kHz, then one at 8 kHz, neither with a position: no gap between them, and no overlap."""
    async with open_scripted_services() as services, open_session(services) as session:
        for rate in (48_000, 8_000, 16_000):
            loud = np.random.default_rng(1).uniform(-0.3, 0.3, rate).astype(np.float32)
            await session.send_audio(AudioFrame(loud, rate))
        await session.finish()
        events = await all_events(session)
    assert [event.start for event in events if isinstance(event, SpeechStarted)] == [0.0, 1.0, 2.0]
    assert events[-1].position_ms == 3000
    assert session.record is not None
    assert session.record.audio_seconds == 3.0


async def test_a_connection_that_never_closes_is_left_at_the_close_timeout(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """The call is recorded then, with the reason it had, and is open no more."""
    settings = Settings(session=SessionSettings(close_timeout_seconds=3))
    async with open_scripted_services(settings=settings) as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(hold, services, FaultyTransport(transport, never_closes=True))
        await caller.send_command(Start())
        await wait_all_tasks_blocked()
        caller.hang_up()
    assert trio.current_time() == pytest.approx(3)
    assert [record.reason for record in closings.records] == [CloseReason.HANGUP]
    assert sample(services, "active_sessions") == 0


async def test_each_session_has_a_name_of_its_own(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """Thirty-two hexadecimal digits unless a name is given; the record has it too."""
    async with open_scripted_services() as services:
        for _ in range(3):
            async with open_session(services):
                pass
        async with open_session(services, session_id="mine"):
            pass
    names = [record.session_id for record in closings.records]
    assert len({*names}) == 4
    assert names[3] == "mine"
    assert all(len(bytes.fromhex(name)) == 16 for name in names[:3])
