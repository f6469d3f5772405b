"""Repetition loops of a decoder: the same few tokens over and over until the token limit.

Real speech repeats too ("no no no", "it was the age of ... it was the age of ..."), so a phrase must come back, word
for word and with nothing between, more often than people do.
"""

from collections.abc import Sequence
from typing import Final

MAX_PERIOD: Final = 16
"""Tokens; a longer phrase does not fit four times into the token limit of an utterance."""

_KEPT_OF_SHORT_PHRASE: Final = 2
"""Occurrences left of a phrase of one or two tokens, which people do double."""


def _repeats_of_a_loop(period: int) -> int:
    """Return how many repeats of a phrase of ``period`` tokens make a loop.

    A guess on the careful side: nine equal digits in a row can be dictated, a sentence of sixteen tokens four times
    in one breath can hardly.
    """
    if period == 1:
        return 10
    if period == 2:  # noqa: PLR2004 - a table of periods reads best as numbers
        return 7
    return 5 if period <= 4 else 4  # noqa: PLR2004 - the same


def tokens_before_loop(tokens: Sequence[int]) -> int | None:
    """Return how many of ``tokens`` to keep when they end in a loop, else None.

    What is kept ends with the first occurrence of the repeated phrase, or the second of a very short one. Looks at
    the end only: meant to be asked after each token.
    """
    for period in range(1, MAX_PERIOD + 1):
        length = period * _repeats_of_a_loop(period)
        if length > len(tokens):
            continue
        start = len(tokens) - length
        # A sequence repeats with a period exactly if it equals itself, shifted by that period.
        if tokens[start + period :] == tokens[start : len(tokens) - period]:
            return start + period * (_KEPT_OF_SHORT_PHRASE if period <= _KEPT_OF_SHORT_PHRASE else 1)
    return None
