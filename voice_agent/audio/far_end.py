"""The far end: what was played to the caller and when, and what the clock said when the caller's sound was captured.

Echo is our own voice, some time later. To take it out, each sample that comes from the caller must be held against
what sounded at the same time. Two clocks are joined here: Trio's, by which playing is told, and the caller's, which
is a count of samples that come in bursts.
"""

import math
from collections import deque
from typing import Final

import numpy as np

from voice_agent.audio.resample import MonoAudio, StreamResampler, open_resampler
from voice_agent.core.units import MS, SECONDS

RATE: Final = 16_000
"""Hz, of what is kept; the rate of hearing."""

MAX_KEPT_SECONDS: Final = 12 * SECONDS
"""As much as may wait to be heard by default, and some more; 64 kB a second. Older sound is forgotten."""

SEAM_SECONDS: Final = 40 * MS
"""Frames that are to follow each other, and by their times nearly do, follow each other: a player wakes up late now and
then, but what the caller hears has no holes."""

SOUNDS: Final = 1e-4
"""What is quieter has no echo that anybody hears; -80 dB."""

TAIL_SECONDS: Final = 1.5 * SECONDS
"""An echo can come so much later than its sound: half a second on its way, and what the room holds."""

STEP_BACK_SECONDS: Final = 100 * MS
"""The line of capture is corrected by less than that, as a rule; who asks from further back gets silence."""

CAPTURE_LOOK_SECONDS: Final = 2 * SECONDS
CAPTURE_BUCKET_SECONDS: Final = 0.1 * SECONDS
EARLIER_SECONDS: Final = 40 * MS
LATER_SECONDS: Final = 10 * MS


class FarEnd:
    """What one call's caller was given to hear, on a line of time; for use by one task at a time, without awaiting."""

    def __init__(self, *, is_wanted: bool = True) -> None:
        self.is_wanted = is_wanted
        """Whether anybody asks for it; otherwise nothing is kept."""
        self._pieces: deque[tuple[int, MonoAudio]] = deque()
        self._kept = 0
        self._resampler: StreamResampler | None = None
        self._rate = 0
        self._resampled_to = 0
        """Where on the line the next sample from the resampler stands."""
        self._ends_at = 0
        """Where on the line the next frame is expected."""
        self._sounds_until: float = -math.inf
        """The last sample that was asked for and held any sound."""

    def play(self, samples: MonoAudio, sample_rate: int, at: float) -> None:
        """Note that these samples, float32 of shape (n,), begin to sound at ``at`` on Trio's clock.

        Call it for each frame that leaves, in order, when it leaves or before. ``at`` need not hold the way through the
        network: that is found out.
        """
        if not self.is_wanted or not len(samples):
            return
        begin = round(at * RATE)
        if (
            self._resampler is None
            or sample_rate != self._rate
            or abs(begin - self._ends_at) > SEAM_SECONDS * RATE
        ):
            self._end_stream()
            # The default resampler holds back 1 to 3 ms; the others up to a tenth of a second, which would be too late.
            self._resampler = open_resampler(sample_rate, RATE)
            self._rate = sample_rate
            self._resampled_to = self._ends_at = begin
        self._keep(self._resampler.process(samples))
        self._ends_at += round(len(samples) * RATE / sample_rate)

    def between(self, begin: int, count: int) -> MonoAudio | None:
        """Return what sounded from sample ``begin`` of Trio's clock on; None where no echo of anything can be heard.

        Forgets what is older: ask in order.
        """
        end = begin + count
        while (
            self._pieces and self._pieces[0][0] + len(self._pieces[0][1]) < begin - STEP_BACK_SECONDS * RATE
        ):
            self._forget_oldest()
        if begin >= self._sounds_until + TAIL_SECONDS * RATE and (
            not self._pieces or self._pieces[0][0] >= end
        ):
            return None
        sound = np.zeros(count, np.float32)
        for start, piece in self._pieces:
            if start >= end:
                break
            first, last = max(start, begin), min(start + len(piece), end)
            if first < last:
                sound[first - begin : last - begin] = piece[first - start : last - start]
                self._sounds_until = last
        return sound

    @property
    def kept_seconds(self) -> float:
        """How much sound is kept."""
        return self._kept / RATE

    def _end_stream(self) -> None:
        if self._resampler is not None:
            self._keep(self._resampler.flush())
            self._resampler = None

    def _keep(self, resampled: MonoAudio) -> None:
        begin = self._resampled_to
        self._resampled_to += len(resampled)
        if not len(resampled) or np.abs(resampled).max() <= SOUNDS:
            return
        self._pieces.append((begin, resampled))
        self._kept += len(resampled)
        while self._kept > MAX_KEPT_SECONDS * RATE:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        self._kept -= len(self._pieces.popleft()[1])


class CaptureClock:
    """When, on Trio's clock, the caller's sound was captured, from when it came.

    Audio comes late, in bursts, and never early: what has been on its way for the shortest time tells most. The line is
    kept while it is nearly right, because each move of it is a jump for who compares two sounds. It must not be too
    early, for an echo that seems to come before its sound is not found; so it moves later sooner than earlier.
    """

    def __init__(self) -> None:
        self._shortest: deque[tuple[float, float]] = deque()
        self._offset: float | None = None

    def note(self, end_seconds: float, came_at: float) -> None:
        """Note that the call's audio up to ``end_seconds`` had come at ``came_at``."""
        offset = came_at - end_seconds
        if self._shortest and came_at - self._shortest[-1][0] < CAPTURE_BUCKET_SECONDS:
            began_at, least = self._shortest[-1]
            self._shortest[-1] = (began_at, min(least, offset))
        else:
            self._shortest.append((came_at, offset))
        while came_at - self._shortest[0][0] > CAPTURE_LOOK_SECONDS:
            self._shortest.popleft()
        shortest = min(least for _, least in self._shortest)
        if self._offset is None or not -EARLIER_SECONDS <= shortest - self._offset <= LATER_SECONDS:
            self._offset = shortest

    def sample_at(self, seconds: float) -> int:
        """Return the sample of Trio's clock at which the call's second ``seconds`` was captured."""
        return round((seconds + (self._offset or 0.0)) * RATE)
