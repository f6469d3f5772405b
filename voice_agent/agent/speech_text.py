"""Text as it is said aloud: money, weights, percentages, dates, times and telephone numbers in words.

What an agent answers is written for the eye ("₹1,20,000 for 40 g of 22 K"), because callers may read it; a voice gets what
:func:`speech_text` makes of it: "one lakh twenty thousand rupees for forty grams of twenty two carat".
"""

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Final

from voice_agent.agent.number_words import TENS, UNITS, say_decimal, say_digits, say_integer

_NUMBER: Final = r"(?P<number>\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?|\d+(?:\.\d+)?)"
_END: Final = r"(?![\w.,-]*\d)(?!\w)"
"""What may not follow a unit or a number: more digits or letters."""
_START: Final = r"(?<![\w.,-])"

_UNITS: Final = {
    "g": ("gram", "grams"),
    "kg": ("kilogram", "kilograms"),
    "mg": ("milligram", "milligrams"),
    "K": ("carat", "carat"),
    "kt": ("carat", "carat"),
    "%": ("percent", "percent"),
    "km": ("kilometre", "kilometres"),
    "min": ("minute", "minutes"),
    "h": ("hour", "hours"),
}
"""Singular and plural."""
_LARGE: Final = r"(?:\s*(?P<scale>lakhs?|crores?|thousand))?"
_PAISE: Final = 100
_DAY_ENDINGS: Final = {
    1: "first",
    2: "second",
    3: "third",
    5: "fifth",
    8: "eighth",
    9: "ninth",
    12: "twelfth",
}
_NOON: Final = 12


def speech_text(text: str) -> str:
    """Return a text in words that a voice can say. What has no rule stays as it is."""
    for pattern, replace in _RULES:
        text = pattern.sub(replace, text)
    return text


def say_day(day: date, *, with_year: bool = False) -> str:
    """Return a day as it is said: "Tuesday the first of December"."""
    said = f"{day:%A} the {say_ordinal(day.day)} of {day:%B}"
    return f"{said} {say_year(day.year)}" if with_year else said


def say_ordinal(number: int) -> str:
    """Return 1 to 99 as an ordinal: "twenty first"."""
    if number in _DAY_ENDINGS:
        return _DAY_ENDINGS[number]
    if number < len(UNITS):
        return f"{UNITS[number]}th"
    tens, unit = divmod(number, 10)
    return f"{TENS[tens]} {say_ordinal(unit)}" if unit else f"{TENS[tens][:-1]}ieth"


def say_year(year: int) -> str:
    """Return a year as it is said: "twenty twenty six", "two thousand and five"."""
    century, rest = divmod(year, 100)
    if century % 10 == 0 and rest < 10:  # noqa: PLR2004 - nobody says "twenty five" for 2005
        return say_integer(year - rest) + (f" and {say_integer(rest)}" if rest else "")
    return f"{say_integer(century)} {say_integer(rest) if rest else 'hundred'}"


def say_rupees(amount: Decimal) -> str:
    """Return money in words: "one rupee", "one lakh rupees and fifty paise"."""
    paise = round(amount * _PAISE)
    rupees, paise = divmod(paise, _PAISE)
    said = f"{say_integer(rupees)} {'rupee' if rupees == 1 else 'rupees'}"
    return f"{said} and {say_integer(paise)} paise" if paise else said


def _value(match: re.Match[str]) -> Decimal:
    return Decimal(match["number"].replace(",", ""))


def _money(match: re.Match[str]) -> str:
    if match["scale"]:
        return f"{say_decimal(_value(match))} {match['scale']} rupees"
    return say_rupees(_value(match))


def _quantity(match: re.Match[str]) -> str:
    value = _value(match)
    one, many = _UNITS[match["unit"]]
    return f"{say_decimal(value)} {one if value == 1 else many}"


def _date(match: re.Match[str]) -> str:
    try:
        return say_day(date.fromisoformat(match[0]))
    except ValueError:
        return match[0]


def _time(match: re.Match[str]) -> str:
    hour, minute = int(match["hour"]), int(match["minute"])
    said = say_integer((hour - 1) % _NOON + 1)
    if minute:
        said += f" {say_integer(minute)}" if minute >= 10 else f" oh {say_integer(minute)}"  # noqa: PLR2004 - "oh five"
    return f"{said} {'p m' if hour >= _NOON else 'a m'}"


def _telephone(match: re.Match[str]) -> str:
    """Say ten digits in two halves, which are easier to write down."""
    digits = "".join(filter(str.isdigit, match["local"]))
    said = f"{say_digits(digits[:5])}, {say_digits(digits[5:])}"
    return f"plus nine one, {said}" if match["country"] else said


def _plain(match: re.Match[str]) -> str:
    text = match["number"]
    is_code = len(text) > 1 and text.startswith("0") and text.isdigit()
    return say_digits(text) if is_code else say_decimal(_value(match))


_RULES: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]] = (
    (
        re.compile(rf"{_START}(?P<country>\+91[ -]?)?(?P<local>[6-9]\d{{4}}[ -]?\d{{5}}){_END}", re.ASCII),
        _telephone,
    ),
    (re.compile(rf"{_START}\d{{4}}-\d{{2}}-\d{{2}}{_END}", re.ASCII), _date),
    (re.compile(rf"{_START}(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d){_END}", re.ASCII), _time),
    (re.compile(rf"(?:₹|\bRs\.?)\s*{_NUMBER}{_LARGE}{_END}", re.ASCII), _money),
    (re.compile(rf"{_START}{_NUMBER}{_LARGE}\s*(?:rupees|rupee){_END}", re.ASCII), _money),
    (
        re.compile(rf"{_START}{_NUMBER}\s*(?P<unit>{'|'.join(map(re.escape, _UNITS))}){_END}", re.ASCII),
        _quantity,
    ),
    (re.compile(rf"{_START}{_NUMBER}{_END}", re.ASCII), _plain),
)
"""In this order: what is special comes before the plain number in it."""
