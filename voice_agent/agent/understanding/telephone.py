"""Telephone numbers, said digit by digit: "nine eight four double zero, one two three four five"."""

from typing import Final

from voice_agent.agent.understanding.numbers import DIGIT_WORDS
from voice_agent.agent.understanding.words import words_of

_REPEATS: Final = {"double": 2, "triple": 3, "treble": 3}
_DIGITS: Final = 10
"""Of an Indian mobile number, behind 91 or 0."""


def read_telephone(text: str) -> str | None:
    """Return the ten digits of an Indian mobile number; None where there is no whole one, or more than one."""
    runs, times = [""], 1
    for word in words_of(text):
        digits = word.text if word.text.isdecimal() else str(DIGIT_WORDS.get(word.text, ""))
        if digits:
            runs[-1] += digits * times
            times = 1
        elif word.text in _REPEATS:
            times = _REPEATS[word.text]
        elif not word.is_pause and word.text != "and":
            runs.append("")
            times = 1
    numbers = {number for number in map(_mobile, runs) if number}
    return numbers.pop() if len(numbers) == 1 else None


def _mobile(run: str) -> str | None:
    for prefix in ("91", "0", ""):
        number = run.removeprefix(prefix)
        if len(number) == _DIGITS == len(run) - len(prefix) and number[0] in "6789":
            return number
    return None
