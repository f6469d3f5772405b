"""Quantities: weights, karats, amounts of money and rates, from what a caller said.

Each kind takes the words that it understands, so that the 22 of "twenty two carat" is nobody's grams. Two different values
of one kind, a range ("thirty or forty grams"), or numbers side by side ("one twenty grams") give None: the dialogue asks.
"""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal

import attrs

from voice_agent.agent.gold_purity import FINENESS, HALLMARKS
from voice_agent.agent.understanding.numbers import NumberSpan, find_numbers
from voice_agent.agent.understanding.quantity_words import (
    CORRECTIONS,
    FILLERS,
    GRAMS_OF,
    HALLMARK_WORDS,
    JOINTS,
    KARAT_WORDS,
    LIKE_LAKHS,
    MAX_GRAMS,
    MAX_RATE,
    MAX_RUPEES,
    MISHEARD_KARATS,
    MONTHLY,
    MONTHS_OF_A_YEAR,
    NEAR,
    PAUSES,
    POINTS,
    RANGE_WORDS,
    RUPEE_WORDS,
    SAID_HALLMARKS,
)
from voice_agent.agent.understanding.words import Word, words_of


@attrs.frozen(kw_only=True)
class Quantities:
    """What an utterance says in numbers; None where nothing is said, or nothing that is sure.

    ``bare`` is its only number, where that has no unit; whoever asked for one knows what it is.
    """

    grams: Decimal | None = None
    karat: int | None = None
    rupees: Decimal | None = None
    rate_percent: Decimal | None = None
    """A year."""
    bare: Decimal | None = None


@attrs.frozen
class _Found:
    value: Decimal
    start: int
    end: int


class _Utterance:
    """Words, and which of them are taken already."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = list(words)
        self.is_unsure = False
        """Whether a number was heard that could mean two things."""
        self.taken_last: tuple[_Found, ...] = ()
        """What the last kind has taken."""

    def text(self, at: int) -> str:
        return self.words[at].text if 0 <= at < len(self.words) else ""

    def numbers(self) -> tuple[NumberSpan, ...]:
        return find_numbers(self.words)

    def take(self, found: _Found) -> None:
        """Leave a mark where words were taken: what stood on both sides doesn't become neighbours."""
        taken = [Word("|", is_pause=True)] * (found.end - found.start)
        self.words[found.start : found.end] = taken


def read_quantities(text: str) -> Quantities:
    """Read every quantity of an utterance."""
    it = _Utterance(words_of(text))
    karat = _settled(it, _karats)
    rate = _settled(it, _rates)
    grams = _settled(it, _weights)
    weighed = it.taken_last
    rupees = _settled(it, _amounts)
    paid = it.taken_last
    left = it.numbers()
    if any(word.text in POINTS for word in it.words):
        # "six point to five percent": a point that is in no number has lost what stood before or behind it.
        karat = rate = grams = rupees = None
        it.is_unsure = True
    if any(_spoils(it, span, found) for span in left for found in weighed):
        grams, it.is_unsure = None, True
    if any(_spoils(it, span, found) for span in left for found in paid) or _has_lost_lakhs(it, paid):
        rupees, it.is_unsure = None, True
    return Quantities(
        grams=_within(grams, MAX_GRAMS),
        karat=None if karat is None or karat not in FINENESS else int(karat),
        rupees=_within(rupees, MAX_RUPEES),
        rate_percent=_within(rate, MAX_RATE),
        bare=_bare(it, left),
    )


def _within(value: Decimal | None, limit: Decimal) -> Decimal | None:
    return value if value is not None and 0 < value <= limit else None


def _settled(it: _Utterance, find: Callable[[_Utterance], Iterator[_Found | None]]) -> Decimal | None:
    """Take what one kind understands; its value where that is one, or the last one behind a correction."""
    found = list(find(it))
    sure = [one for one in found if one is not None]
    values = {one.value for one in sure}
    value = sure[-1].value if sure and len(sure) == len(found) else None
    if len(values) > 1 and not _is_correction(it, sure[-2].end, sure[-1].start):
        value = None
    it.is_unsure = it.is_unsure or bool(found and value is None)
    for one in sure:
        it.take(one)
    it.taken_last = tuple(sure)
    return value


def _spoils(it: _Utterance, span: NumberSpan, found: _Found) -> bool:
    """Whether a number without a unit that stands beside a quantity was most likely part of it, and its unit misheard.

    As in "one late twenty thousand rupees", and "three sovereigns and two grabs".
    """
    before = {it.text(at) for at in range(span.end, found.start)}
    if 0 < found.start - span.end <= NEAR and not before & PAUSES and before - FILLERS - CORRECTIONS:
        return True
    between = {it.text(at) for at in range(found.end, span.start)}
    return bool(between) and between <= {"and", "plus"} and it.text(span.end) not in {"", "|", *PAUSES}


def _has_lost_lakhs(it: _Utterance, paid: Sequence[_Found]) -> bool:
    """Whether a larger part of an amount was misheard: "seven, like thirty thousand", "for lack twenty thousand"."""
    for found in paid:
        before = [it.text(at) for at in range(max(found.start - NEAR, 0), found.start)]
        before = [text for text in before if text not in PAUSES]
        if before and before[-1] in LIKE_LAKHS:
            return True
    return False


