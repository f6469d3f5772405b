"""Transcribing: what the caller is told when recognition fails, or races with the caller's pauses."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import structlog
import trio
from trio.testing import MockClock

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.core.events import CloseReason, Fault, SessionClosed, SessionEvent, SpeechStopped, Transcript
from voice_agent.core.frames import AudioFrame
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.settings.schema import LoggingSettings, Settings
from voice_agent.speech.engine import Recognition, RecognitionRequest, Urgency
from voice_agent.speech.scripted import ScriptedEngine

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]


class FailingEngine(ScriptedEngine):
    """Fails on the requests that ``fails`` picks."""

    def __init__(self, script: list[str], fails: Callable[[RecognitionRequest], bool]) -> None:
        super().__init__(script)
        self.fails = fails

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        if self.fails(request):
            await trio.lowlevel.checkpoint()
            raise RecognitionFailedError("the speech model failed")
        return await super().recognise(request)


async def hear(services: Services, frames: list[AudioFrame]) -> list[SessionEvent]:
    """Speak in (virtual) real time and return every event."""
    async with open_session(services) as session:
        for frame in frames:
            await session.send_audio(frame)
            await trio.sleep(frame.duration_seconds)
        await session.finish()
        return [event async for event in session.events()]


def finals(events: list[SessionEvent]) -> list[str]:
    return [e.result.text for e in events if isinstance(e, Transcript) and e.result.is_final]


async def test_a_failed_recognition_costs_its_utterance_and_not_the_call(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The engine raises for the first of two utterances: a fault that is not fatal, then the second one's final."""
    engine = FailingEngine(
        ["one", "two"], lambda r: r.utterance_key[1] == 1 and r.urgency is not Urgency.PARTIAL
    )
    async with open_scripted_services(engine=engine) as services:
        events = await hear(services, spoken(0.3, 1.0, 0.6, 1.0, 0.6))
    assert [(e.code, e.is_fatal) for e in events if isinstance(e, Fault)] == [("recognition_failed", False)]
    assert finals(events) == ["two"]
    assert isinstance(events[-1], SessionClosed)
    assert events[-1].record.reason is CloseReason.STOPPED


async def test_a_failed_guess_in_a_pause_does_not_cost_the_utterance(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """What fails while the caller pauses is only a guess: the final is asked for again when the utterance ends."""
    engine = FailingEngine(["all of it"], lambda r: r.urgency is Urgency.SPECULATIVE)
    async with open_scripted_services(engine=engine) as services:
        events = await hear(services, spoken(0.3, 1.0, 0.2, 1.0, 0.6))
    assert finals(events) == ["all of it"]
    assert not any(isinstance(e, Fault) for e in events)
    assert sum(isinstance(e, SpeechStopped) for e in events) == 1


async def test_failed_partials_cost_nothing(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Partials are a courtesy: without them the final comes all the same."""
    engine = FailingEngine(["all of it"], lambda r: r.urgency is Urgency.PARTIAL)
    async with open_scripted_services(engine=engine) as services:
        events = await hear(services, spoken(0.3, 2.0, 0.6))
    assert finals(events) == ["all of it"]
    assert not any(isinstance(e, Fault) for e in events)


@pytest.mark.parametrize("urgency", [Urgency.SPECULATIVE, Urgency.FINAL])
async def test_an_engine_that_answers_nothing_ends_the_utterance(
    urgency: Urgency, autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """An engine may answer None for a partial only; for more it counts as a failure, and is not asked for ever."""
    asked: list[Urgency] = []

    class Silent:
        async def recognise(self, request: RecognitionRequest) -> Recognition | None:
            asked.append(request.urgency)
            await trio.lowlevel.checkpoint()
            assert len(asked) < 100
            return None

    ends_by_silence = urgency is Urgency.SPECULATIVE
    async with open_scripted_services(engine=Silent()) as services:
        events = await hear(services, spoken(0.3, 1.0, 0.6) if ends_by_silence else spoken(0.3, 1.0))
    assert urgency in asked
    assert [e.code for e in events if isinstance(e, Fault)] == ["recognition_failed"]


@pytest.mark.parametrize("transcripts", [False, True])
async def test_finals_are_logged_only_where_that_was_chosen(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, *, transcripts: bool
) -> None:
    """What is said stays out of the log by default; with the setting each final is one line."""
    settings = Settings(logging=LoggingSettings(transcripts=transcripts))
    with structlog.testing.capture_logs() as lines:
        async with open_scripted_services(settings=settings) as services:
            await hear(services, spoken(0.3, 1.0, 0.6, 1.0, 0.6))
    said = [line["text"] for line in lines if line["event"] == "transcript"]
    assert said == (["hello there", "how are you"] if transcripts else [])
    assert ("hello there" in repr(lines)) is transcripts
