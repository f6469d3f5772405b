"""Ears: echo, noise, rumble and level, taken care of before anybody listens. The WebRTC audio processing module.

One object a call. Like a resampler (``resample.py``) it promises over one stream, however that is cut into pieces: the
outputs up to and with the flush have as many samples as went in, and sample ``k`` that comes out is what sample ``k``
was. The module's delay is known and taken out; what is not ready yet is held back, 24 ms at most. With nothing to take
care of, samples pass through untouched and at once.

The module works on frames of 10 ms. Its echo canceller is the dear part (docs/ears.md has the figures), so it runs
while an echo can be heard and in a thread; the rest is done where it stands. Between times the sound passes by the
canceller with the same delay, and what it has learnt of the room stays.
"""

from typing import Final

import attrs
import numpy as np
import trio
from pywebrtc_audio import AudioProcessor, EchoCanceller, GainController

from voice_agent.audio.far_end import RATE, SOUNDS, CaptureClock, FarEnd
from voice_agent.audio.resample import MonoAudio
from voice_agent.core.units import MS, SECONDS
from voice_agent.settings.sections.ears import EarsSettings

FRAME: Final = RATE // 100
"""Samples; the module's own 10 ms."""

ECHO_DELAY: Final = 128
"""Samples by which the echo canceller is late; measured, and a test measures it again."""
NOISE_DELAY: Final = 96
"""Samples by which the noise suppressor is late."""

LEAD_SECONDS: Final = 20 * MS
"""No echo comes sooner: a frame of this length is sent whole, and so it is played and captured later than told. In
return its sound is known, even where the player is a little late."""

LEARNING_SECONDS: Final = 2 * SECONDS
"""From the first sound of a call on, the canceller learns the room. What it leaves meanwhile is loud enough to be taken for
a caller, and nothing of that time is heard: a greeting can't be interrupted sooner."""

HOLD_SECONDS: Final = 0.5 * SECONDS
"""So long behind our own voice nothing is made louder, because what is left of the echo would be."""
RAMP_SECONDS: Final = 0.1 * SECONDS

NOISE_LEVELS: Final = {"low": 0, "moderate": 1, "high": 2, "highest": 3}


