"""Where speech begins, pauses and ends: hysteresis over voice-activity probabilities. Pure; no model, no clock.

Rules (time is counted in windows of 512 samples, 32 ms):

* SILENT: a window at or above ``threshold`` begins a candidate.
* CANDIDATE: every further window must stay above ``release_threshold``; after ``min_speech`` windows it is speech,
  which began at the candidate's first window less the pre-roll. One window below ends the candidate.
* SPEAKING: a window below ``release_threshold`` begins a silence. After ``settle`` windows of it a pause is told,
  so that work on the probable final may begin early.
* PAUSED: a window at or above ``threshold`` resumes the speech; after ``hangover`` windows the utterance has ended.
* An utterance that reaches ``max_length`` is cut at the quietest place of the last ``cut_search`` windows; what
  stands behind the cut is the next utterance, so nothing is lost and nothing is heard twice.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from math import ceil
from typing import Final

import attrs

from voice_agent.settings.schema import VadSettings

WINDOW_MS: Final = 32

SETTLE_WINDOWS: Final = 4
"""128 ms of silence: shorter gaps are stop consonants (closures of 50-100 ms), not pauses."""

QUIET_SPAN: Final = 5
"""A cut needs this many windows (160 ms) to be quiet together: a closure inside a word is shorter."""


class Activity(Enum):
    """What the caller is doing."""

    SILENT = auto()
    CANDIDATE = auto()
    SPEAKING = auto()
    PAUSED = auto()


@attrs.frozen
class Began:
    """Speech began; its audio starts at window ``start``."""

    start: int


@attrs.frozen
class Paused:
    """A silence has begun; the words so far end at or before window ``end``."""

    end: int


@attrs.frozen
class Resumed:
    """The pause was none."""


@attrs.frozen
class Ended:
    """The utterance is windows [start, end); speech was last heard before window ``speech_end``."""

    end: int
    speech_end: int


@attrs.frozen
class Cut:
    """The utterance is too long: it ends at window ``at``, and the next one begins there."""

    at: int


Transition = Began | Paused | Resumed | Ended | Cut


@attrs.frozen
class _Heard:
    probability: float
    loudness: float


@attrs.define
class SpeechDetector:
    """The state machine of one call; feed it windows in order."""

    threshold: float
    release_threshold: float
    min_speech: int
    hangover: int
    pre_roll: int
    max_length: int
    cut_search: int
    activity: Activity = Activity.SILENT
    window: int = 0
    """Index of the next window."""
    speech_windows: int = 0
    """Windows of the current utterance that held speech."""
    _start: int = 0
    _candidate_start: int = 0
    _last_speech: int = 0
    _floor: int = 0
    _recent: deque[_Heard] = attrs.field(factory=deque)

    @classmethod
    def from_settings(cls, settings: VadSettings) -> "SpeechDetector":
        """Make a detector; milliseconds become whole windows, rounded up."""
        max_length = int(settings.max_utterance_seconds * 1000 / WINDOW_MS)
        cut_search = min(int(settings.cut_search_seconds * 1000 / WINDOW_MS), max_length // 2)
        return cls(
            threshold=settings.threshold,
            release_threshold=settings.release_threshold,
            min_speech=ceil(settings.min_speech_ms / WINDOW_MS),
            hangover=max(ceil(settings.hangover_ms / WINDOW_MS), SETTLE_WINDOWS),
            pre_roll=ceil(settings.pre_roll_ms / WINDOW_MS),
            max_length=max_length,
            cut_search=cut_search,
            recent=deque(maxlen=cut_search),
        )

    @property
    def is_in_utterance(self) -> bool:
        """Whether an utterance is open."""
        return self.activity in (Activity.SPEAKING, Activity.PAUSED)

    @property
    def first_needed_window(self) -> int:
        """Audio before this window can be forgotten."""
        if self.is_in_utterance:
            return self._start
        begin = self._candidate_start if self.activity is Activity.CANDIDATE else self.window
        return max(begin - self.pre_roll, self._floor, 0)

    def push(self, probability: float, loudness: float) -> Iterator[Transition]:
        """Take the next window: its speech probability, and its mean square."""
        index = self.window
        self.window += 1
        self._recent.append(_Heard(probability, loudness))
        if self.activity is Activity.SILENT and probability >= self.threshold:
            self.activity = Activity.CANDIDATE
            self._candidate_start = index
        if self.activity is Activity.CANDIDATE:
            yield from self._push_candidate(index, probability)
        elif self.activity is Activity.SPEAKING:
            yield from self._push_speaking(index, probability)
        elif self.activity is Activity.PAUSED:
            yield from self._push_paused(index, probability)
        if self.is_in_utterance and self.window - self._start >= self.max_length:
            yield self._cut()

    def flush(self) -> Iterator[Transition]:
        """No more audio comes, or it is not continuous from here: end what is open."""
        if self.activity is Activity.CANDIDATE and self.window - self._candidate_start >= self.min_speech - 1:
            # A caller who hangs up in mid-word: what is there is likely the word's beginning.
            yield self._begin()
        if self.is_in_utterance:
            yield self._end(self._last_speech + 1 + SETTLE_WINDOWS)
        self.activity = Activity.SILENT
        self._floor = self.window

    def _push_candidate(self, index: int, probability: float) -> Iterator[Transition]:
        if probability < self.release_threshold:
            self.activity = Activity.SILENT
        elif index - self._candidate_start + 1 >= self.min_speech:
            self._last_speech = index
            yield self._begin()

    def _push_speaking(self, index: int, probability: float) -> Iterator[Transition]:
        if probability >= self.release_threshold:
            self._last_speech = index
            self.speech_windows += 1
        elif index - self._last_speech >= SETTLE_WINDOWS:
            self.activity = Activity.PAUSED
            yield Paused(self.window)
            yield from self._push_paused(index, probability)

    def _push_paused(self, index: int, probability: float) -> Iterator[Transition]:
        if probability >= self.threshold:
            self.activity = Activity.SPEAKING
            self._last_speech = index
            self.speech_windows += 1
            yield Resumed()
        elif index - self._last_speech >= self.hangover:
            yield self._end(self._last_speech + 1 + SETTLE_WINDOWS)

    def _begin(self) -> Began:
        self.activity = Activity.SPEAKING
        self._last_speech = self.window - 1
        self.speech_windows = self.window - self._candidate_start
        self._start = max(self._candidate_start - self.pre_roll, self._floor, 0)
        return Began(self._start)

    def _end(self, end: int) -> Ended:
        self.activity = Activity.SILENT
        end = min(end, self.window)
        self._floor = end
        return Ended(end, min(self._last_speech + 1, end))

    def _cut(self) -> Cut:
        """Cut where ``QUIET_SPAN`` windows together are quietest; of equals, the latest."""
        loud = [heard.loudness for heard in self._recent]
        half = QUIET_SPAN // 2
        spans = [sum(loud[max(0, i - half) : i + half + 1]) for i in range(half, len(loud) - half)]
        quietest = min(range(len(spans)), key=lambda i: (spans[i], -i)) + half
        at = self.window - len(loud) + quietest
        recent = list(self._recent)
        self._start = at
        self._floor = at
        self.speech_windows = sum(heard.probability >= self.release_threshold for heard in recent[quietest:])
        if self._last_speech < at:
            # Nothing was said behind the cut: what is left is silence, and may be no more than that.
            self.activity = Activity.SILENT
        return Cut(at)
