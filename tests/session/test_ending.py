"""The end of a call: nothing that was sent before it is lost, and it is bounded whatever the other side does."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.commands import Flush, Ping, Start, Stop, TypedText
from voice_agent.core.errors import SessionClosedError, TransportBrokenError
from voice_agent.core.events import (
    CloseReason,
    Pong,
    SessionClosed,
    SessionEvent,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)
from voice_agent.core.frames import AudioFrame
from voice_agent.session.open import open_session
from voice_agent.session.registry import CallRegistry
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.settings.schema import SessionSettings, Settings
from voice_agent.speech.engine import Recognition, RecognitionRequest
from voice_agent.speech.scripted import ScriptedEngine, ScriptedVoiceActivity
from voice_agent.transports.memory import MemoryCaller, MemoryTransport, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]


def session_settings(**changes: Any) -> Settings:
    return Settings(session=SessionSettings(**changes))


def finals(events: list[SessionEvent]) -> list[str]:
    return [e.result.text for e in events if isinstance(e, Transcript) and e.result.is_final]


async def serve(services: Services, transport: Any) -> None:
    async with open_session(services, transport):
        pass


async def listen(caller: MemoryCaller, events: list[SessionEvent]) -> None:
    async for event in caller.events():
        events.append(event)


async def test_what_was_asked_before_stop_is_answered(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Text and a ping with a stop right behind them: the text becomes a final, the ping gets its pong."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start())
        for i in range(20):
            await caller.send_command(TypedText(text=f"line {i}"))
        await caller.send_command(Ping(id="last"))
        await caller.send_command(Stop())
    assert finals(events) == [f"line {i}" for i in range(20)]
    assert [e.id for e in events if isinstance(e, Pong)] == ["last"]
    assert isinstance(events[-1], SessionClosed)


async def test_what_was_written_before_a_hang_up_is_recorded(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """Text, then gone: it stands in the transcript."""
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        await caller.send_command(Start())
        for i in range(20):
            await caller.send_command(TypedText(text=f"line {i}"))
        caller.hang_up()
    assert closings.texts == [[f"line {i}" for i in range(20)]]
    assert closings.records[0].reason is CloseReason.HANGUP


async def test_the_end_of_the_audio_alone_ends_the_call_at_once(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """A transport whose audio ends without a `stop` does not keep the call waiting for one."""
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair()
        nursery.start_soon(serve, services, transport)
        await caller.send_command(Start())
        for frame in spoken(0.3, 1.0):
            await caller.send_audio(frame)
        caller.stop_audio()
    assert closings.texts == [["hello there"]]
    assert closings.records[0].reason is CloseReason.STOPPED
    assert closings.records[0].close_seconds <= 0.5


class DeafWire(MemoryTransport):
    """The caller's connection breaks for sending first; what the caller sent is still queued behind that."""

    broke = False

    async def send_text(self, event: SessionEvent) -> None:
        if isinstance(event, SpeechStarted):
            self.broke = True
            self._line.incoming.break_off("reset by the caller")
        if self.broke:
            await trio.lowlevel.checkpoint()
            raise TransportBrokenError("reset by the caller")
        await super().send_text(event)


