"""Numbers as they are said: "forty two point five", "one lakh twenty thousand", "two and a half crore", "42.5".

Written here and not taken from a package, after trying what there is (docs/decisions/0020-understanding.md): none reads
"two and a half crore", and none says when what was said could mean two things.

A number is read by this grammar; the longest reading wins:

    number   := group+                  (scales going down: crore, lakh, thousand, none)
    group    := count [scale]
    count    := (hundreds | digits | "a" | "half a") ["point" digit+] ["and" ("a half" | "a quarter" | "three quarters")]
    hundreds := [1..99 | "a"] "hundred" ["and"] [1..99]  |  0..99
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import attrs

from voice_agent.agent.number_words import HUNDRED, SCALES, TENS, UNITS
from voice_agent.agent.understanding.words import Word, words_of

SMALL: Final = {word: number for number, word in enumerate(UNITS)} | {"nought": 0, "nil": 0}
TEN_WORDS: Final = {word: 10 * number for number, word in enumerate(TENS) if word} | {"fourty": 40}
DIGIT_WORDS: Final = {word: number for number, word in enumerate(UNITS[:10])} | {"oh": 0, "o": 0}
"""Said behind "point" and in telephone numbers."""
SCALE_WORDS: Final = {
    **SCALES,
    "thousands": 1_000, "k": 1_000,
    "lakhs": 100_000, "lac": 100_000, "lacs": 100_000, "lack": 100_000, "lacks": 100_000, "lat": 100_000, "lats": 100_000,
    "crores": 10_000_000, "cr": 10_000_000, "kror": 10_000_000, "karor": 10_000_000, "core": 10_000_000, "cores": 10_000_000,
    "million": 1_000_000, "millions": 1_000_000,
}  # fmt: skip
"""With what recognisers make of "lakh" and "crore"."""
_MISHEARD_SCALES: Final = frozenset(("lack", "lacks", "lat", "lats", "core", "cores", "k", "cr"))
"""Words for scales that mean something else, or nothing, behind an article."""
HALF: Final = Decimal("0.5")
_FRACTIONS: Final = (
    (("a", "half"), HALF),
    (("half",), HALF),
    (("one", "half"), HALF),
    (("a", "quarter"), Decimal("0.25")),
    (("three", "quarters"), Decimal("0.75")),
    (("three", "quarter"), Decimal("0.75")),
)
_LONGEST_FRACTION: Final = 6
"""Digits behind "point"; more is no quantity that anybody says."""


@attrs.frozen
class NumberSpan:
    """A number and the words that said it: ``words[start:end]``. ``scaled`` says that lakh, crore or thousand was said."""

    value: Decimal
    start: int
    end: int
    scaled: bool = False


@attrs.frozen
class _Read:
    value: Decimal
    end: int


def find_numbers(words: Sequence[Word]) -> tuple[NumberSpan, ...]:
    """Find every number, from left to right; "one twenty" is two of them, side by side."""
    found: list[NumberSpan] = []
    at = 0
    while at < len(words):
        span = _number(words, at)
        if span is None:
            at += 1
        else:
            found.append(span)
            at = span.end
    return tuple(found)


def read_number(text: str) -> Decimal | None:
    """Return the one number of a text; None where there is none, more than one, or one that can be read two ways."""
    spans = find_numbers(words_of(text))
    return spans[0].value if len(spans) == 1 else None


def _number(words: Sequence[Word], start: int) -> NumberSpan | None:
    total, at, least, scaled = Decimal(0), start, None, False
    while True:
        group = _group(words, _after_joint(words, at, start), least)
        if group is None:
            break
        value, scale, at = group
        total += value
        scaled = scaled or scale > 1
        least = scale
        if scale == 1:
            break
    return None if at == start else NumberSpan(total, start, at, scaled)


def _after_joint(words: Sequence[Word], at: int, start: int) -> int:
    """Skip what joins two groups: "one lakh, twenty thousand", "two thousand and five"."""
    if at != start:
        while at < len(words) and (words[at].text in {",", "and"}):
            at += 1
    return at


def _group(words: Sequence[Word], at: int, below: int | None) -> tuple[Decimal, int, int] | None:
    """Read a count and its scale; None where there is none that could follow a scale of ``below``."""
    count = _count(words, at)
    if count is None:
        return None
    value, scale, end = count.value, 1, count.end
    if end < len(words) and words[end].text in SCALE_WORDS:
        scale = SCALE_WORDS[words[end].text]
        # "two crore and a half" is said as well as "two and a half crore"; of thousands it could mean either.
        half = _fraction(words, end + 1) if scale > SCALES["thousand"] else None
        value, end = (value, end + 1) if half is None else (value + half.value, half.end)
    if below is not None and not value * scale < below:
        return None
    is_article = words[at].text in {"a", "an"} and count.end == at + 1
    if is_article and (scale == 1 or words[count.end].text in _MISHEARD_SCALES):
        return None  # "a" alone is no number, and "a lack" is said for what is missing
    return value * scale, scale, end


def _count(words: Sequence[Word], at: int) -> _Read | None:
    read = _half_a(words, at) or _whole(words, at)
    if read is None:
        return None
    point = _behind_point(words, read.end)
    if point is not None:
        return _Read(read.value + point.value, point.end)
    part = _fraction(words, read.end)
    return read if part is None else _Read(read.value + part.value, part.end)


def _half_a(words: Sequence[Word], at: int) -> _Read | None:
    """Read "half a", "a quarter of a", "half" before a scale, and "quarter": a count below one."""
    for said, value in (
        (("half", "a"), HALF),
        (("half", "an"), HALF),
        (("a", "quarter", "of", "a"), Decimal("0.25")),
        (("quarter", "of", "a"), Decimal("0.25")),
        (("three", "quarters", "of", "a"), Decimal("0.75")),
        (("quarter",), Decimal("0.25")),
        (("half",), HALF),
    ):
        if _says(words, at, said):
            return _Read(value, at + len(said))
    return None


def _whole(words: Sequence[Word], at: int) -> _Read | None:
    if at >= len(words):
        return None
    word = words[at]
    if word.number is not None:
        return _hundreds(words, _Read(word.number, at + 1))
    if word.text in {"a", "an"}:
        return _hundreds(words, _Read(Decimal(1), at + 1))
    below_hundred = _below_hundred(words, at)
    if below_hundred is not None:
        return _hundreds(words, below_hundred)
    return None


def _below_hundred(words: Sequence[Word], at: int) -> _Read | None:
    if at >= len(words):
        return None
    text = words[at].text
    if text in TEN_WORDS:
        following = words[at + 1].text if at + 1 < len(words) else ""
        unit = SMALL.get(following, 0)
        if 0 < unit < 10:  # noqa: PLR2004 - the units that follow twenty
            return _Read(Decimal(TEN_WORDS[text] + unit), at + 2)
        return _Read(Decimal(TEN_WORDS[text]), at + 1)
    return _Read(Decimal(SMALL[text]), at + 1) if text in SMALL else None


def _hundreds(words: Sequence[Word], count: _Read) -> _Read:
    """Read "hundred and five" behind a count below a hundred; else return the count."""
    at = count.end
    if at >= len(words) or words[at].text not in {"hundred", "hundreds"} or count.value >= HUNDRED:
        return count
    value, end = count.value * HUNDRED, at + 1
    rest_at = end + 1 if end < len(words) and words[end].text == "and" else end
    rest = _below_hundred(words, rest_at) or _plain_digits(words, rest_at)
    if rest is not None and 0 < rest.value < HUNDRED and _fraction(words, end) is None:
        return _Read(value + rest.value, rest.end)
    return _Read(value, end)


def _plain_digits(words: Sequence[Word], at: int) -> _Read | None:
    number = words[at].number if at < len(words) else None
    return None if number is None else _Read(number, at + 1)


def _behind_point(words: Sequence[Word], at: int) -> _Read | None:
    """Read "point seven five"; "point seventy five" means the same, for nobody says it otherwise."""
    if at >= len(words) or words[at].text not in {"point", "dot", "decimal"}:
        return None
    at += 1
    digits = ""
    while at < len(words) and len(digits) < _LONGEST_FRACTION:
        if digits and words[at].text == "," and _is_digit(words, at + 1):
            at += 1  # recognisers pause there: "point seven, five percent"
        word = words[at]
        if word.number is not None and word.text.isdecimal():
            digits += word.text
        elif word.text in DIGIT_WORDS:
            digits += str(DIGIT_WORDS[word.text])
        elif not digits and (pair := _below_hundred(words, at)) is not None:
            return _Read(pair.value / HUNDRED, pair.end)
        else:
            break
        at += 1
    return _Read(Decimal(f"0.{digits}"), at) if digits else None


def _is_digit(words: Sequence[Word], at: int) -> bool:
    return at < len(words) and (words[at].text in DIGIT_WORDS or words[at].text in set("0123456789"))


def _fraction(words: Sequence[Word], at: int) -> _Read | None:
    """Read "and a half"."""
    if at >= len(words) or words[at].text != "and":
        return None
    for said, value in _FRACTIONS:
        if _says(words, at + 1, said):
            return _Read(value, at + 1 + len(said))
    return None


def _says(words: Sequence[Word], at: int, said: Sequence[str]) -> bool:
    return tuple(word.text for word in words[at : at + len(said)]) == tuple(said)
