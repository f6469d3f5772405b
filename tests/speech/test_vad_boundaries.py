"""The speech detector at its limits: the exact window, the exact threshold, and what a flush or a cut leaves behind."""

from collections.abc import Iterable

import attrs
import pytest

from voice_agent.settings.schema import VadSettings
from voice_agent.speech.vad import Activity, Began, Cut, Ended, Paused, Resumed, SpeechDetector, Transition

SPEECH = 0.9
SILENCE = 0.1


def detector(**changes: float) -> SpeechDetector:
    return SpeechDetector.from_settings(attrs.evolve(VadSettings(), **changes))


def run(it: SpeechDetector, probabilities: Iterable[float], *, flush: bool = False) -> list[Transition]:
    found = [t for p in probabilities for t in it.push(p, p)]
    return found + list(it.flush()) if flush else found


def run_levels(it: SpeechDetector, windows: Iterable[tuple[float, float]]) -> list[Transition]:
    return [t for probability, level in windows for t in it.push(probability, level)]


def test_settings_become_whole_windows() -> None:
    """Windows of 32 ms: lengths that must be reached are rounded up, the maximum is rounded down."""
    it = detector(
        min_speech_ms=97,
        hangover_ms=300,
        pre_roll_ms=33,
        max_utterance_seconds=14.0,
        cut_search_seconds=4.999,
    )
    assert (it.min_speech, it.hangover, it.pre_roll, it.max_length, it.cut_search) == (4, 10, 2, 437, 156)
    assert detector(max_utterance_seconds=3.2, cut_search_seconds=1.6).max_length == 100


def test_the_search_for_a_quiet_place_spares_the_first_half() -> None:
    """However far back the settings allow: a cut never leaves less than half of the longest utterance."""
    assert detector(max_utterance_seconds=6.4, cut_search_seconds=6.0).cut_search == 100


def test_the_shortest_hangover_ends_with_its_pause() -> None:
    """A hangover below the 128 ms of a pause is one: both are told by the same window."""
    assert run(detector(hangover_ms=64), [SPEECH] * 10 + [SILENCE] * 4)[1:] == [Paused(14), Ended(14, 10)]


def test_a_threshold_is_reached_when_it_is_equalled() -> None:
    """Settings that say 0.5 and 0.35 mean at least so much, to begin, to go on and to resume."""
    settings = VadSettings()
    it = detector()
    assert run(it, [settings.threshold] + [settings.release_threshold] * 2) == [Began(0)]
    assert run(it, [settings.release_threshold] * 20) == []
    assert run(it, [SILENCE] * 4) == [Paused(27)]
    assert run(it, [settings.threshold]) == [Resumed()]


def test_a_pause_is_resumed_by_speech_and_not_by_a_murmur() -> None:
    """What lies between the thresholds keeps speech alive, but does not bring it back."""
    assert run(detector(), [SPEECH] * 5 + [SILENCE] * 4 + [0.4] * 6)[1:] == [Paused(9), Ended(9, 5)]


def test_clicks_do_not_add_up_to_speech() -> None:
    """A window below the release threshold takes back what had begun."""
    assert run(detector(), [SPEECH, SILENCE] * 30, flush=True) == []
    assert run(detector(), [SPEECH, SPEECH, SILENCE] * 30) == []


def test_silence_is_counted_from_the_last_speech() -> None:
    """From the candidate's last window, from the window that resumed, from every window of speech."""
    assert run(detector(), [SPEECH] * 3 + [SILENCE] * 4) == [Began(0), Paused(7)]
    assert run(detector(), [SPEECH] * 10 + [SILENCE] * 6 + [SPEECH] + [SILENCE] * 4)[2:] == [
        Resumed(),
        Paused(21),
    ]


@pytest.mark.parametrize(("silent", "ended"), [(1, Ended(11, 10)), (4, Ended(14, 10)), (7, Ended(14, 10))])
def test_a_flush_in_a_silence_keeps_what_was_said_and_its_settling(silent: int, ended: Ended) -> None:
    """The clip ends 128 ms behind the last speech, or where the audio ends."""
    assert run(detector(), [SPEECH] * 10 + [SILENCE] * silent, flush=True)[-1] == ended


def test_a_flush_counts_the_candidate_from_its_own_beginning() -> None:
    """One loud window late in the call is a click there too; two are the beginning of a word."""
    assert run(detector(), [SILENCE] * 20 + [SPEECH], flush=True) == []
    assert run(detector(), [SILENCE] * 20 + [SPEECH] * 2, flush=True) == [Began(12), Ended(22, 22)]


