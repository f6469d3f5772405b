"""A session without a network and without models, under virtual time: what each way of ending it leaves behind."""

import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.commands import CallOptions, Flush, Ping, Start, Stop, TypedText
from voice_agent.core.errors import BadAudioError, SessionClosedError, UnknownTypeError
from voice_agent.core.events import (
    CloseReason,
    Fault,
    Notice,
    Pong,
    SessionClosed,
    SessionEvent,
    SessionReady,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)
from voice_agent.core.frames import AudioFrame
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.settings.schema import SessionSettings, Settings
from voice_agent.speech.engine import Recognition, RecognitionRequest
from voice_agent.speech.scripted import ScriptedEngine
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]

THREE_UTTERANCES = (0.5, 1.0, 0.6, 1.0, 0.6, 1.0, 0.6)


def finals(events: list[SessionEvent]) -> list[str]:
    return [e.result.text for e in events if isinstance(e, Transcript) and e.result.is_final]


def session_settings(**changes: Any) -> Settings:
    return Settings(session=SessionSettings(**changes))


async def collect(session: Session, events: list[SessionEvent]) -> None:
    async for event in session.events():
        events.append(event)


async def serve(services: Services, transport: Any, ended: trio.Event | None = None) -> None:
    async with open_session(services, transport):
        pass
    if ended is not None:
        ended.set()


async def speak(caller: MemoryCaller, frames: list[AudioFrame]) -> None:
    """Speak in (virtual) real time."""
    for frame in frames:
        await caller.send_audio(frame)
        await trio.sleep(frame.duration_seconds)


async def listen(caller: MemoryCaller, events: list[SessionEvent]) -> None:
    async for event in caller.events():
        events.append(event)


