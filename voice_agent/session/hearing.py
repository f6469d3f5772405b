"""Hearing: from waiting audio to utterances. ``listen`` cuts them; ``transcribing.py`` makes words of them.

The two run side by side in one nursery and are joined by a bounded channel: when recognition falls behind, listening
waits, the inbox fills, and its policy decides what goes. Nothing grows without a bound.
"""

import math
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final

import numpy as np
import trio

from voice_agent.audio.ears import Care, Ears
from voice_agent.audio.far_end import FarEnd
from voice_agent.audio.resample import StreamResampler, open_resampler
from voice_agent.core.commands import Microphone
from voice_agent.core.events import Notice, SessionEvent, SpeechStarted, SpeechStopped
from voice_agent.core.frames import AudioFrame
from voice_agent.session.inbox import AudioInbox, FlushMark
from voice_agent.session.live import LiveUtterance
from voice_agent.session.services import Services
from voice_agent.speech.engine import HEARING_RATE, VAD_WINDOW, MonoAudio
from voice_agent.speech.utterance import (
    UtteranceChange,
    UtteranceChanged,
    UtteranceClosed,
    UtteranceOpened,
    UtteranceTracker,
)

PIECE_SECONDS: Final = 0.5
"""A large message is heard in pieces, so that other calls get their turn in between."""

DROPPED_NOTICE_SECONDS: Final = 1.0

FLUSH_TOLERANCE_SECONDS: Final = 0.001
"""A flush means a sample; a transport that counts in milliseconds may round."""

Publish = Callable[[SessionEvent], Awaitable[None]]


