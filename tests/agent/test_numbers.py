"""Numbers as people say them, and as recognisers write them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.agent.number_words import MAX_SAID, TENS, UNITS, say_decimal, say_digits, say_integer
from voice_agent.agent.understanding.numbers import find_numbers, read_number
from voice_agent.agent.understanding.words import words_of

TABLE = {
    "forty two point five": "42.5",
    "forty-two": "42",
    "forty two": "42",
    "Forty-two point five.": "42.5",
    "42.5": "42.5",
    "42": "42",
    "forty two point seventy five": "42.75",
    "forty two point zero five": "42.05",
    "forty two point oh five": "42.05",
    "42 point 5": "42.5",
    "forty two and a half": "42.5",
    "2 and a half": "2.5",
    "one and three quarters": "1.75",
    "half": "0.5",
    "one lakh twenty thousand": "120000",
    "one lakh, twenty thousand": "120000",
    "one lakh and twenty thousand": "120000",
    "1 lakh 20 thousand": "120000",
    "1 lakh 20,000": "120000",
    "1,20,000": "120000",
    "120,000": "120000",
    "120000": "120000",
    "1.2 lakh": "120000",
    "one point two lakhs": "120000",
    "two and a half crore": "25000000",
    "2.5 crores": "25000000",
    "two crore and a half": "2.5e7",
    "half a lakh": "50000",
    "half lakh": "50000",
    "a lakh": "100000",
    "a lakh and a half": "150000",
    "one and a half lakh": "150000",
    "one and a half lack": "150000",
    "quarter of a crore": "2500000",
    "fifty thousand five hundred": "50500",
    "50k": "50000",
    "five hundred and sixty seven": "567",
    "a hundred and one": "101",
    "two hundred and a half": "200.5",
    "twenty five hundred": "2500",
    "three crore forty five lakh sixty seven thousand eight hundred and ninety": "34567890",
    "nine lakh ninety nine thousand nine hundred ninety nine": "999999",
    "one million": "1000000",
    "zero": "0",
    "\u0967\u0968": "12",  # Devanagari digits
    "a hundred": "100",
}


@pytest.mark.parametrize(("said", "meant"), TABLE.items())
def test_a_number_is_read_as_it_is_meant(said: str, meant: str) -> None:
    """Words, digits, and both mixed, in the way of India."""
    assert read_number(said) == Decimal(meant)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "hello there",
        "a loan",
        "a",
        "such a",
        "a lack",
        "one twenty",
        "twenty thirty",
        "thirty or forty",
        "1, 2, 3",
        "1,2,3",
        "thousand lakh things",
        "nineteen ninety",
        "point",
        "two lakh point five",
        "two thousand and a half",
        "five lakh ten crore",
    ],
)
def test_what_can_be_read_two_ways_is_not_read(said: str) -> None:
    """No guess: None has the dialogue ask again."""
    assert read_number(said) is None


@given(st.integers(0, MAX_SAID - 1))
def test_what_is_said_is_read_back(number: int) -> None:
    """Every whole number that is said in words is understood as itself."""
    assert read_number(say_integer(number)) == number


@given(st.decimals(0, 999, places=3, allow_nan=False, allow_infinity=False))
def test_decimals_are_read_back(number: Decimal) -> None:
    """So is every weight with three places; "two lakh point five" could be read two ways, and isn't."""
    assert read_number(say_decimal(number)) == number


def said_loosely(number: int, ands: list[bool], digits: list[bool]) -> str:
    """Say a number below a hundred crore as people and recognisers mix it: "1 lakh and twenty thousand"."""
    parts = []
    for name, size in (("crore", 10**7), ("lakh", 10**5), ("thousand", 10**3), ("", 1)):
        count, number = divmod(number, size)
        if count:
            words = str(count) if digits.pop() else spelled(count, with_and=ands.pop())
            parts.append(f"{words} {name}".strip())
    return " and ".join(parts) if ands.pop() else ", ".join(parts)


def spelled(count: int, *, with_and: bool) -> str:
    """Spell a number below a thousand."""
    hundreds, rest = divmod(count, 100)
    words = [f"{UNITS[hundreds]} hundred"] if hundreds else []
    if rest:
        words += ["and"] if hundreds and with_and else []
        words.append(
            UNITS[rest] if rest < 20 else f"{TENS[rest // 10]}-{UNITS[rest % 10]}".removesuffix("-zero")
        )
    return " ".join(words)


@given(
    st.integers(1, 10**9 - 1),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_loose_speech_is_read_back(number: int, ands: list[bool], digits: list[bool]) -> None:
    """Pauses, "and", hyphens and digits among words change nothing."""
    said = said_loosely(number, ands, digits)
    assert read_number(said) == number, said


@given(st.integers(0, 999), st.sampled_from(["point five", "and a half"]))
def test_halves_are_read_back(number: int, half: str) -> None:
    """Both ways to say a half."""
    assert read_number(f"{say_integer(number)} {half}") == number + Decimal("0.5")


@given(st.text(max_size=200))
def test_any_text_is_survived(text: str) -> None:
    """Whatever is said, nothing raises; spans lie within the words, in order."""
    words = words_of(text)
    ends = [0]
    for span in find_numbers(words):
        assert ends[-1] <= span.start < span.end <= len(words)
        assert span.value.is_finite()
        ends.append(span.end)


def test_digits_are_said_one_by_one() -> None:
    """As a telephone number is."""
    assert say_digits("98402") == "nine eight four zero two"
    assert say_integer(10**10) == "one " + " ".join(["zero"] * 10)


def test_small_and_negative_numbers_are_said() -> None:
    """Zero, minus, and a fraction below one."""
    assert say_integer(0) == "zero"
    assert say_integer(-15) == "minus fifteen"
    assert say_decimal(Decimal("0.05")) == "zero point zero five"
    assert say_decimal(Decimal("-2.50")) == "minus two point five"
    assert say_decimal(Decimal(100)) == "one hundred"
