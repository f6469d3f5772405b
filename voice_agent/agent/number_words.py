"""The words of English numbers as they are said in India: one vocabulary for what is read and for what is said."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

UNITS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS: Final = (
    "",
    "",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
)
HUNDRED: Final = 100
SCALES: Final = {"thousand": 1_000, "lakh": 100_000, "crore": 10_000_000}
"""Beyond a thousand, Indian English counts in lakhs and crores; what a branch lends is below a hundred crores."""

MAX_SAID: Final = 10**10
"""Numbers from here on, a thousand crores, are said digit by digit: nobody follows "one lakh crore"."""


def say_integer(number: int) -> str:
    """Return a whole number in words, without "and" and hyphens: "one lakh twenty thousand"."""
    if number < 0:
        return f"minus {say_integer(-number)}"
    if number >= MAX_SAID:
        return say_digits(str(number))
    return " ".join(_words(number)) or UNITS[0]


def say_decimal(number: Decimal) -> str:
    """Return a number in words; the digits behind the point are said one by one: "forty two point five".

    Zeros at the end are not said. The number must be finite.
    """
    number = number.normalize()
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # noqa: S101 - finite, as the docstring asks
    if exponent >= 0:
        return say_integer(int(number))
    text = "".join(map(str, digits)).rjust(1 - exponent, "0")
    whole, fraction = text[:exponent], text[exponent:]
    words = f"{say_integer(int(whole))} point {say_digits(fraction)}"
    return f"minus {words}" if sign else words


def say_digits(digits: str) -> str:
    """Return digits one by one, as a telephone number is said."""
    return " ".join(UNITS[int(digit)] for digit in digits)


def _words(number: int) -> Iterator[str]:
    for name in ("crore", "lakh", "thousand"):
        count, number = divmod(number, SCALES[name])
        if count:
            yield from _words(count)
            yield name
    hundreds, number = divmod(number, HUNDRED)
    if hundreds:
        yield UNITS[hundreds]
        yield "hundred"
    if number >= len(UNITS):
        yield TENS[number // 10]
        number %= 10
    if number:
        yield UNITS[number]
