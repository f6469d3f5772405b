"""Placing: where in a call's audio each frame stands, whatever its rate."""

import attrs

from voice_agent.core.frames import AudioFrame


class Placing:
    """Counts a call's audio. A frame's own position matters only where it lies ahead: then audio is missing in between."""

    def __init__(self) -> None:
        self._next_position = 0
        self._rate = 0

    @property
    def seconds(self) -> float:
        """How much audio has come."""
        return self._next_position / self._rate if self._rate else 0.0

    def place(self, frame: AudioFrame) -> AudioFrame:
        """Return the frame at its place in the call."""
        if frame.sample_rate != self._rate:
            if self._rate:
                self._next_position = round(self._next_position * frame.sample_rate / self._rate)
            self._rate = frame.sample_rate
        position = max(frame.position, self._next_position)
        self._next_position = position + frame.sample_count
        return frame if frame.position == position else attrs.evolve(frame, position=position)