async def test_a_hang_up_noticed_while_sending_loses_no_queued_audio(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """The event that could not be told is noticed before the audio is read to its end; the audio is heard anyway."""
    async with open_scripted_services() as services:
        transport, caller = open_memory_pair(max_frames=1000)
        await caller.send_command(Start())
        for frame in spoken(0.1, 1.0, 0.6, 1.0, 0.6):
            await caller.send_audio(frame)
        await serve(services, DeafWire(transport._line))
    assert closings.texts == [["hello there", "how are you"]]
    assert closings.records[0].reason is CloseReason.HANGUP


async def test_a_caller_who_reads_nothing_is_let_go_in_bounded_time(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Stopped properly, but never read: the close timeout ends the sending, and again the letting go."""
    settings = session_settings(finish_timeout_seconds=2, close_timeout_seconds=1)
    async with open_scripted_services(settings=settings) as services:
        transport, caller = open_memory_pair(max_events=1, max_frames=1000)
        await caller.send_command(Start())
        for frame in spoken(0.3, 1.0, 0.6):
            await caller.send_audio(frame)
        await caller.send_command(Stop())
        began = trio.current_time()
        with trio.fail_after(600):
            await serve(services, transport)
        assert trio.current_time() - began <= 2 + 2 * 1
    assert closings.texts == [["hello there"]]
    assert closings.records[0].reason is CloseReason.STOPPED


class SlowWire(MemoryTransport):
    """Each event takes almost as long as a send may."""

    async def send_text(self, event: SessionEvent) -> None:
        await trio.sleep(4)
        await super().send_text(event)


async def test_a_caller_who_reads_slowly_is_let_go_in_bounded_time(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """A hundred pongs at four seconds each are not waited for; the close record is still told, and nothing is overdue."""
    events: list[SessionEvent] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        transport, caller = open_memory_pair(max_commands=200)
        nursery.start_soon(listen, caller, events)
        await caller.send_command(Start())
        for _ in range(100):
            await caller.send_command(Ping())
        await caller.send_command(Stop())
        began = trio.current_time()
        await serve(services, SlowWire(transport._line))
        limits = services.settings.session
        assert trio.current_time() - began <= limits.finish_timeout_seconds + 2 * limits.close_timeout_seconds
        samples = services.metrics.close_overdue_total.collect()[0].samples
        assert not any(sample.value for sample in samples if sample.name.endswith("_total"))
    assert isinstance(events[-1], SessionClosed)


@pytest.mark.parametrize("how", ["raise", "cancel"])
async def test_a_reader_outside_the_block_is_let_go_however_the_block_ends(
    how: str, autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The events end with `SessionClosed` when the block raises or is cancelled, so that their reader ends too."""
    events: list[SessionEvent] = []

    async def read(session: Session) -> None:
        async for event in session.events():
            events.append(event)

    async with open_scripted_services() as services:
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    try:
                        async with open_session(services) as session:
                            nursery.start_soon(read, session)
                            for frame in spoken(0.3, 0.5):
                                await session.send_audio(frame)
                            await trio.sleep(1)
                            if how == "cancel":
                                scope.cancel()
                                await trio.lowlevel.checkpoint()
                            raise KeyError("mine")  # noqa: TRY301 (it is what the block is for)
                    except KeyError:
                        assert how == "raise"
    assert isinstance(events[-1], SessionClosed)
    assert events[-1].record.reason is CloseReason.CANCELLED
    assert [e.seq for e in events] == list(range(1, len(events) + 1))


async def test_the_close_record_finds_room_among_events_nobody_read(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """As many events wait as may: the last one read afterwards is still `SessionClosed`, and leaving takes no time."""
    settings = session_settings(max_waiting_events=16)
    async with open_scripted_services(settings=settings) as services:
        async with open_session(services) as session:
            for i in range(15):
                await session.send_text(f"line {i}")
            began = trio.current_time()
        assert trio.current_time() == began
        events = [e async for e in session.events()]
    assert len(finals(events)) == 15
    assert isinstance(events[-1], SessionClosed)


async def test_a_session_that_ended_says_so_whatever_is_asked(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Text and flush behave as audio does: the error of the public tree, not one of a channel's."""
    async with open_scripted_services() as services:
        async with open_session(services) as session:
            await session.finish()
            with pytest.raises(SessionClosedError):
                await session.send_text("too late")
            with pytest.raises(SessionClosedError):
                await session.flush()
        assert session.transcript == ()


async def test_the_cause_of_what_the_block_raises_is_kept(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """`raise … from …` inside the block reads the same outside, and a group stays the group it was."""
    cause = ValueError("why")
    async with open_scripted_services() as services:
        with pytest.raises(KeyError) as caught:
            async with open_session(services):
                raise KeyError("mine") from cause
        assert caught.value.__cause__ is cause
        group = ExceptionGroup("mine", [KeyError("alone")])
        with pytest.raises(ExceptionGroup) as caught_group:
            async with open_session(services):
                raise group
        assert caught_group.value is group


async def test_each_flush_ends_an_utterance(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Two flushes that overtake their audio still end an utterance each, where they stand."""
    async with open_scripted_services() as services:
        transport, caller = open_memory_pair(max_frames=1000)
        await caller.send_command(Start())
        await caller.send_command(Flush(position_seconds=1.0))
        await caller.send_command(Flush(position_seconds=2.0))
        for frame in spoken(3.0, starts_silent=False):
            await caller.send_audio(frame)
        await caller.send_command(Stop())
        await serve(services, transport)
    assert closings.texts == [["hello there", "how are you", "goodbye"]]


async def test_the_record_names_the_stage_the_close_waited_for(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Two seconds of recognition after the stop: `transcribe`. Nothing to wait for: empty."""
    engine = ScriptedEngine(["slow"], latency_seconds=2)
    for wait_seconds in (0.0, 10.0):
        async with open_scripted_services(engine=engine) as services, trio.open_nursery() as nursery:
            transport, caller = open_memory_pair(max_frames=1000)
            nursery.start_soon(serve, services, transport)
            await caller.send_command(Start())
            for frame in spoken(0.3, 1.0, 0.6):
                await caller.send_audio(frame)
            await trio.sleep(wait_seconds)
            await caller.send_command(Stop())
    assert [r.stage_waited_for for r in closings.records] == ["transcribe", ""]
    assert closings.records[0].close_seconds == pytest.approx(2, abs=0.1)


class NeverAnswers:
    async def recognise(self, request: RecognitionRequest) -> Recognition:
        await trio.sleep_forever()
        raise AssertionError


async def test_a_close_cut_short_names_its_stage_and_counts_what_was_not_heard(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """An engine that never answers: `transcribe`; what waited unheard is dropped audio in record and metrics alike."""
    settings = session_settings(finish_timeout_seconds=1)
    async with open_scripted_services(engine=NeverAnswers(), settings=settings) as services:
        transport, caller = open_memory_pair(max_frames=10_000)
        await caller.send_command(Start())
        frames = spoken(*[0.4, 0.4] * 20)
        for frame in frames:
            await caller.send_audio(frame)
        await caller.send_command(Stop())
        await serve(services, transport)
        dropped = services.metrics.dropped_audio_seconds_total.collect()[0].samples[0].value
        heard = services.metrics.audio_seconds_total.collect()[0].samples[0].value
    record = closings.records[0]
    assert record.stage_waited_for == "transcribe"
    # The one frame that listening held in its hand is neither.
    assert record.audio_seconds + record.dropped_audio_ms / 1000 == pytest.approx(16, abs=0.021)
    assert dropped == pytest.approx(record.dropped_audio_ms / 1000)
    assert heard == pytest.approx(record.audio_seconds)


class SlowVoiceActivity(ScriptedVoiceActivity):
    """Hears slower than a program can send."""

    def open_stream(self) -> Any:
        stream = super().open_stream()

        class Stream:
            async def probabilities(self, windows: Any) -> Any:
                await trio.sleep(0.02)
                return await stream.probabilities(windows)

            def reset(self) -> None:
                stream.reset()

        return Stream()


async def test_a_cancelled_send_leaves_no_hole(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A send that was given up because there was no room never happened: sent again, the audio is whole."""
    settings = session_settings(max_waiting_audio_ms=200)
    engine = ScriptedEngine(["whole and in one piece"])
    given_up = 0
    async with (
        open_scripted_services(
            engine=engine, voice_activity=SlowVoiceActivity(), settings=settings
        ) as services,
        open_session(services) as session,
    ):
        for frame in spoken(1.0, 3.0, 0.6, starts_silent=True):
            while True:
                with trio.move_on_after(0.005) as scope:
                    await session.send_audio(frame)
                if not scope.cancelled_caught:
                    break
                given_up += 1
        await session.finish()
        events = [e async for e in session.events()]
    assert given_up
    assert finals(events) == ["whole and in one piece"]
    assert isinstance(events[-1], SessionClosed)
    assert events[-1].record.audio_seconds == pytest.approx(4.6)
    assert events[-1].position_ms == 4600


async def test_services_that_close_first_end_the_call_in_good_order(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """A program that closes the services under a session gets a closed session, not a crash or a hang."""
    async with trio.open_nursery() as nursery:
        opened = open_scripted_services()
        services = await opened.__aenter__()
        is_open = trio.Event()
        go_on = trio.Event()
        events: list[SessionEvent] = []

        async def use() -> None:
            async with open_session(services) as session:
                is_open.set()
                await go_on.wait()
            events.extend([e async for e in session.events()])

        nursery.start_soon(use)
        await is_open.wait()
        await opened.__aexit__(None, None, None)
        go_on.set()
    assert isinstance(events[-1], SessionClosed)
    assert len(closings.records) == 1


async def test_a_call_on_its_way_in_is_ended_with_the_others(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Its handshake was under way when a drain ended all calls: it ends as they do, and not only when cancelled."""
    registry = CallRegistry(10)
    async with open_scripted_services() as services:
        registry.end_all(CloseReason.DRAIN)
        with registry.place() as place:
            async with open_session(services) as session:
                place.hold(session)
                await session.heard_all.wait()
        assert session.record is not None
        assert session.record.reason is CloseReason.DRAIN


async def test_events_stand_where_hearing_is(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """In one message of eight seconds, an event's position is that of the audio heard by then, not of the message."""
    pieces = spoken(5.0, 2.0, 1.0)
    whole = AudioFrame(np.concatenate([p.samples for p in pieces]), 16_000, 0)
    async with open_scripted_services() as services, open_session(services) as session:
        await session.send_audio(whole)
        await session.finish()
        events = [e async for e in session.events()]
    [started] = [e for e in events if isinstance(e, SpeechStarted)]
    [stopped] = [e for e in events if isinstance(e, SpeechStopped)]
    assert started.position_ms == pytest.approx(5000, abs=500)
    assert stopped.position_ms == pytest.approx(7300, abs=500)