@attrs.frozen(kw_only=True)
class Care:
    """What is done for one call."""

    echo_cancellation: bool = False
    noise_suppression: bool = False
    high_pass: bool = False
    gain_control: bool = False

    @classmethod
    def chosen(cls, settings: EarsSettings, *, is_raw: bool) -> "Care":
        """Return what the settings want for a caller whose microphone is raw, or not."""

        def is_wanted(wanted: str) -> bool:
            return wanted == "on" or (wanted == "auto" and is_raw)

        return cls(
            echo_cancellation=is_wanted(settings.echo_cancellation),
            noise_suppression=is_wanted(settings.noise_suppression),
            high_pass=is_wanted(settings.high_pass),
            gain_control=is_wanted(settings.gain_control),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """What is done, by the settings' names."""
        return tuple(name for name, is_done in attrs.asdict(self).items() if is_done)

    @property
    def delay(self) -> int:
        """Samples by which the module is late."""
        return ECHO_DELAY * self.echo_cancellation + NOISE_DELAY * self.noise_suppression


class Ears:
    """One call's care; for use by one task. Audio is float32 of shape (n,) at 16 kHz."""

    def __init__(self, settings: EarsSettings, care: Care, far_end: FarEnd | None = None) -> None:
        """``far_end`` is told what the caller hears."""
        self.care = care
        self.far_end = far_end or FarEnd()
        self.far_end.is_wanted = care.echo_cancellation
        self.clock = CaptureClock()
        self._echo_delay = round((LEAD_SECONDS + settings.echo_delay_ms * MS) * RATE)
        self._canceller = EchoCanceller(RATE) if care.echo_cancellation else None
        self._thread = trio.CapacityLimiter(1)
        self._is_cancelling = False
        self._to_learn = round(LEARNING_SECONDS * RATE)
        """Samples until the canceller knows the room."""
        self._recent: MonoAudio = np.zeros(FRAME, np.float32)
        """The last frame that came; what passes by the canceller is its end."""
        self._rest: MonoAudio = np.zeros(0, np.float32)
        self._surplus = care.delay
        """Samples of this stream that come out before its first one has."""
        self._position = 0
        """Where in the call, at 16 kHz, the next frame stands."""
        self._processor = (
            AudioProcessor(
                RATE,
                noise_suppression=care.noise_suppression,
                high_pass_filter=care.high_pass,
                ns_level=NOISE_LEVELS[settings.noise_suppression_level],
            )
            if care.noise_suppression or care.high_pass
            else None
        )
        self._gain = GainController(RATE, max_gain_db=settings.max_gain_db) if care.gain_control else None
        self._gain_share = 1.0
        """How much of the gain is given: between 0 while our own voice sounds, and 1."""
        self._held = 0
        """Samples until it is given again."""

    def jump(self, position: int) -> None:
        """A new stream begins, at this sample of the call; the one before was flushed."""
        self._position = position

    async def clean(self, samples: MonoAudio) -> MonoAudio:
        """Take what the caller sends, n of any size; return what is ready, of shape (m,)."""
        if not self.care.names:
            return samples
        waiting = np.concatenate((self._rest, samples)) if len(self._rest) else samples
        whole = len(waiting) // FRAME * FRAME
        self._rest = waiting[whole:]
        if not whole:
            return waiting[:0]
        cleaned = await self._clean(waiting[:whole])
        self._surplus, surplus = max(0, self._surplus - whole), min(self._surplus, whole)
        return cleaned[surplus:]

    async def flush(self) -> MonoAudio:
        """End the stream, as if silence followed; return the rest, of shape (m,). Another stream may follow."""
        missing = self.care.delay - self._surplus + len(self._rest)
        if not missing:
            return self._rest
        padding = -(-(missing + self._surplus) // FRAME) * FRAME - len(self._rest)
        rest = (await self.clean(np.zeros(padding, np.float32)))[:missing]
        self._rest, self._surplus = self._rest[:0], self.care.delay
        return rest

    async def _clean(self, frames: MonoAudio) -> MonoAudio:
        far = None
        if self._canceller is not None:
            begin = self.clock.sample_at(self._position / RATE) - self._echo_delay
            far = self.far_end.between(begin, len(frames))
        self._position += len(frames)
        if far is None:
            return self._raise(self._refine(self._pass_by(frames)))
        return await trio.to_thread.run_sync(self._cancel_and_refine, frames, far, limiter=self._thread)

    def _pass_by(self, frames: MonoAudio) -> MonoAudio:
        """Be as late as the canceller, and nothing else."""
        if self._canceller is None:
            return frames
        self._is_cancelling = False
        late = np.concatenate((self._recent[-ECHO_DELAY:], frames))
        self._recent = frames[-FRAME:]
        return late[:-ECHO_DELAY]

    def _cancel_and_refine(self, frames: MonoAudio, far: MonoAudio) -> MonoAudio:
        assert self._canceller is not None  # noqa: S101 (only then is there a far end)
        if not self._is_cancelling:
            # What is inside the canceller dates from its last work.
            self._canceller.process(self._recent, np.zeros(FRAME, np.float32))
            self._is_cancelling = True
        self._recent = frames[-FRAME:]
        left = self._canceller.process(frames, far)
        if self._to_learn:
            left[: self._to_learn] = 0
            self._to_learn = max(0, self._to_learn - len(left))
        self._held = round(HOLD_SECONDS * RATE) if np.abs(far).max() > SOUNDS else self._held
        return self._raise(self._refine(left))

    def _refine(self, frames: MonoAudio) -> MonoAudio:
        return frames if self._processor is None else self._processor.process(frames)

    def _raise(self, frames: MonoAudio) -> MonoAudio:
        """Bring speech to its level; what our own voice may have left stays as it is, and teaches nothing."""
        if self._gain is None:
            return frames
        is_held = self._held > 0
        raised = self._gain.process(frames, 0.0) if is_held else self._gain.process(frames)
        self._held = max(0, self._held - len(frames))
        step = len(frames) / (RAMP_SECONDS * RATE)
        share = max(0.0, self._gain_share - step) if is_held else min(1.0, self._gain_share + step)
        shares = np.linspace(self._gain_share, share, len(frames), dtype=np.float32)
        self._gain_share = share
        return frames + shares * (raised - frames)
