"""Hearing by itself: every sample reaches voice activity once, gaps are gaps, flushes are exact, drops are told."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from trio.testing import MockClock, assert_checkpoints

from voice_agent.core.events import Notice, SessionEvent, SpeechStarted, SpeechStopped
from voice_agent.core.frames import AudioFrame
from voice_agent.session.hearing import Hearing
from voice_agent.session.inbox import AudioInbox
from voice_agent.session.live import LiveUtterance
from voice_agent.session.services import Services
from voice_agent.speech.engine import HEARING_RATE, VAD_WINDOW
from voice_agent.speech.scripted import ScriptedVoiceActivity

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]


@attrs.define(eq=False)
class RecordingVoiceActivity:
    """Voice activity by loudness that keeps what it was given, and how often it was told to forget."""

    calls: list[np.ndarray] = attrs.field(factory=list)
    resets_at: list[int] = attrs.field(factory=list)
    inner: Any = attrs.field(factory=lambda: ScriptedVoiceActivity().open_stream())

    def open_stream(self) -> "RecordingVoiceActivity":
        return self

    async def probabilities(self, windows: np.ndarray) -> np.ndarray:
        self.calls.append(windows.copy())
        return await self.inner.probabilities(windows)

    def reset(self) -> None:
        self.resets_at.append(self.heard_windows)

    @property
    def heard_windows(self) -> int:
        return sum(len(windows) for windows in self.calls)

    @property
    def heard(self) -> np.ndarray:
        return np.concatenate(self.calls).ravel()


@attrs.define(eq=False)
class Ear:
    """A hearing with both its ends in hand."""

    hearing: Hearing
    inbox: AudioInbox
    activity: RecordingVoiceActivity
    events: list[SessionEvent]
    utterances: list[LiveUtterance] = attrs.field(factory=list)

    async def listen(self) -> None:
        """Hear everything in the inbox to its end."""
        send, receive = trio.open_memory_channel[LiveUtterance](100)
        self.inbox.close()
        await self.hearing.listen(send)
        async for live in receive:
            self.utterances.append(live)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def ear_of(services: Services, *, max_waiting_ms: int = 600_000) -> Ear:
    events: list[SessionEvent] = []
    inbox = AudioInbox(max_waiting_ms)

    async def publish(event: SessionEvent) -> None:
        await trio.lowlevel.checkpoint()
        events.append(event)

    activity = RecordingVoiceActivity()
    hearing = Hearing(attrs.evolve(services, voice_activity=activity), inbox, publish)
    return Ear(hearing, inbox, activity, events)


def noise(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, count).astype(np.float32)


def framed(samples: np.ndarray, size: int, *, rate: int = HEARING_RATE, at: int = 0) -> Iterator[AudioFrame]:
    for begin in range(0, len(samples), size):
        yield AudioFrame(samples[begin : begin + size], rate, at + begin)


@pytest.mark.parametrize("size", [1, 320, 511, 513, 40_000])
async def test_every_sample_is_heard_once(size: int, open_scripted_services: OpenServices) -> None:
    """However the audio is cut: voice activity gets all of it, in order, and zeros to the end of the last window."""
    samples = noise(3 * VAD_WINDOW + 100 if size == 1 else 40_000)
    async with open_scripted_services() as services:
        ear = ear_of(services)
        for frame in framed(samples, size):
            ear.inbox.offer(frame)
        await ear.listen()
        windows = -(-len(samples) // VAD_WINDOW)
        expected = np.zeros(windows * VAD_WINDOW, np.float32)
        expected[: len(samples)] = samples
        np.testing.assert_array_equal(ear.activity.heard, expected)
        assert ear.hearing.audio_seconds == pytest.approx(len(samples) / HEARING_RATE)
        assert services.metrics.audio_seconds_total._value.get() == pytest.approx(len(samples) / HEARING_RATE)
        assert ear.hearing.heard_seconds == len(samples) / HEARING_RATE


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000])
async def test_audio_of_any_rate_is_heard_to_its_last_sample(
    rate: int, open_scripted_services: OpenServices
) -> None:
    """Resampled to 16 kHz a second is a second: what the filter holds back is heard at the end."""
    async with open_scripted_services() as services:
        ear = ear_of(services)
        for frame in framed(noise(rate), rate // 50, rate=rate):
            ear.inbox.offer(frame)
        await ear.listen()
        assert ear.activity.heard_windows == -(-HEARING_RATE // VAD_WINDOW)


async def test_a_long_message_is_heard_in_pieces(open_scripted_services: OpenServices) -> None:
    """Half a second at a time, so that other calls get their turn in between."""
    async with open_scripted_services() as services:
        ear = ear_of(services)
        ear.inbox.offer(AudioFrame(noise(10 * HEARING_RATE), HEARING_RATE))
        await ear.listen()
        assert len(ear.activity.calls) >= 20
        assert max(len(windows) for windows in ear.activity.calls) <= 16


async def test_words_right_before_a_gap_are_an_utterance_of_their_own(
    open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """What was being said ends where the audio ends; voice activity forgets, and the clock jumps."""
    frames = spoken(0.5, 1.0)
    gap = 60 * HEARING_RATE
    async with open_scripted_services() as services:
        ear = ear_of(services)
        for frame in [*frames, *(attrs.evolve(f, position=f.position + gap) for f in frames)]:
            ear.inbox.offer(frame)
        await ear.listen()
        starts = [event.start for event in ear.of(SpeechStarted)]
        ends = [event.end for event in ear.of(SpeechStopped)]
        assert starts == [pytest.approx(0.244, abs=0.04), pytest.approx(60.244, abs=0.04)]
        assert ends == [pytest.approx(1.5, abs=0.04), pytest.approx(61.5, abs=0.04)]
        assert [len(live.utterance.clip()) / HEARING_RATE for live in ear.utterances] == [
            pytest.approx(1.25, abs=0.04)
        ] * 2
        assert all(live.utterance.is_closed for live in ear.utterances)
        # 1.5 s are 47 windows, the last of them filled up with zeros.
        assert ear.activity.resets_at == [0, 47]
        assert ear.activity.heard_windows == 94


async def test_another_rate_goes_on_where_the_last_ended(open_scripted_services: OpenServices) -> None:
    """A change of sample rate is heard like a gap of nothing: no sample is lost, none is heard twice."""
    async with open_scripted_services() as services:
        ear = ear_of(services)
        ear.inbox.offer(AudioFrame(noise(8_000), 8_000))
        ear.inbox.offer(AudioFrame(noise(16_000), 16_000, 16_000))
        await ear.listen()
        assert ear.activity.heard_windows == 2 * -(-HEARING_RATE // VAD_WINDOW)
        assert ear.hearing.heard_seconds == 2.0
        assert [live.utterance.start for live in ear.utterances] == [0, 16_000]


@pytest.mark.parametrize(
    ("asked_seconds", "ends"),
    [(1.0, [1.0, 2.0]), (1.0009, [1.0, 2.0]), (1.01, [1.02, 2.0]), (1.9, [1.9, 2.0]), (3.0, [2.0])],
)
async def test_a_flush_waits_for_its_sample(
    asked_seconds: float, ends: list[float], open_scripted_services: OpenServices
) -> None:
    """It ends the utterance with the frame that reaches it, a millisecond of rounding allowed, and no other."""
    async with open_scripted_services() as services:
        ear = ear_of(services)
        frames = list(framed(noise(2 * HEARING_RATE), 320))
        for frame in frames[:25]:
            ear.inbox.offer(frame)
        ear.inbox.flush(asked_seconds)
        for frame in frames[25:]:
            ear.inbox.offer(frame)
        await ear.listen()
        assert [event.end for event in ear.of(SpeechStopped)] == [pytest.approx(e, abs=0.032) for e in ends]


async def test_a_flush_of_what_was_heard_already_is_done_at_once(
    open_scripted_services: OpenServices,
) -> None:
    """No further frame is needed."""
    async with open_scripted_services() as services:
        ear = ear_of(services)
        for frame in framed(noise(HEARING_RATE), 320):
            ear.inbox.offer(frame)
        send, _receive = trio.open_memory_channel[LiveUtterance](100)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ear.hearing.listen, send)
            await trio.testing.wait_all_tasks_blocked()
            assert ear.of(SpeechStopped) == []
            ear.inbox.flush(1.0)
            await trio.testing.wait_all_tasks_blocked()
            assert len(ear.of(SpeechStopped)) == 1
            ear.inbox.close()


async def test_drops_are_told_once_a_second_and_all_of_them_at_the_end(
    mock_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A first notice at once, the next a second later, and the rest with the last event; none is counted twice."""
    async with open_scripted_services() as services:
        ear = ear_of(services, max_waiting_ms=100)
        send, _receive = trio.open_memory_channel[LiveUtterance](100)
        position = 0

        async def burst() -> None:
            """Offer 200 ms at once, of which 100 are too many."""
            nonlocal position
            for frame in framed(np.zeros(3200, np.float32), 320, at=position):
                ear.inbox.offer(frame)
            position += 3200
            await trio.testing.wait_all_tasks_blocked()

        def told() -> list[int]:
            return [event.detail["dropped_ms"] for event in ear.of(Notice)]

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ear.hearing.listen, send)
            await burst()
            assert told() == [100]
            mock_clock.jump(0.999)
            await burst()
            assert told() == [100]
            mock_clock.jump(0.001)
            await burst()
            assert told() == [100, 200]
            await burst()
            await burst()
            assert told() == [100, 200]
            ear.inbox.close()
        assert told() == [100, 200, 200]
        assert {event.code for event in ear.of(Notice)} == {"overflow"}
        assert services.metrics.dropped_audio_seconds_total._value.get() == pytest.approx(0.5)
        assert ear.hearing.audio_seconds == pytest.approx(0.5)


async def test_a_call_without_audio_is_heard_to_its_end(open_scripted_services: OpenServices) -> None:
    """Nothing said, nothing told, and the channel of utterances ends."""
    async with open_scripted_services() as services:
        ear = ear_of(services)
        with assert_checkpoints():
            await ear.listen()
        assert (ear.events, ear.utterances, ear.activity.calls) == ([], [], [])
        assert ear.hearing.heard_seconds == 0


async def test_the_end_of_speech_is_when_it_ended_and_not_when_it_was_noticed(
    mock_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """`speech_ended_at` lies before the hangover, on Trio's clock: the latency that a caller feels begins there."""
    async with open_scripted_services() as services:
        ear = ear_of(services)
        for frame in spoken(0.512, 1.024, 0.64):
            ear.inbox.offer(frame)
        mock_clock.jump(100)
        await ear.listen()
        [live] = ear.utterances
        assert live.speech_ended_at == pytest.approx(100 - 0.32, abs=0.001)
