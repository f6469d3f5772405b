"""What an utterance says about itself, and what its tracker keeps: lengths, evidence, changes told, bounded memory."""

import attrs
import numpy as np
import numpy.typing as npt
import pytest

from voice_agent.settings.schema import VadSettings
from voice_agent.speech.engine import VAD_WINDOW
from voice_agent.speech.utterance import (
    Utterance,
    UtteranceChange,
    UtteranceChanged,
    UtteranceClosed,
    UtteranceOpened,
    UtteranceTracker,
)

BASE = 160_000
"""Where the call goes on after a gap: samples at 16 kHz, no whole number of windows."""


def numbered_windows(count: int, first: int = 0) -> npt.NDArray[np.float32]:
    """Windows whose every sample is the window's index."""
    return np.repeat(np.arange(first, first + count, dtype=np.float32), VAD_WINDOW).reshape(-1, VAD_WINDOW)


def indices(utterance: Utterance) -> list[int]:
    return [int(v) for v in utterance.clip()[::VAD_WINDOW]]


def push(tracker: UtteranceTracker, *probabilities: float) -> list[UtteranceChange]:
    first = (tracker.position - tracker._base) // VAD_WINDOW
    return list(tracker.push(numbered_windows(len(probabilities), first), probabilities))


def kinds(changes: list[UtteranceChange]) -> list[type[UtteranceChange]]:
    return [type(change) for change in changes]


def tracker_after_a_gap(**changes: float) -> UtteranceTracker:
    tracker = UtteranceTracker(attrs.evolve(VadSettings(), **changes))
    push(tracker, *[0.1] * 7)
    list(tracker.flush())
    tracker.jump(BASE)
    return tracker


def test_an_utterance_begins_with_nothing_known() -> None:
    """Evidence is there when the utterance has ended; until then it is none."""
    utterance = Utterance(5)
    assert (utterance.is_closed, utterance.is_settled, utterance.speech_end) == (False, False, None)
    assert (utterance.length, utterance.speech_seconds, utterance.mean_probability) == (0, 0.0, 0.0)
    assert utterance.clip().shape == (0,)
    assert utterance.clip().dtype == np.float32


def test_a_closed_utterance_knows_its_evidence_wherever_the_call_stands() -> None:
    """Seconds and mean probability of the windows at or above the release threshold; the length is settled."""
    tracker = tracker_after_a_gap()
    release = VadSettings().release_threshold
    changes = push(tracker, *[0.1] * 20, *[0.9] * 10, *[0.5] * 4, release, *[0.1] * 12)
    [closed] = [change.utterance for change in changes if isinstance(change, UtteranceClosed)]
    assert indices(closed) == list(range(12, 39))
    assert closed.start == BASE + 12 * VAD_WINDOW
    assert closed.speech_end == BASE + 35 * VAD_WINDOW
    assert closed.speech_seconds == pytest.approx(15 * 0.032)
    assert closed.mean_probability == pytest.approx((9 + 2 + release) / 15)
    assert closed.is_closed
    assert closed.settled_length == closed.length == 27 * VAD_WINDOW


def test_a_pause_settles_at_the_length_so_far_wherever_the_call_stands() -> None:
    """The settled length is in samples of the utterance, not of the call."""
    tracker = tracker_after_a_gap()
    [opened, paused] = push(tracker, *[0.9] * 10, *[0.1] * 4)
    assert isinstance(opened, UtteranceOpened)
    assert isinstance(paused, UtteranceChanged)
    assert opened.utterance is paused.utterance
    assert not opened.utterance.is_closed
    assert opened.utterance.settled_length == opened.utterance.length == 14 * VAD_WINDOW


def test_each_change_is_told() -> None:
    """Growth, the pause, the resumption and the end each wake whoever makes words of it; silence wakes nobody."""
    tracker = UtteranceTracker(VadSettings())
    assert kinds(push(tracker, *[0.1] * 5)) == []
    assert not tracker.is_in_utterance
    assert kinds(push(tracker, *[0.9] * 3)) == [UtteranceOpened, UtteranceChanged]
    assert tracker.is_in_utterance
    assert kinds(push(tracker, 0.9)) == [UtteranceChanged]
    assert kinds(push(tracker, *[0.1] * 3)) == [UtteranceChanged]
    assert kinds(push(tracker, 0.1)) == [UtteranceChanged]
    assert kinds(push(tracker, 0.1)) == []
    assert kinds(push(tracker, 0.9)) == [UtteranceChanged, UtteranceChanged]
    assert kinds(push(tracker, *[0.1] * 10)) == [UtteranceChanged, UtteranceClosed]
    assert not tracker.is_in_utterance
    assert kinds(push(tracker, *[0.1] * 5)) == []
    assert kinds(list(tracker.flush())) == []


def test_a_cut_closes_one_utterance_and_opens_the_next() -> None:
    """Both are told; the second holds what stands behind the cut, and goes on growing."""
    tracker = tracker_after_a_gap(max_utterance_seconds=3.2, cut_search_seconds=1.6)
    changes = push(tracker, *[0.9] * 100)
    assert kinds(changes) == [UtteranceOpened, UtteranceClosed, UtteranceOpened, UtteranceChanged]
    first, second = changes[1].utterance, changes[2].utterance
    assert second.start == first.start + first.length
    assert indices(first) + indices(second) == list(range(100))
    assert first.is_closed
    assert first.settled_length == first.length
    assert not second.is_settled
    push(tracker, 0.9)
    assert indices(second)[-1] == 100


def test_a_cut_in_a_pause_opens_nothing() -> None:
    """What stands behind it is silence: no utterance without words."""
    tracker = tracker_after_a_gap(max_utterance_seconds=3.2, cut_search_seconds=1.6, hangover_ms=5000)
    changes = push(tracker, *[0.9] * 80)
    quiet = np.zeros((40, VAD_WINDOW), np.float32)
    changes += list(tracker.push(quiet, [0.1] * 40))
    assert kinds(changes) == [UtteranceOpened, UtteranceChanged, UtteranceChanged, UtteranceClosed]
    assert not tracker.is_in_utterance
    assert kinds(list(tracker.flush())) == []


def test_what_was_heard_is_forgotten() -> None:
    """In silence the pre-roll is kept, after an utterance what follows it: an hour of call costs what a second does."""
    tracker = UtteranceTracker(VadSettings())
    for _ in range(50):
        push(tracker, *[0.1] * 100)
        assert len(tracker._kept) == 8
        push(tracker, *[0.9] * 20, *[0.1] * 12)
        assert len(tracker._kept) <= 8
    push(tracker, *[0.9] * 20)
    list(tracker.flush())
    assert len(tracker._kept) == 0


def test_windows_and_probabilities_go_together() -> None:
    """A probability too few or too many is a defect of the caller, not a window that nobody hears."""
    tracker = UtteranceTracker(VadSettings())
    with pytest.raises(ValueError, match="zip"):
        list(tracker.push(numbered_windows(3), [0.1, 0.1]))
