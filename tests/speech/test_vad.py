"""The speech detector: hysteresis over probabilities, without a model."""

from collections.abc import Iterable

import attrs
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.settings.schema import VadSettings
from voice_agent.speech.vad import (
    SETTLE_WINDOWS,
    Activity,
    Began,
    Cut,
    Ended,
    Paused,
    Resumed,
    SpeechDetector,
    Transition,
)

SPEECH = 0.9
BETWEEN = 0.4
SILENCE = 0.1


def detector(**changes: float) -> SpeechDetector:
    return SpeechDetector.from_settings(attrs.evolve(VadSettings(), **changes))


def run(it: SpeechDetector, probabilities: Iterable[float], *, flush: bool = False) -> list[Transition]:
    found = [t for p in probabilities for t in it.push(p, 0.01 if p >= BETWEEN else 0.0001)]
    return found + list(it.flush()) if flush else found


def test_speech_begins_before_it_was_noticed() -> None:
    """The utterance holds the pre-roll and every window of the candidate."""
    assert run(detector(), [SILENCE] * 20 + [SPEECH] * 3) == [Began(20 - 8)]


def test_a_short_sound_is_no_speech() -> None:
    """Two loud windows (64 ms) are less than the minimum of 96 ms."""
    assert run(detector(), [SILENCE] * 5 + [SPEECH] * 2 + [SILENCE] * 30) == []


def test_speech_goes_on_between_the_thresholds() -> None:
    """A window between the two thresholds keeps speech alive but does not begin it."""
    assert run(detector(), [BETWEEN] * 50) == []
    assert run(detector(), [SPEECH] + [BETWEEN] * 50) == [Began(0)]


def test_an_utterance_ends_after_the_hangover() -> None:
    """300 ms are ten windows: the pause is told after 128 ms, the end after the hangover, not a window earlier."""
    it = detector()
    assert run(it, [SPEECH] * 10 + [SILENCE] * SETTLE_WINDOWS)[1:] == [Paused(14)]
    assert run(it, [SILENCE] * 5) == []
    assert run(it, [SILENCE]) == [Ended(14, 10)]
    assert it.activity is Activity.SILENT


def test_a_pause_that_is_none() -> None:
    """Speech within the hangover goes on with the same utterance."""
    assert run(detector(), [SPEECH] * 10 + [SILENCE] * 6 + [SPEECH] * 3)[1:] == [Paused(14), Resumed()]


def test_a_stop_consonant_is_no_pause() -> None:
    """A closure of 96 ms does not even begin a pause."""
    assert run(detector(), [SPEECH] * 10 + [SILENCE] * 3 + [SPEECH] * 3) == [Began(0)]


def test_the_next_utterance_never_reaches_into_the_last() -> None:
    """Pre-roll stops at the end of the utterance before: nothing is heard twice."""
    found = run(detector(), [SPEECH] * 10 + [SILENCE] * 10 + [SPEECH] * 5)
    ended = next(t for t in found if isinstance(t, Ended))
    began = [t for t in found if isinstance(t, Began)]
    assert began[1].start >= ended.end


def test_flush_ends_what_is_open() -> None:
    """A caller who hangs up in mid-word has said something."""
    assert run(detector(), [SPEECH] * 10, flush=True) == [Began(0), Ended(10, 10)]


def test_flush_takes_a_beginning_word() -> None:
    """Two windows of speech right before a hang-up are the beginning of a word; one is a click."""
    assert run(detector(), [SPEECH] * 2, flush=True) == [Began(0), Ended(2, 2)]
    assert run(detector(), [SPEECH] * 1, flush=True) == []


def test_a_long_utterance_is_cut_at_its_quietest_place() -> None:
    """The cut lies in the search range, where five windows together are quietest, and speech goes on behind it."""
    it = detector(max_utterance_seconds=6.4, cut_search_seconds=3.2)
    loud = [0.01] * 200
    loud[150:155] = [0.002] * 5
    loud[120] = 0.0
    found = [t for level in loud[:200] for t in it.push(SPEECH, level)]
    assert found == [Began(0), Cut(152)]
    assert it.is_in_utterance


@given(
    st.lists(
        st.tuples(st.sampled_from([SPEECH, BETWEEN, SILENCE]), st.floats(0, 1), st.integers(1, 60)),
        max_size=30,
    )
)
def test_utterances_never_overlap_and_never_exceed_the_maximum(
    runs: list[tuple[float, float, int]],
) -> None:
    """Whatever comes: utterances follow each other, none is longer than the maximum, and each that began ends."""
    it = detector(max_utterance_seconds=3.2, cut_search_seconds=1.6)
    windows = [(p, level + i % 7 / 10) for p, level, length in runs for i in range(length)]
    # A cut in a pause leaves nothing open: whether it did is known at the cut only.
    found = [(t, it.is_in_utterance) for p, level in windows for t in it.push(p, level)]
    found += [(t, it.is_in_utterance) for t in it.flush()]
    start: int | None = None
    last_end = 0
    for transition, is_open in found:
        match transition:
            case Began(at):
                assert start is None
                assert at >= last_end
                start = at
            case Ended(end, speech_end):
                assert start is not None
                assert start < end <= start + 100
                assert speech_end <= end
                start, last_end = None, end
            case Cut(at):
                assert start is not None
                assert start < at <= start + 100
                start, last_end = (at if is_open else None), at
            case Paused() | Resumed():
                assert start is not None
        assert is_open == (start is not None)
    assert start is None


def test_a_cut_in_the_gap_after_a_word_opens_no_silent_utterance() -> None:
    """Speech up to just before the maximum, then silence: the cut ends it, and nothing more begins."""
    it = detector(max_utterance_seconds=3.2, cut_search_seconds=1.6)
    found = run(it, [SPEECH] * 97 + [SILENCE] * 40)
    assert [type(t) for t in found] == [Began, Cut]
    assert not it.is_in_utterance
