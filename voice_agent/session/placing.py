"""Placing: where in a call's audio each frame stands, whatever its rate."""

from math import ceil

import attrs

from voice_agent.core.frames import AudioFrame


class Placing:
    """Counts a call's audio. A frame's own position matters only where it lies ahead: then audio is missing in between.

    Frames count their positions from ``begin_ms``, where a resumed call's audio goes on. What lies before ``heard_ms`` was
    heard on an earlier connection, and is dropped to the sample.
    """

    def __init__(self, begin_ms: int = 0, heard_ms: int = 0) -> None:
        self.begin_seconds = begin_ms / 1000
        """Where the first frame stands."""
        self._heard_seconds = heard_ms / 1000
        self._next_position = 0
        self._rate = 0

    @property
    def seconds(self) -> float:
        """How much audio has come."""
        return self._next_position / self._rate if self._rate else self.begin_seconds

    def place(self, frame: AudioFrame) -> AudioFrame:
        """Return the frame at its place in the call, without what was heard already; nothing may be left of it."""
        rate = frame.sample_rate
        begin = round(self.begin_seconds * rate)
        if rate != self._rate:
            self._next_position = round(self._next_position * rate / self._rate) if self._rate else begin
            self._rate = rate
        position = max(frame.position + begin, self._next_position)
        self._next_position = position + frame.sample_count
        heard = ceil(self._heard_seconds * rate)
        if position < heard:
            known = min(heard - position, frame.sample_count)
            return attrs.evolve(frame, samples=frame.samples[known:], position=position + known)
        return frame if frame.position == position else attrs.evolve(frame, position=position)
