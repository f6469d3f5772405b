"""Utterances of a call: the audio between a beginning and an end of speech, cut from the stream without copies.

Pure: windows and probabilities in, growing :class:`Utterance` objects and what happened to them out.
"""

from collections import deque
from collections.abc import Iterable, Iterator

import attrs
import numpy as np
import numpy.typing as npt

from voice_agent.settings.schema import VadSettings
from voice_agent.speech.engine import HEARING_RATE, VAD_WINDOW, MonoAudio
from voice_agent.speech.vad import Began, Cut, Ended, Paused, Resumed, SpeechDetector, Transition


@attrs.define(eq=False)
class Utterance:
    """Speech so far. Positions are samples of the call at 16 kHz; ``end`` is known when it has ended."""

    start: int
    windows: list[MonoAudio] = attrs.field(factory=list)
    settled_length: int | None = None
    """Length in samples up to which everything was said, while the caller pauses or when it has ended."""
    speech_end: int | None = None
    """Where speech was last heard, when the utterance has ended."""
    is_closed: bool = False
    speech_seconds: float = 0.0
    mean_probability: float = 0.0

    @property
    def length(self) -> int:
        """Samples so far."""
        return len(self.windows) * VAD_WINDOW

    @property
    def is_settled(self) -> bool:
        """Whether the caller pauses, or has ended."""
        return self.settled_length is not None

    def clip(self) -> MonoAudio:
        """Return a copy of the audio so far (settled part only, when settled): 16 kHz float32, shape (n,)."""
        if not self.windows:
            return np.zeros(0, np.float32)
        whole = np.concatenate(self.windows)
        return whole if self.settled_length is None else whole[: self.settled_length]


@attrs.frozen(eq=False)
class UtteranceOpened:
    """An utterance began."""

    utterance: Utterance


@attrs.frozen(eq=False)
class UtteranceChanged:
    """It grew, paused or resumed."""

    utterance: Utterance


@attrs.frozen(eq=False)
class UtteranceClosed:
    """It has ended; its audio is complete."""

    utterance: Utterance


UtteranceChange = UtteranceOpened | UtteranceChanged | UtteranceClosed


class UtteranceTracker:
    """Cuts one call's audio into utterances."""

    def __init__(self, settings: VadSettings) -> None:
        self._settings = settings
        self._base = 0
        self._restart()

    def _restart(self) -> None:
        self._detector = SpeechDetector.from_settings(self._settings)
        self._kept: deque[tuple[MonoAudio, float]] = deque()
        self._kept_from = 0
        self._current: Utterance | None = None

    def jump(self, position: int) -> None:
        """Audio goes on at ``position`` (samples at 16 kHz); call :meth:`flush` first."""
        self._base = position
        self._restart()

    @property
    def position(self) -> int:
        """Samples at 16 kHz since the call began, up to the last window taken."""
        return self._base + self._detector.window * VAD_WINDOW

    @property
    def is_in_utterance(self) -> bool:
        """Whether the caller is in the middle of an utterance."""
        return self._current is not None

    def push(
        self, windows: npt.NDArray[np.float32], probabilities: Iterable[float]
    ) -> Iterator[UtteranceChange]:
        """Take windows of shape (k, 512) with their k speech probabilities."""
        for window, probability in zip(windows, probabilities, strict=True):
            self._kept.append((window, float(probability)))
            if self._current is not None and not self._current.is_settled:
                self._current.windows.append(window)
            loudness = float(np.dot(window, window)) / VAD_WINDOW
            for transition in self._detector.push(float(probability), loudness):
                yield from self._apply(transition)
            self._forget()
        if self._current is not None and not self._current.is_settled:
            yield UtteranceChanged(self._current)

    def flush(self) -> Iterator[UtteranceChange]:
        """End what is open."""
        for transition in self._detector.flush():
            yield from self._apply(transition)
        self._forget()

    def _apply(self, transition: Transition) -> Iterator[UtteranceChange]:
        match transition:
            case Began(start):
                self._current = self._open(start, self._detector.window)
                yield UtteranceOpened(self._current)
            case Paused(end):
                utterance = self._open_one()
                utterance.settled_length = end * VAD_WINDOW + self._base - utterance.start
                yield UtteranceChanged(utterance)
            case Resumed():
                utterance = self._open_one()
                self._refill(utterance, self._detector.window)
                utterance.settled_length = None
                yield UtteranceChanged(utterance)
            case Ended(end, speech_end):
                yield self._close(end, speech_end)
                self._current = None
            case Cut(at):
                yield self._close(at, at)
                self._current = None
                if self._detector.is_in_utterance:
                    self._current = self._open(at, self._detector.window)
                    yield UtteranceOpened(self._current)

    def _open_one(self) -> Utterance:
        assert self._current is not None, "the detector opens before it pauses, resumes or ends"  # noqa: S101
        return self._current

    def _open(self, first: int, end: int) -> Utterance:
        utterance = Utterance(self._base + first * VAD_WINDOW)
        self._refill(utterance, end)
        return utterance

    def _refill(self, utterance: Utterance, end: int) -> None:
        """Make the utterance hold exactly its windows up to window ``end``."""
        first = (utterance.start - self._base) // VAD_WINDOW
        skip = first - self._kept_from
        kept = list(self._kept)[skip : skip + end - first]
        utterance.windows[:] = [window for window, _ in kept]

    def _close(self, end: int, speech_end: int) -> UtteranceClosed:
        utterance = self._open_one()
        self._refill(utterance, end)
        first = (utterance.start - self._base) // VAD_WINDOW - self._kept_from
        said = [p for _, p in list(self._kept)[first : first + len(utterance.windows)]]
        spoken = [p for p in said if p >= self._settings.release_threshold]
        utterance.speech_seconds = len(spoken) * VAD_WINDOW / HEARING_RATE
        utterance.mean_probability = float(np.mean(spoken)) if spoken else 0.0
        utterance.settled_length = utterance.length
        utterance.speech_end = self._base + speech_end * VAD_WINDOW
        utterance.is_closed = True
        return UtteranceClosed(utterance)

    def _forget(self) -> None:
        while self._kept and self._kept_from < self._detector.first_needed_window:
            self._kept.popleft()
            self._kept_from += 1
