"""Repetition loops of the decoder are found; repetitions that people say are left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.speech.loops import MAX_PERIOD, tokens_before_loop


def written_until_cut(tokens: list[int]) -> tuple[list[int], bool]:
    """Write token by token, as the decoder does, and cut as soon as a loop is found."""
    so_far: list[int] = []
    for token in tokens:
        so_far.append(token)
        kept = tokens_before_loop(so_far)
        if kept is not None:
            return so_far[:kept], True
    return so_far, False


@pytest.mark.parametrize("period", range(1, MAX_PERIOD + 1))
def test_a_phrase_that_comes_back_for_ever_is_cut_to_its_first_occurrences(period: int) -> None:
    """Whatever its length up to the limit, an endless phrase is cut to one occurrence, a very short one to two."""
    start, phrase = [900, 901, 902], list(range(100, 100 + period))
    kept, is_cut = written_until_cut(start + phrase * 30)
    assert is_cut
    assert kept == start + phrase * (2 if period <= 2 else 1)


@pytest.mark.parametrize("period", range(1, MAX_PERIOD + 1))
def test_a_loop_is_found_before_the_token_limit_of_a_long_utterance(period: int) -> None:
    """Fourteen seconds allow 97 tokens: every period is caught within them."""
    _, is_cut = written_until_cut([900, *list(range(100, 100 + period)) * 97][:97])
    assert is_cut


@pytest.mark.parametrize(
    "words",
    [
        "no no no",
        "no no no no no no",
        "it was the age of wisdom it was the age of foolishness it was the epoch of belief",
        "it was the season of light it was the season of darkness",
        "we were all going direct to heaven we were all going direct to heaven",
        "ever tried ever failed no matter try again fail again fail better",
        "zero zero zero zero zero seven",
        "do you hear me yes do you hear me yes do you hear me yes",
        "ha ha ha ha ha ha ha ha",
        "knock knock knock knock",
        "bye bye bye bye bye",
    ],
)
def test_what_people_repeat_is_left_alone(words: str) -> None:
    """Repetition in real speech is not taken for a loop."""
    numbers = {word: number for number, word in enumerate(words.split())}
    tokens = [numbers[word] for word in words.split()]
    assert written_until_cut(tokens) == (tokens, False)


@given(st.lists(st.integers(0, 3), max_size=80))
def test_what_is_kept_is_a_beginning(tokens: list[int]) -> None:
    """Cutting takes from the end only, always takes something, and never takes all."""
    kept = tokens_before_loop(tokens)
    assert kept is None or 0 < kept < len(tokens)


def test_a_loop_that_is_over_is_not_a_loop() -> None:
    """Only the end counts: the decoder found its way out by itself."""
    assert tokens_before_loop([5] * 20 + [6]) is None