class Hearing:
    """The listening half of one call."""

    def __init__(
        self,
        services: Services,
        inbox: AudioInbox,
        publish: Publish,
        *,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """``is_lost`` is asked when the audio is over: whether the caller did not end it."""
        self._services = services
        self._inbox = inbox
        self._publish = publish
        self._tracker = UtteranceTracker(services.settings.vad)
        self._activity = services.voice_activity.open_stream()
        self._resampler: StreamResampler | None = None
        self.ears = Ears(services.settings.ears, Care())
        """What cares for the sound before voice activity."""
        self._rate = 0
        self._expected = 0
        self._rest: MonoAudio = np.zeros(0, np.float32)
        self._live: LiveUtterance | None = None
        self._flushes: set[float] = set()
        self._inbox_delay = services.metrics.queue_seconds.labels("inbox")
        self._frame_age = services.metrics.frame_age_seconds
        self._counted_dropped_ms = 0
        self._told_dropped_ms = 0
        self._is_lost = is_lost
        self._is_cut = False
        self._tell_dropped_at = -math.inf
        self.numbers = count(1)
        """Utterance numbers; typed text takes its number here too."""
        self.heard_seconds = 0.0
        """Where in the call hearing is."""
        self.audio_seconds = 0.0
        """Audio heard, without what was dropped."""

    def care_for(self, microphone: Microphone) -> None:
        """Choose what is done to the sound, before any comes."""
        settings = self._services.settings.ears
        self.ears = Ears(settings, Care.chosen(settings, is_raw=microphone is Microphone.RAW), self.far_end)

    @property
    def far_end(self) -> FarEnd:
        """Is told what the caller is given to hear."""
        return self.ears.far_end

    def go_on_from(self, seconds: float, last_utterance: int) -> None:
        """Take up a call of which so much has been heard."""
        self.heard_seconds = self.audio_seconds = seconds
        self.numbers = count(last_utterance + 1)

    async def listen(self, utterances: trio.MemorySendChannel[LiveUtterance]) -> None:
        """Hear until the inbox is closed and empty, then end what is open and close ``utterances``."""
        async with utterances:
            while True:
                try:
                    item = await self._inbox.get()
                except trio.EndOfChannel:
                    break
                if isinstance(item, FlushMark):
                    self._flushes.add(item.position_seconds)
                else:
                    came_at = self._inbox.taken_came_at
                    self._inbox_delay.observe(trio.current_time() - came_at)
                    await self._hear(item, utterances)
                    self._frame_age.observe(trio.current_time() - came_at)
                await self._flush_if_due(utterances)
            self._is_cut = self._is_lost()
            await self._end_utterance(utterances)
            await self._tell_dropped(is_last=True)

    async def _hear(self, frame: AudioFrame, utterances: trio.MemorySendChannel[LiveUtterance]) -> None:
        if self._resampler is None or frame.sample_rate != self._rate or frame.position != self._expected:
            await self._go_on_at(frame, utterances)
        assert self._resampler is not None  # noqa: S101 (set by the line above, which mypy can't see)
        self.ears.clock.note(frame.end / frame.sample_rate, self._inbox.taken_came_at)
        mono = frame.to_mono_float32()
        piece = max(1, int(PIECE_SECONDS * frame.sample_rate))
        for begin in range(0, len(mono), piece):
            samples = mono[begin : begin + piece]
            await self._take(await self.ears.clean(self._resampler.process(samples)), utterances)
            seconds = len(samples) / frame.sample_rate
            self.heard_seconds = (frame.position + begin + len(samples)) / frame.sample_rate
            self.audio_seconds += seconds
            self._services.metrics.audio_seconds_total.inc(seconds)
        self._expected = frame.end

    async def _take(self, samples: MonoAudio, utterances: trio.MemorySendChannel[LiveUtterance]) -> None:
        """Take 16 kHz audio of any length; what fills no window waits for the next piece."""
        waiting = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        whole = len(waiting) // VAD_WINDOW
        self._rest = waiting[whole * VAD_WINDOW :]
        if not whole:
            return
        windows = waiting[: whole * VAD_WINDOW].reshape(whole, VAD_WINDOW)
        probabilities = await self._activity.probabilities(windows)
        for change in self._tracker.push(windows, probabilities):
            await self._apply(change, utterances)

    async def _go_on_at(self, frame: AudioFrame, utterances: trio.MemorySendChannel[LiveUtterance]) -> None:
        """Audio is not continuous here: the first frame, a gap, or another sample rate."""
        await self._end_utterance(utterances)
        await self._tell_dropped()
        position = round(frame.position * HEARING_RATE / frame.sample_rate)
        self._tracker.jump(position)
        self.ears.jump(position)
        self._activity.reset()
        self._rate = frame.sample_rate
        audio = self._services.settings.audio
        self._resampler = open_resampler(
            frame.sample_rate, HEARING_RATE, library=audio.resampler, quality=audio.resampler_quality
        )

    async def _end_utterance(self, utterances: trio.MemorySendChannel[LiveUtterance]) -> None:
        """Push out what resampler, ears and framing still hold, and end the utterance."""
        if self._resampler is not None:
            cleaned = await self.ears.clean(self._resampler.flush())
            tail = np.concatenate((self._rest, cleaned, await self.ears.flush()))
            missing = -len(tail) % VAD_WINDOW
            self._rest = np.zeros(0, np.float32)
            await self._take(np.concatenate((tail, np.zeros(missing, np.float32))), utterances)
            self._resampler = None
        for change in self._tracker.flush():
            await self._apply(change, utterances)

    async def _flush_if_due(self, utterances: trio.MemorySendChannel[LiveUtterance]) -> None:
        due = {at for at in self._flushes if self.heard_seconds >= at - FLUSH_TOLERANCE_SECONDS}
        if due:
            self._flushes -= due
            await self._end_utterance(utterances)

    def count_dropped(self) -> int:
        """Bring the metric up to the milliseconds dropped since the call began, and return them."""
        dropped_ms = round(self._inbox.dropped_seconds * 1000)
        self._services.metrics.dropped_audio_seconds_total.inc((dropped_ms - self._counted_dropped_ms) / 1000)
        self._counted_dropped_ms = dropped_ms
        return dropped_ms

    async def _tell_dropped(self, *, is_last: bool = False) -> None:
        """Tell of dropped audio, once a second at most: a flood of audio must not become a flood of notices."""
        dropped_ms = self.count_dropped()
        newly_dropped_ms = dropped_ms - self._told_dropped_ms
        now = trio.current_time()
        if newly_dropped_ms and (is_last or now >= self._tell_dropped_at):
            self._told_dropped_ms = dropped_ms
            self._tell_dropped_at = now + DROPPED_NOTICE_SECONDS
            await self._publish(
                Notice(
                    code="overflow",
                    message="Audio came faster than it could be heard; the oldest was dropped.",
                    detail={"dropped_ms": newly_dropped_ms},
                )
            )

    async def _apply(
        self, change: UtteranceChange, utterances: trio.MemorySendChannel[LiveUtterance]
    ) -> None:
        match change:
            case UtteranceOpened(utterance):
                self._live = LiveUtterance(next(self.numbers), utterance)
                ago = (self._tracker.position - utterance.start) / HEARING_RATE
                self._live.speech_began_at = trio.current_time() - ago
                await self._publish(
                    SpeechStarted(utterance=self._live.number, start=utterance.start / HEARING_RATE)
                )
                await utterances.send(self._live)
            case UtteranceChanged():
                if self._live is not None:
                    self._live.announce()
            case UtteranceClosed(utterance):
                if self._live is None or utterance.speech_end is None:
                    return
                live, self._live = self._live, None
                late_by = (self._tracker.position - utterance.speech_end) / HEARING_RATE
                live.closed_at = trio.current_time()
                live.speech_ended_at = live.closed_at - late_by
                live.announce()
                await self._publish(
                    SpeechStopped(
                        utterance=live.number,
                        end=utterance.speech_end / HEARING_RATE,
                        is_cut=self._is_cut,
                    )
                )