def _is_correction(it: _Utterance, start: int, end: int) -> bool:
    return any(it.text(at) in CORRECTIONS for at in range(start, end))


def _bare(it: _Utterance, left: Sequence[NumberSpan]) -> Decimal | None:
    """Return the one number without a unit; None where a word beside it could be one: "five tolls", "sixty grand"."""
    said = {at for span in left for at in range(span.start, span.end)}
    others = {word.text for at, word in enumerate(it.words) if at not in said and not word.is_pause}
    if it.is_unsure or others - FILLERS:
        return None
    if len(left) == 1:
        return left[0].value
    if len(left) == 2 and _is_correction(it, left[0].end, left[1].start):  # noqa: PLR2004 - a pair
        return left[1].value
    return None


def _karats(it: _Utterance) -> Iterator[_Found | None]:
    for at in range(len(it.words)):
        hallmark = _hallmark(it, at)
        if hallmark is not None:
            yield hallmark
    about_money = any(word.text in RUPEE_WORDS for word in it.words)
    for at, word in enumerate(it.words):
        number = word.number
        # "22k" is gold and "50k" is money; a number has read both as thousands.
        if number is not None and number in FINENESS and it.text(at + 1) == "k" and not about_money:
            yield _Found(number, at, at + 2)
        elif word.text in MISHEARD_KARATS and it.text(at + 1) in KARAT_WORDS:
            yield _Found(Decimal(MISHEARD_KARATS[word.text]), at, at + 2)
    for span in it.numbers():
        # Recognisers pause there: "eighteen, carat gold".
        unit = span.end + (it.text(span.end) == ",")
        if it.text(unit) in KARAT_WORDS and not span.scaled:
            yield _Found(span.value, span.start, unit + 1)


def _hallmark(it: _Utterance, at: int) -> _Found | None:
    for said, mark in (*SAID_HALLMARKS.items(), *(((digits,), digits) for digits in HALLMARKS)):
        end = at + len(said)
        if tuple(it.text(place) for place in range(at, end)) == said and (
            {it.text(end), it.text(at - 1)} & HALLMARK_WORDS
        ):
            return _Found(Decimal(HALLMARKS[mark]), at, end)
    return None


def _rates(it: _Utterance) -> Iterator[_Found | None]:
    for span in it.numbers():
        end = span.end
        if it.text(end) in {"percent", "percentage"}:
            end += 1
        elif (it.text(end), it.text(end + 1)) == ("per", "cent"):
            end += 2
        else:
            continue
        monthly = it.text(end) in MONTHLY or (
            it.text(end) in {"a", "per", "every"} and it.text(end + 1) in MONTHLY
        )
        yield _Found(span.value * MONTHS_OF_A_YEAR if monthly else span.value, span.start, end)


def _weights(it: _Utterance) -> Iterator[_Found | None]:
    """Find weights; what is joined is one of them: "three sovereigns and two grams"."""
    whole: _Found | None = None
    for part in _parts(it):
        if part is not None and whole is not None and _is_joined(it, whole.end, part.start):
            whole = _Found(whole.value + part.value, whole.start, part.end)
            continue
        if whole is not None:
            yield whole
        whole = part
        if part is None:
            yield None
    if whole is not None:
        yield whole


def _parts(it: _Utterance) -> Iterator[_Found | None]:
    spans = it.numbers()
    for at, word in enumerate(it.words):
        unit = GRAMS_OF.get(word.text)
        if unit is None:
            continue
        index = next((index for index, span in enumerate(spans) if span.end == at), None)
        if index is None:
            if it.text(at - 1) in {"a", "an"} and word.text != "g":
                yield _Found(unit, at - 1, at + 1)
            continue
        span, before = spans[index], spans[index - 1] if index else None
        if before is not None and _is_range(it, before, span):
            yield None
        elif it.text(at + 1) == "and" and any(
            later.start in {at + 2, at + 3} and later.value < 1 for later in spans[index + 1 :]
        ):
            yield None  # "forty grams and a half": of what?
        else:
            yield _Found(span.value * unit, span.start, at + 1)


def _is_range(it: _Utterance, before: NumberSpan, span: NumberSpan) -> bool:
    """Whether two numbers share a unit: "thirty or forty grams", "one twenty grams", "thirty, forty grams"."""
    between = {it.text(at) for at in range(before.end, span.start)}
    if between == {"and"}:
        return it.text(before.start - 1) == "between"
    return not between - RANGE_WORDS - {","}


def _is_joined(it: _Utterance, start: int, end: int) -> bool:
    return all(it.text(at) in JOINTS for at in range(start, end))


def _amounts(it: _Utterance) -> Iterator[_Found | None]:
    spans = it.numbers()
    for index, span in enumerate(spans):
        before, after = it.text(span.start - 1), it.text(span.end)
        in_rupees = before in RUPEE_WORDS or after in RUPEE_WORDS
        if not (in_rupees or span.scaled):
            continue
        if index and _is_range(it, spans[index - 1], span):
            yield None
        else:
            yield _Found(span.value, span.start, span.end)
