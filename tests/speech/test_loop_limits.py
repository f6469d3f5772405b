"""How often a phrase must come back to be a loop: the table of periods, at its edges."""

import pytest

from voice_agent.speech.loops import tokens_before_loop

START = [900, 901]


@pytest.mark.parametrize(
    ("period", "repeats", "kept"),
    [(1, 10, 2), (2, 7, 2), (3, 5, 1), (4, 5, 1), (5, 4, 1), (15, 4, 1), (16, 4, 1)],
)
@pytest.mark.parametrize("start", [START, []])
def test_a_loop_is_one_at_its_last_repeat_and_not_before(
    period: int, repeats: int, kept: int, start: list[int]
) -> None:
    """Ten equal tokens, seven pairs, five phrases of three or four, four of anything longer; one less is speech."""
    looping = start + list(range(period)) * repeats
    assert tokens_before_loop(looping) == len(start) + period * kept
    assert tokens_before_loop(looping[:-1]) is None


def test_a_phrase_beyond_the_longest_is_no_loop() -> None:
    """Seventeen tokens, whatever they are, are a sentence."""
    assert tokens_before_loop(list(range(17)) * 4) is None
