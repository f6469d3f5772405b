"""Utterances: exactly the audio between a beginning and an end, nothing lost, nothing twice."""

import attrs
import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.settings.schema import VadSettings
from voice_agent.speech.engine import VAD_WINDOW
from voice_agent.speech.utterance import (
    Utterance,
    UtteranceChanged,
    UtteranceClosed,
    UtteranceOpened,
    UtteranceTracker,
)

SHORT = attrs.evolve(VadSettings(), max_utterance_seconds=3.2, cut_search_seconds=1.6)


def numbered_windows(count: int, first: int = 0) -> npt.NDArray[np.float32]:
    """Windows whose every sample is the window's index, so that a clip shows what it is made of."""
    return np.repeat(np.arange(first, first + count, dtype=np.float32), VAD_WINDOW).reshape(-1, VAD_WINDOW)


def indices(utterance: Utterance) -> list[int]:
    return [int(v) for v in utterance.clip()[::VAD_WINDOW]]


def test_a_clip_holds_pre_roll_speech_and_a_settled_tail() -> None:
    """Eight windows before the speech, the speech, and four windows behind it."""
    tracker = UtteranceTracker(VadSettings())
    probabilities = [0.1] * 20 + [0.9] * 10 + [0.1] * 15
    changes = list(tracker.push(numbered_windows(45), probabilities))
    closed = [c.utterance for c in changes if isinstance(c, UtteranceClosed)]
    assert len(closed) == 1
    assert indices(closed[0]) == list(range(12, 34))
    assert closed[0].start == 12 * VAD_WINDOW
    assert closed[0].speech_end == 30 * VAD_WINDOW
    assert closed[0].speech_seconds == 10 * 0.032


def test_a_pause_settles_the_clip_and_speaking_on_unsettles_it() -> None:
    """While the caller pauses the clip stays as it was; when the caller speaks on, the pause is part of it."""
    tracker = UtteranceTracker(VadSettings())
    changes = list(tracker.push(numbered_windows(14), [0.9] * 10 + [0.1] * 4))
    utterance = next(c.utterance for c in changes if isinstance(c, UtteranceOpened))
    assert utterance.is_settled
    assert indices(utterance) == list(range(14))
    list(tracker.push(numbered_windows(3, 14), [0.1] * 3))
    assert indices(utterance) == list(range(14))
    list(tracker.push(numbered_windows(2, 17), [0.9] * 2))
    assert not utterance.is_settled
    assert indices(utterance) == list(range(19))


def test_a_jump_moves_the_clock() -> None:
    """After missing audio, utterances stand where they were spoken."""
    tracker = UtteranceTracker(VadSettings())
    list(tracker.push(numbered_windows(5), [0.1] * 5))
    list(tracker.flush())
    tracker.jump(160_000)
    opened = [c for c in tracker.push(numbered_windows(5), [0.9] * 5) if isinstance(c, UtteranceOpened)]
    assert opened[0].utterance.start == 160_000
    assert tracker.position == 160_000 + 5 * VAD_WINDOW


def test_growth_is_told_once_a_push() -> None:
    """However many windows a push holds, a growing utterance is told once."""
    tracker = UtteranceTracker(VadSettings())
    changes = list(tracker.push(numbered_windows(30), [0.9] * 30))
    assert [type(c) for c in changes] == [UtteranceOpened, UtteranceChanged]


def test_a_monologue_of_25_minutes_is_cut_without_a_hole_or_a_double() -> None:
    """46,875 windows of unbroken speech: the utterances' windows, put together, are the whole, each once."""
    tracker = UtteranceTracker(VadSettings())
    count = 25 * 60 * 16_000 // VAD_WINDOW
    rng = np.random.default_rng(7)
    heard: list[int] = []
    longest = 0
    for first in range(0, count, 25):
        windows = numbered_windows(min(25, count - first), first)
        noisy = windows * rng.uniform(0.1, 1.0, (len(windows), 1)).astype(np.float32)
        for change in tracker.push(noisy, [0.9] * len(windows)):
            if isinstance(change, UtteranceClosed):
                heard.append(change.utterance.start // VAD_WINDOW)
                longest = max(longest, change.utterance.length)
    closed = [c.utterance for c in tracker.flush() if isinstance(c, UtteranceClosed)]
    starts = [*heard, closed[0].start // VAD_WINDOW]
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert closed[0].start + closed[0].length == count * VAD_WINDOW
    assert longest <= VadSettings().max_utterance_seconds * 16_000


@given(
    st.lists(st.tuples(st.sampled_from([0.9, 0.4, 0.1]), st.integers(1, 60)), max_size=25),
    st.integers(1, 40),
)
def test_every_spoken_window_is_in_exactly_one_utterance(runs: list[tuple[float, int]], step: int) -> None:
    """Whatever is said and however it is pushed: closed clips are contiguous, disjoint, and hold all long speech."""
    tracker = UtteranceTracker(SHORT)
    probabilities = [p for p, length in runs for _ in range(length)]
    seen: list[int] = []
    changes = []
    for first in range(0, len(probabilities), step):
        part = probabilities[first : first + step]
        changes += list(tracker.push(numbered_windows(len(part), first), part))
    changes += list(tracker.flush())
    for change in changes:
        if isinstance(change, UtteranceClosed):
            held = indices(change.utterance)
            assert held == list(range(held[0], held[0] + len(held)))
            assert held[0] == change.utterance.start // VAD_WINDOW
            seen += held
    assert seen == sorted(set(seen))
    position = 0
    for probability, length in runs:
        if probability >= 0.5 and length >= 3:
            assert set(range(position, position + length)) <= set(seen)
        position += length
