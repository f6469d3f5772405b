"""Words: what was said, cut into lower-case words, digits and pauses, each with its place."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import attrs

MAX_CHARACTERS: Final = 2_000
"""Of one utterance; what is longer is cut, for nobody says so much in one answer."""

_WORD: Final = re.compile(
    r"""
      (?P<number> \d[\d,]*(?:\.\d+)? (?![\d.]) )
    | (?P<word> [^\W\d_]+ (?:'[^\W\d_]+)* )
    | (?P<percent> % )
    | (?P<rupee> ₹ )
    | (?P<pause> [,.;:!?\u2026\u2013\u2014] )
    """,
    re.VERBOSE,
)
_GROUPED: Final = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?|\d+(?:\.\d+)?", re.ASCII)
"""Digits with the commas of lakhs (1,20,000) or of thousands (120,000)."""

_SPELLINGS: Final = {"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT SINGLE QUOTATION MARK}": "'"}


@attrs.frozen
class Word:
    """One word. ``number`` is what its digits are worth, where it is written in digits; a pause is a mark like ``,``."""

    text: str
    number: Decimal | None = None
    is_pause: bool = False


def words_of(text: str) -> tuple[Word, ...]:
    """Cut an utterance into words. Letters of every script are kept; digits of every script become ASCII.

    Digits whose commas stand where no number has them ("1,2,3") are several numbers with pauses between.
    """
    folded = unicodedata.normalize("NFKC", text[:MAX_CHARACTERS]).lower()
    for odd, plain in _SPELLINGS.items():
        folded = folded.replace(odd, plain)
    words: list[Word] = []
    for match in _WORD.finditer(folded):
        found = match[0]
        match match.lastgroup:
            case "number":
                words += _digits(found)
            case "word":
                words.append(Word(found))
            case "percent":
                words.append(Word("percent"))
            case "rupee":
                words.append(Word("rupees"))
            case _:
                words.append(Word(found, is_pause=True))
    return tuple(words)


def spoken(words: Sequence[Word]) -> tuple[str, ...]:
    """Return the words alone, without the pauses."""
    return tuple(word.text for word in words if not word.is_pause)


def _digits(found: str) -> list[Word]:
    ascii_digits = "".join(
        str(unicodedata.digit(character)) if character.isdigit() else character for character in found
    )
    ascii_digits = ascii_digits.rstrip(",")
    if _GROUPED.fullmatch(ascii_digits):
        whole = [Word(ascii_digits, Decimal(ascii_digits.replace(",", "")))]
    else:
        parts = [part for part in ascii_digits.split(",") if part]
        whole = []
        for part in parts:
            whole += [Word(",", is_pause=True)] if whole else []
            whole.append(Word(part, Decimal(part)))
    return whole + ([Word(",", is_pause=True)] if found.endswith(",") else [])