async def test_an_embedded_session_hears_everything_and_says_how_it_ended(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Three utterances in, three finals out, in order; the last event is the close record, and seq has no gap."""
    events: list[SessionEvent] = []
    async with (
        open_scripted_services() as services,
        open_session(services) as session,
        trio.open_nursery() as n,
    ):
        n.start_soon(collect, session, events)
        for frame in spoken(*THREE_UTTERANCES):
            await session.send_audio(frame)
        await session.finish()
    assert finals(events) == ["hello there", "how are you", "goodbye"]
    assert isinstance(events[0], SessionReady)
    assert isinstance(events[-1], SessionClosed)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert [e.position_ms for e in events] == sorted(e.position_ms for e in events)
    record = events[-1].record
    assert record.reason is CloseReason.STOPPED
    assert record.transcripts == 3
    assert record.tasks_left == 0
    assert record.audio_seconds == pytest.approx(sum(THREE_UTTERANCES))
    assert session.record == record
    assert [t.text for t in session.transcript] == finals(events)


async def test_events_of_an_utterance_come_in_order(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Started, partials of rising revision, stopped, final; the final's times are where the speech was."""
    async with open_scripted_services() as services, open_session(services) as session:
        for frame in spoken(0.5, 2.0, 0.6):
            await session.send_audio(frame)
            await trio.sleep(0.02)
        await session.finish()
        events = [e async for e in session.events()]
    kinds = [type(e) for e in events if not isinstance(e, Transcript) or e.result.is_final]
    assert kinds == [SessionReady, SpeechStarted, SpeechStopped, Transcript, SessionClosed]
    results = [e.result for e in events if isinstance(e, Transcript)]
    assert len(results) > 2
    assert [r.revision for r in results] == list(range(1, len(results) + 1))
    assert [r.is_final for r in results] == [False] * (len(results) - 1) + [True]
    final = results[-1]
    assert final.start == pytest.approx(0.5 - 0.256, abs=0.04)
    assert final.end == pytest.approx(2.5, abs=0.04)
    assert final.stable == final.text


async def test_what_is_stable_never_changes(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Each stable prefix is a prefix of every later result of its utterance."""
    engine = ScriptedEngine(["one two three four five six seven eight nine ten"])
    async with open_scripted_services(engine=engine) as services, open_session(services) as session:
        for frame in spoken(0.3, 6.0, 0.6):
            await session.send_audio(frame)
            await trio.sleep(0.02)
        await session.finish()
        results = [e.result async for e in session.events() if isinstance(e, Transcript)]
    assert max(len(r.stable) for r in results[:-1]) > 0
    for earlier, later in itertools.pairwise(results):
        assert later.text.startswith(earlier.stable)
        assert later.stable.startswith(earlier.stable)


async def test_partials_can_be_declined(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A caller who wants finals only gets finals only."""
    async with (
        open_scripted_services() as services,
        open_session(services, options=CallOptions(partials=False)) as session,
    ):
        for frame in spoken(0.3, 2.0, 0.6):
            await session.send_audio(frame)
            await trio.sleep(0.02)
        await session.finish()
        results = [e.result async for e in session.events() if isinstance(e, Transcript)]
    assert [r.is_final for r in results] == [True]


async def test_the_final_is_ready_when_the_silence_is_confirmed(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """An engine that takes 100 ms is hidden in the 300 ms hangover: the final comes with the end of the utterance."""
    engine = ScriptedEngine(["hello"], latency_seconds=0.1)
    times: dict[type, float] = {}
    async with open_scripted_services(engine=engine) as services, open_session(services) as session:

        async def note() -> None:
            async for event in session.events():
                times[type(event)] = trio.current_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(note)
            for frame in spoken(0.5, 1.0, 1.0):
                await session.send_audio(frame)
                await trio.sleep(0.02)
            await session.finish()
    assert times[Transcript] == pytest.approx(times[SpeechStopped])


async def test_speaking_on_abandons_the_speculation(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A pause of 200 ms splits nothing: one utterance, one final, made from all of it."""
    engine = ScriptedEngine(["all of it"], latency_seconds=0.15)
    async with open_scripted_services(engine=engine) as services, open_session(services) as session:
        for frame in spoken(0.5, 1.0, 0.22, 1.0, 0.6):
            await session.send_audio(frame)
            await trio.sleep(0.02)
        await session.finish()
        events = [e async for e in session.events()]
    assert finals(events) == ["all of it"]
    assert sum(isinstance(e, SpeechStarted) for e in events) == 1
    final = [e.result for e in events if isinstance(e, Transcript)][-1]
    assert final.end - final.start > 2.2


async def test_a_caller_who_hangs_up_in_mid_word_is_still_recorded(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """The last utterance is flushed although nobody is there to be told."""
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        await caller.send_command(Start())
        await speak(caller, spoken(0.5, 1.0))
        caller.hang_up()
    assert closings.texts == [["hello there"]]
    assert closings.records[0].reason is CloseReason.HANGUP
    assert closings.records[0].transcripts == 1


async def test_stop_hears_what_was_sent_before_it(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Audio sent in one burst and a stop right behind it: every word is told, then the close."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair(max_frames=1000)
        nursery.start_soon(serve, services, transport)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start())
        for frame in spoken(*THREE_UTTERANCES):
            await caller.send_audio(frame)
        await caller.send_command(Stop())
    assert len(finals(events)) == 3
    assert isinstance(events[-1], SessionClosed)
    assert closings.records[0].reason is CloseReason.STOPPED


async def test_flush_gives_the_final_at_once(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A flush ends the utterance without waiting for silence; what follows is another utterance."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair(max_frames=1000)
        nursery.start_soon(serve, services, transport)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start())
        frames = spoken(0.5, 2.0)
        await speak(caller, frames[:75])
        await caller.send_command(Flush(position_seconds=1.5))
        await trio.testing.wait_all_tasks_blocked()
        assert finals(events) == ["hello there"]
        await speak(caller, frames[75:])
        await caller.send_command(Stop())
    assert finals(events) == ["hello there", "how are you"]


async def test_text_and_ping_are_answered(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Typed words become a final; a ping gets its pong; neither is answered twice."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start())
        await caller.send_command(TypedText(text="I write"))
        await caller.send_command(Ping(id="7"))
        await trio.testing.wait_all_tasks_blocked()
        await caller.send_command(Stop())
    assert finals(events) == ["I write"]
    assert [e.id for e in events if isinstance(e, Pong)] == ["7"]


async def test_noise_gives_a_notice_and_no_final(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A result below the confidence limit is told as no words, so that a client can clear its display."""

    class Unsure:
        async def recognise(self, request: RecognitionRequest) -> Recognition:
            await trio.lowlevel.checkpoint()
            return Recognition(text="you", tokens=(1,), token_probabilities=(0.2,), confidence=0.2)

    async with open_scripted_services(engine=Unsure()) as services, open_session(services) as session:
        for frame in spoken(0.3, 1.0, 0.6):
            await session.send_audio(frame)
        await session.finish()
        events = [e async for e in session.events()]
    assert finals(events) == []
    assert not any(isinstance(e, Transcript) for e in events)
    assert [e.code for e in events if isinstance(e, Notice)] == ["no_words"]


async def test_an_idle_call_ends_at_its_timeout(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Sixty seconds after the last frame, to the instant."""
    settings = session_settings(idle_timeout_seconds=60)
    async with open_scripted_services(settings=settings) as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        await caller.send_command(Start())
        await speak(caller, spoken(1.0))
        began = trio.current_time()
    assert closings.records[0].reason is CloseReason.IDLE_TIMEOUT
    assert trio.current_time() == pytest.approx(began + 60 - 0.02)


async def test_a_call_ends_at_its_maximum_duration(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """A caller who never stops is stopped, and the words until then are recorded."""
    settings = session_settings(max_duration_seconds=5)
    engine = ScriptedEngine(["what I say has no end"])
    async with (
        open_scripted_services(engine=engine, settings=settings) as services,
        trio.open_nursery() as nursery,
    ):
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        await caller.send_command(Start())
        with pytest.raises(SessionClosedError):
            await speak(caller, spoken(0.3, 20.0))
    assert closings.records[0].reason is CloseReason.MAX_DURATION
    assert closings.records[0].duration_seconds == pytest.approx(5, abs=0.1)
    assert closings.texts == [["what I say has no end"]]


async def test_too_much_audio_is_dropped_counted_and_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """With an engine that never answers, a flood of audio is bounded; the caller hears how much went."""

    class Stuck:
        async def recognise(self, request: RecognitionRequest) -> Recognition:
            await trio.sleep_forever()
            raise AssertionError

    settings = session_settings(max_waiting_audio_ms=2000, finish_timeout_seconds=1)
    events: list[SessionEvent] = []
    async with (
        open_scripted_services(engine=Stuck(), settings=settings) as services,
        trio.open_nursery() as nursery,
    ):
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start(options=CallOptions(partials=False)))
        for _ in range(4):
            for frame in spoken(*[0.4, 0.4] * 10):
                await caller.send_audio(attrs.evolve(frame, position=0))
        await caller.send_command(Stop())
    record = closings.records[0]
    assert record.dropped_audio_ms > 10_000
    assert record.audio_seconds + record.dropped_audio_ms / 1000 <= 32.01
    assert record.stage_waited_for in {"listen", "transcribe", "hear"}
    assert record.close_seconds == pytest.approx(1, abs=0.1)


async def test_overflow_is_told_when_hearing_goes_on(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A slow engine catches up: the caller is told of the dropped milliseconds, and positions stay true."""
    engine = ScriptedEngine(["a", "b", "c", "d", "e", "f", "g", "h"] * 20, latency_seconds=1.0)
    settings = session_settings(max_waiting_audio_ms=1000, finish_timeout_seconds=100)
    events: list[SessionEvent] = []
    async with (
        open_scripted_services(engine=engine, settings=settings) as services,
        trio.open_nursery() as nursery,
    ):
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start(options=CallOptions(partials=False)))
        for frame in spoken(*[0.4, 0.4] * 20):
            await caller.send_audio(frame)
        await caller.send_command(Stop())
    dropped = [e.detail["dropped_ms"] for e in events if isinstance(e, Notice) and e.code == "overflow"]
    closed = events[-1]
    assert isinstance(closed, SessionClosed)
    assert sum(dropped) == closed.record.dropped_audio_ms > 0
    # Ten utterances were recognised, a second each: no more than a notice a second, and the last.
    assert len(dropped) <= 12
    assert closed.record.audio_seconds + sum(dropped) / 1000 == pytest.approx(16.0)
    assert closed.position_ms == 16_000


async def test_caller_errors_are_told_and_only_fatal_ones_end_the_call(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """A non-fatal error leaves the call alive; a fatal one closes it with its code."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start())
        await transport._line.incoming.put_text(UnknownTypeError("no such type", field="type"))
        await caller.send_command(Ping(id="alive"))
        await transport._line.incoming.put_text(BadAudioError("odd", field="audio"))
    faults = [e for e in events if isinstance(e, Fault)]
    assert [(f.code, f.is_fatal) for f in faults] == [("unknown_type", False), ("bad_audio", True)]
    assert [e.id for e in events if isinstance(e, Pong)] == ["alive"]
    assert closings.records[0].reason is CloseReason.CALLER_ERROR
    assert closings.records[0].error_code == "bad_audio"


async def test_cancellation_from_outside_ends_the_call_and_still_says_so(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """The caller gets a close record although the scope around the call is gone."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start())
        with trio.move_on_after(2):
            async with trio.open_nursery() as inner:
                inner.start_soon(serve, services, transport)
                await speak(caller, spoken(0.5, 10.0))
    assert closings.records[0].reason is CloseReason.CANCELLED
    assert closings.records[0].tasks_left == 0
    assert isinstance(events[-1], SessionClosed)


async def test_what_the_block_raises_is_raised_as_it_is(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """An embedding program's own error is not wrapped in a group."""
    async with open_scripted_services() as services:
        with pytest.raises(KeyError):
            async with open_session(services):
                raise KeyError("mine")
    assert closings.records[0].reason is CloseReason.CANCELLED


async def test_a_finished_session_takes_nothing(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Audio after finish is an error that says so; finishing twice is none."""
    async with open_scripted_services() as services, open_session(services) as session:
        await session.finish()
        await session.finish()
        with pytest.raises(SessionClosedError):
            await session.send_audio(spoken(0.02)[0])


async def test_missing_audio_keeps_the_clock_true(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """After a gap of 60 s the next utterance stands where it was spoken."""
    async with open_scripted_services() as services, open_session(services) as session:
        for frame in spoken(0.5, 1.0, 0.6):
            await session.send_audio(frame)
        for frame in spoken(0.5, 1.0, 0.6):
            await session.send_audio(attrs.evolve(frame, position=frame.position + 16_000 * 60))
        await session.finish()
        results = [
            e.result async for e in session.events() if isinstance(e, Transcript) and e.result.is_final
        ]
    assert results[1].start - results[0].start == pytest.approx(60, abs=0.05)
