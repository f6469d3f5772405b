"""Up to where a call's audio is settled, from its events alone: never too far, and never back."""

import pytest

from voice_agent.core.events import Fault, Notice, SessionEvent, SpeechStarted, SpeechStopped, Transcript
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.session.heard import Heard, unnoticed_ms
from voice_agent.settings.schema import VadSettings

UNNOTICED_MS = 500


def started(utterance: int, start: float, position_ms: int) -> SpeechStarted:
    return SpeechStarted(utterance=utterance, start=start, position_ms=position_ms)


def final(utterance: int, start: float, end: float, position_ms: int) -> Transcript:
    result = TranscriptResult(text="a", is_final=True, start=start, end=end, utterance=utterance, stable="a")
    return Transcript(result=result, position_ms=position_ms)


def no_words(utterance: int, position_ms: int) -> Notice:
    return Notice(code="no_words", message="", detail={"utterance": utterance}, position_ms=position_ms)


def test_in_silence_it_follows_what_was_heard_a_little_behind() -> None:
    """Speech may have begun that nobody noticed yet."""
    heard = Heard(UNNOTICED_MS)
    assert [heard.settled_at(ms) for ms in (0, 400, 2000, 10_000)] == [0, 0, 1500, 9500]


def test_an_open_utterance_holds_it_where_it_began() -> None:
    """Whatever is heard meanwhile, and whatever else is told; its final settles it up to its end."""
    heard = Heard(UNNOTICED_MS)
    assert heard.note(started(1, 1.2349, 1600)) == 0
    assert heard.settled_at(9000) == 0
    assert heard.note(final(2, 0.0, 0.0, 9000)) == 0  # typed meanwhile
    assert heard.note(SpeechStopped(utterance=1, end=8.5, position_ms=9000)) == 0
    assert heard.note(final(1, 1.2349, 8.5009, 8900)) == 8500
    assert heard.settled_at(9400) == 8900


def test_of_two_open_ones_the_earlier_counts() -> None:
    """The next one has begun before the final of the first: it goes no further than the next one's beginning."""
    heard = Heard(UNNOTICED_MS)
    heard.note(started(1, 1.0, 1500))
    heard.note(started(2, 4.0, 9000))
    assert heard.note(final(1, 1.0, 4.2, 9000)) == 4000
    assert heard.note(no_words(2, 9000)) == 8500


@pytest.mark.parametrize(
    "end", [no_words(1, 5000), Fault(code="recognition_failed", message="", is_fatal=False, position_ms=5000)]
)
def test_an_utterance_without_a_final_ends_too(end: SessionEvent) -> None:
    """Without words, and where recognition failed: it is not heard again."""
    heard = Heard(UNNOTICED_MS)
    heard.note(started(1, 1.0, 1500))
    assert heard.note(end) == 4500


def test_half_a_word_is_not_taken_for_none() -> None:
    """An utterance that a lost connection cut, and in which no words were found, is heard again with its other half."""
    heard = Heard(UNNOTICED_MS)
    heard.note(started(1, 3.0, 3500))
    heard.note(SpeechStopped(utterance=1, end=3.4, position_ms=3400, is_cut=True))
    assert heard.note(no_words(1, 3400)) == 0
    assert heard.settled_at(9000) == 0
    assert heard.is_cut(1)
    assert not heard.is_cut(2)


def test_it_never_goes_back_and_counts_utterances() -> None:
    """Not before where a resumed call began; and it knows the highest number that was given."""
    heard = Heard(UNNOTICED_MS, settled_ms=7000)
    assert heard.settled_at(7100) == 7000
    heard.note(started(4, 6.9, 7300))
    assert heard.note(final(4, 6.9, 6.95, 7300)) == 7000
    assert heard.utterances == 4


def test_what_is_unnoticed_follows_the_settings() -> None:
    """Who keeps more from before speech was noticed has to hear more of it again."""
    assert unnoticed_ms(VadSettings()) == 502
    assert unnoticed_ms(VadSettings(pre_roll_ms=1256)) == 1502
