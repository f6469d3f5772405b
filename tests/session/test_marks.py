"""Word marks: how many words of a sentence have been heard, by how much of its sound has been played."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.audio.resample import MonoAudio
from voice_agent.session.marks import WordMarks, first_words, rest_of

RATE = 16_000

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12
) | st.sampled_from(["40", "g", "₹1,20,000", "22", "K", "%", "-", "10.5", "2026-12-01", "9876543210", "..."])


def tone(seconds: float) -> MonoAudio:
    """Audible sound."""
    return (0.5 * np.sin(np.arange(round(seconds * RATE)))).astype(np.float32)


def silence(seconds: float) -> MonoAudio:
    """No sound."""
    return np.zeros(round(seconds * RATE), np.float32)


def whole(sentence: str, *pieces: MonoAudio, skip_words: int = 0) -> WordMarks:
    """Marks of a sentence of which everything is known."""
    marks = WordMarks(sentence, RATE, skip_words=skip_words)
    for piece in pieces:
        marks.add(piece)
    marks.end()
    return marks


def test_a_word_is_heard_when_its_share_of_the_letters_was_played() -> None:
    """Ten letters in a second: each is a tenth of it, whatever the punctuation."""
    marks = whole("ab, cdef: ghij.", tone(1))
    assert [marks.heard(at) for at in (0, 0.19, 0.2, 0.59, 0.6, 0.99, 1.0)] == [0, 0, 1, 1, 2, 2, 3]


def test_silence_moves_no_word() -> None:
    """Before the first sound nothing is heard, a pause adds nothing, and behind the last sound all is heard already."""
    marks = whole("abcde fghij", silence(1), tone(0.5), silence(2), tone(0.5), silence(1))
    assert [marks.heard(at) for at in (1.0, 1.49, 1.5, 3.49, 3.98, 4.0)] == [0, 0, 1, 1, 1, 2]


def test_a_figure_is_as_long_as_it_is_said() -> None:
    """Letters are counted in what is said: "one lakh twenty thousand rupees" is most of this sentence."""
    marks = whole("Say ₹1,20,000 now", tone(1))
    assert marks.heard(0.05) == 0
    assert marks.heard(0.5) == 1
    assert marks.heard(0.92) == 2


def test_while_the_sound_is_coming_its_length_is_estimated() -> None:
    """A second of 14 letters for a sentence of 28: half of its words; the last word is not counted before the end."""
    marks = WordMarks("abcdefg abcdefg abcdefg abcdefg", RATE, letters_per_second=14)
    marks.add(tone(1))
    assert marks.heard(1) == 2
    marks.add(tone(4))
    assert marks.heard(5) == 3
    marks.end()
    assert marks.heard(5) == 4


def test_a_pace_is_learned_from_a_whole_sentence_that_is_long_enough() -> None:
    """Letters per second of audible sound; a short or a broken sentence teaches nothing."""
    assert whole("abcdefghij klmnopqrst", tone(2), silence(5)).letters_per_second == pytest.approx(10)
    assert WordMarks("abc", RATE, letters_per_second=9).letters_per_second == 9
    assert whole("abc", tone(0.5)).letters_per_second == 14


def test_words_that_were_heard_before_are_counted_and_not_in_the_sound() -> None:
    """The sound is that of the rest; the count is the sentence's."""
    marks = whole("a b c d", tone(1), skip_words=2)
    assert [marks.heard(at) for at in (0, 0.49, 0.5, 1)] == [2, 2, 3, 4]
    assert whole("a b", skip_words=9).heard(5) == 2


@given(
    words=st.lists(WORDS, max_size=8),
    pieces=st.lists(st.tuples(st.booleans(), st.integers(1, 5_000)), max_size=6),
    skip=st.integers(0, 3),
)
def test_words_only_become_more(words: list[str], pieces: list[tuple[bool, int]], skip: int) -> None:
    """Over the time played the count never falls and never exceeds the words; pieces of any size count as one sound."""
    sounds = [tone(1)[:size] if is_loud else silence(1)[:size] for is_loud, size in pieces]
    sentence = " ".join(words)
    cut = whole(sentence, *sounds, skip_words=skip)
    uncut = whole(sentence, np.concatenate([silence(0), *sounds]), skip_words=skip)
    times = np.arange(0, 2.1, 0.02)
    counts = [cut.heard(at) for at in times]
    assert counts == sorted(counts)
    assert counts == [uncut.heard(at) for at in times]
    assert counts[0] == min(skip, len(sentence.split()))
    assert counts[-1] <= cut.count == len(sentence.split())
    if any(is_loud and size >= 320 for is_loud, size in pieces):
        assert counts[-1] == cut.count


def test_the_rest_of_a_sentence_begins_at_a_word() -> None:
    """Behind the words that were heard; none and all of them are no special case."""
    sentence = "Yes,  we do."
    assert first_words(sentence, 2) == "Yes, we"
    assert rest_of(sentence, 0) == ("Yes, we do.", 0)
    assert rest_of(sentence, 1) == ("we do.", 1)
    assert rest_of(sentence, 3) == ("", 3)
    assert rest_of(sentence, 9) == ("", 3)


def test_the_rest_of_a_sentence_does_not_begin_inside_of_a_figure() -> None:
    """The words "40 g" are said as a whole, and so is what has a scale or a country in front: they are said from their beginning."""
    assert rest_of("For 40 g we pay", 2) == ("40 g we pay", 1)
    assert rest_of("It is ₹2.5 lakh today", 3) == ("₹2.5 lakh today", 2)
    assert rest_of("Call +91 98765 43210 now", 3) == ("+91 98765 43210 now", 1)


@given(words=st.lists(WORDS, max_size=8), heard=st.integers(0, 9))
def test_what_was_heard_and_the_rest_are_the_sentence(words: list[str], heard: int) -> None:
    """Nothing is lost and nothing is said twice, but for a figure that begins again."""
    sentence = " ".join(words)
    rest, before = rest_of(sentence, heard)
    assert before <= heard
    assert f"{first_words(sentence, before)} {rest}".split() == sentence.split()