def test_nothing_is_carried_over_a_flush() -> None:
    """Neither half a candidate nor pre-roll: what stands before a flush was heard already, or is not continuous."""
    it = detector()
    assert run(it, [SPEECH], flush=True) == []
    assert run(it, [SPEECH, SPEECH, SILENCE]) == []
    run(it, [SPEECH] * 10, flush=True)
    assert run(it, [SPEECH] * 3) == [Began(14)]
    silent = detector()
    run(silent, [SILENCE] * 20, flush=True)
    assert run(silent, [SPEECH] * 3) == [Began(20)]


def test_audio_is_needed_from_the_pre_roll_on() -> None:
    """What may still become part of an utterance is kept, and no more."""
    it = detector()
    run(it, [SILENCE] * 100)
    assert it.first_needed_window == 92
    run(it, [SPEECH] * 2)
    assert it.first_needed_window == 92
    run(it, [SPEECH] * 50)
    assert it.first_needed_window == 92
    run(it, [SILENCE] * 10)
    assert it.first_needed_window == 156
    run(it, [SILENCE] * 100)
    assert it.first_needed_window == 254


def cut_of(levels: dict[int, float]) -> list[Transition]:
    """Speak 200 windows of level 1 but for ``levels``; the last 100 of them are searched."""
    it = detector(max_utterance_seconds=6.4, cut_search_seconds=3.2)
    return run_levels(it, [(SPEECH, levels.get(i, 1.0)) for i in range(200)])


def test_five_windows_together_decide_where_it_is_quietest() -> None:
    """Neither four quiet windows nor six that are less quiet win against the five."""
    five = dict.fromkeys(range(150, 155), 0.5)
    assert cut_of(five) == [Began(0), Cut(152)]
    assert cut_of(five | dict.fromkeys(range(120, 124), 0.4)) == [Began(0), Cut(152)]
    assert cut_of(five | dict.fromkeys(range(120, 127), 0.51)) == [Began(0), Cut(152)]


def test_the_whole_search_range_is_looked_at() -> None:
    """The first five windows of it, and the last."""
    assert cut_of(dict.fromkeys(range(100, 105), 0.5)) == [Began(0), Cut(102)]
    assert cut_of(dict.fromkeys(range(101, 106), 0.5) | {100: 0.99}) == [Began(0), Cut(103)]
    assert cut_of(dict.fromkeys(range(195, 200), 0.5)) == [Began(0), Cut(197)]
    assert cut_of({}) == [Began(0), Cut(197)]


def test_a_cut_in_a_pause_leaves_nothing_open() -> None:
    """Nothing was said behind it, so the next utterance begins when there is speech again, and not before the cut."""
    it = detector(max_utterance_seconds=6.4, cut_search_seconds=3.2, hangover_ms=5000)
    found = run_levels(it, [(SPEECH, 1.0)] * 190 + [(SILENCE, 0.0)] * 10)
    assert found == [Began(0), Paused(194), Cut(197)]
    assert it.activity is Activity.SILENT
    assert run_levels(it, [(SPEECH, 1.0)] * 3) == [Began(197)]


def test_a_cut_before_the_last_words_leaves_the_pause_open() -> None:
    """Words stand behind the cut: they are an utterance, which ends with the pause they are followed by."""
    it = detector(max_utterance_seconds=6.4, cut_search_seconds=3.2)
    windows = [(SPEECH, 1.0)] * 150 + [(SPEECH, 0.0)] * 5 + [(SPEECH, 1.0)] * 40 + [(SILENCE, 0.5)] * 5
    assert run_levels(it, windows) == [Began(0), Paused(199), Cut(152)]
    assert it.activity is Activity.PAUSED
    assert run_levels(it, [(SILENCE, 0.5)] * 5) == [Ended(199, 195)]


def test_a_cut_at_the_last_window_of_speech_leaves_it_to_the_next_utterance() -> None:
    """The window at a cut stands behind it, so what was said in it is not lost."""
    it = detector(max_utterance_seconds=6.4, cut_search_seconds=3.2, hangover_ms=5000)
    levels = dict.fromkeys(range(193, 198), 0.0)
    windows = [(SPEECH if i < 196 else SILENCE, levels.get(i, 1.0)) for i in range(200)]
    assert run_levels(it, windows) == [Began(0), Paused(200), Cut(195)]
    assert it.activity is Activity.PAUSED


def test_a_cut_while_speaking_goes_on_at_once() -> None:
    """The next utterance begins where the last was cut, and is as long as it may be from there."""
    it = detector(max_utterance_seconds=6.4, cut_search_seconds=3.2)
    found = run_levels(it, [(SPEECH, 1.0)] * (200 + 196))
    assert found == [Began(0), Cut(197)]
    assert it.activity is Activity.SPEAKING
    assert run_levels(it, [(SPEECH, 1.0)]) == [Cut(394)]
