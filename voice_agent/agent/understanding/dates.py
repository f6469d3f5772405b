"""Days, as they are said: "tomorrow", "next tuesday", "on the fifth", "the third of march".

Every day lies today or later. "Tuesday" is the first one after today; "next Tuesday" is that of the next week, and weeks begin on
Monday: people differ on that, so that whoever asks repeats the date. "Next week" and "the weekend" are no days.
"""

import calendar
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from voice_agent.agent.number_words import TENS, UNITS
from voice_agent.agent.understanding.numbers import find_numbers
from voice_agent.agent.understanding.words import Word, words_of

MAX_DAYS_AHEAD: Final = 366

_WEEKDAYS: Final = {
    name: index
    for index, names in enumerate(
        (
            "monday mon",
            "tuesday tues tue",
            "wednesday wed",
            "thursday thurs thu",
            "friday fri",
            "saturday sat",
            "sunday sun",
        )
    )
    for name in names.split()
    if name not in {"sat", "sun", "mon", "wed"}  # words of their own
}
_MONTHS: Final = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_SPECIAL_ORDINALS: Final = {
    "first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12, "twentieth": 20, "thirtieth": 30,
}  # fmt: skip
_ORDINALS: Final = {f"{word}th": number for number, word in enumerate(UNITS)} | _SPECIAL_ORDINALS
_SUFFIXES: Final = frozenset(("st", "nd", "rd", "th"))
_LAST_DAY: Final = 31


def read_day(text: str, today: date) -> date | None:
    """Return the one day that was said; None where none was, more than one, or one that there isn't."""
    words = [word for word in words_of(text) if not word.is_pause]
    days = set(_days(words, today))
    day = days.pop() if len(days) == 1 else None
    return day if day is not None and today <= day <= today + timedelta(days=MAX_DAYS_AHEAD) else None


def _days(words: Sequence[Word], today: date) -> Iterator[date | None]:
    texts = [word.text for word in words]
    for at, text in enumerate(texts):
        before, after = texts[at - 1] if at else "", texts[at + 1] if at + 1 < len(texts) else ""
        if text in {"today", "tonight"}:
            yield today
        elif text == "tomorrow":
            after_it = texts[max(at - 2, 0) : at] == ["day", "after"]
            yield today + timedelta(days=2 if after_it else 1)
        elif text in _WEEKDAYS:
            yield _weekday(_WEEKDAYS[text], before, today)
        elif text in {"days", "day", "weeks", "week"} and after != "after":
            yield from _ahead(words, at, today)
    yield from _dates(words, today)


def _weekday(wanted: int, before: str, today: date) -> date | None:
    monday = today - timedelta(days=today.weekday())
    match before:
        case "next":
            return monday + timedelta(days=7 + wanted)
        case "this":
            day = monday + timedelta(days=wanted)
            return day if day >= today else None
        case "last":
            return None
        case _:
            return today + timedelta(days=(wanted - today.weekday() - 1) % 7 + 1)


def _ahead(words: Sequence[Word], at: int, today: date) -> Iterator[date | None]:
    """Read "in three days", "after a week", "two weeks from now"."""
    days = 7 if words[at].text.startswith("week") else 1
    one = words[at - 1].text in {"a", "one"} if at else False
    span = next((span for span in find_numbers(words) if span.end == at), None)
    count, start = (Decimal(1), at - 1) if one else (span.value, span.start) if span else (None, at)
    if count is None or count != int(count) or count > MAX_DAYS_AHEAD:
        return
    ahead = start > 0 and words[start - 1].text in {"in", "after", "within"}
    from_now = [word.text for word in words[at + 1 : at + 3]] in (["from", "now"], ["from", "today"])
    if ahead or from_now:
        yield today + timedelta(days=days * int(count))


def _dates(words: Sequence[Word], today: date) -> Iterator[date | None]:
    at = 0
    while at < len(words):
        found = _day_of_month(words, at)
        if found is None:
            at += 1
            continue
        day, end, ordinal = found
        month, end = _month(words, at, end)
        year = words[end].number if end < len(words) and month is not None else None
        if month is not None:
            yield _in_month(day, month, year, today)
        elif ordinal and not _is_of_something(words, at, end):
            yield _next_with(day, today)
        at = end


def _day_of_month(words: Sequence[Word], at: int) -> tuple[int, int, bool] | None:
    """Read "fifth", "twenty fifth", "5th", or "5" (which is a day only beside a month)."""
    word, after = words[at], words[at + 1].text if at + 1 < len(words) else ""
    if word.number is not None:
        if word.number != int(word.number) or not 1 <= word.number <= _LAST_DAY:
            return None
        is_ordinal = after in _SUFFIXES
        return int(word.number), at + 1 + is_ordinal, is_ordinal
    if word.text in TENS and word.text and _ORDINALS.get(after, 0) in range(1, 10):
        day = 10 * TENS.index(word.text) + _ORDINALS[after]
        return (day, at + 2, True) if day <= _LAST_DAY else None
    if word.text in _ORDINALS and _ORDINALS[word.text] > 0:
        return _ORDINALS[word.text], at + 1, True
    span = next((span for span in find_numbers(words[at:]) if span.start == 0), None)
    if span is not None and span.value == int(span.value) and 1 <= span.value <= _LAST_DAY:
        return int(span.value), at + span.end, False
    return None


def _month(words: Sequence[Word], start: int, end: int) -> tuple[int | None, int]:
    """Find the month before or behind a day, and where the date ends."""
    behind = end + 1 if end < len(words) and words[end].text == "of" else end
    if behind < len(words) and words[behind].text in _MONTHS:
        return _MONTHS[words[behind].text], behind + 1
    before = start - 1 - (start > 0 and words[start - 1].text == "the")
    if before >= 0 and words[before].text in _MONTHS:
        return _MONTHS[words[before].text], end
    return None, end


def _is_of_something(words: Sequence[Word], start: int, end: int) -> bool:
    """Whether an ordinal counts something else: "the first time", "a second loan"."""
    before = words[start - 1].text if start else ""
    after = words[end].text if end < len(words) else ""
    is_last = after in {
        "",
        "please",
        "is",
        "works",
        "would",
        "then",
        "at",
        "morning",
        "afternoon",
        "evening",
        "if",
        "or",
        "and",
    }
    return before not in {"the", "on", "by", ""} or not is_last


def _in_month(day: int, month: int, year: Decimal | None, today: date) -> date | None:
    years = [int(year)] if year is not None and year in range(2000, 2100) else [today.year, today.year + 1]
    for each in years:
        try:
            found = date(each, month, day)
        except ValueError:
            continue
        if found >= today:
            return found
    return None


def _next_with(day: int, today: date) -> date | None:
    """Return the next day of that number, in this month or a later one that has it."""
    year, month = today.year, today.month
    for _ in range(12):
        if day <= calendar.monthrange(year, month)[1] and date(year, month, day) >= today:
            return date(year, month, day)
        year, month = (year, month + 1) if month < 12 else (year + 1, 1)  # noqa: PLR2004 - December
    return None
