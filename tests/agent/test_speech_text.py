"""What a voice is given to say."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.agent.speech_text import say_day, say_ordinal, say_rupees, say_year, speech_text
from voice_agent.agent.understanding.dates import read_day
from voice_agent.agent.understanding.quantities import read_quantities
from voice_agent.agent.understanding.telephone import read_telephone

TABLE = {
    "₹1,20,000": "one lakh twenty thousand rupees",
    "₹1": "one rupee",
    "₹ 50.50 only": "fifty rupees and fifty paise only",
    "Rs. 500.": "five hundred rupees.",
    "₹2.5 crore": "two point five crore rupees",
    "12,345 rupees": "twelve thousand three hundred forty five rupees",
    "42.5 g of 22 K": "forty two point five grams of twenty two carat",
    "1 g": "one gram",
    "at 10.5 %, yearly": "at ten point five percent, yearly",
    "10.5% a year": "ten point five percent a year",
    "on 2026-12-01": "on Tuesday the first of December",
    "2026-13-01": "2026-13-01",
    "at 14:30": "at two thirty p m",
    "at 09:05": "at nine oh five a m",
    "at 00:00": "at twelve a m",
    "98400 12345": "nine eight four zero zero, one two three four five",
    "+91 9840012345": "plus nine one, nine eight four zero zero, one two three four five",
    "code 042": "code zero four two",
    "12 months": "twelve months",
    "1,20,000": "one lakh twenty thousand",
    "a4 paper, v1.2.3": "a4 paper, v1.2.3",
    "no figures": "no figures",
    "": "",
}


@pytest.mark.parametrize(("written", "said"), TABLE.items())
def test_what_is_written_is_said(written: str, said: str) -> None:
    """Money, weights, percentages, dates, times, telephone numbers; what isn't a number stays."""
    assert speech_text(written) == said


@given(st.integers(1, 10**9))
def test_money_is_understood_as_it_is_said(rupees: int) -> None:
    """What the agent says, the agent would hear as the same amount."""
    said = speech_text(f"₹{rupees}")
    assert read_quantities(said).rupees == rupees


@given(st.decimals("0.1", 999, places=1))
def test_weights_are_understood_as_they_are_said(grams: Decimal) -> None:
    """So are weights."""
    assert read_quantities(speech_text(f"{grams} g")).grams == grams


@given(st.integers(0, 364))
def test_days_are_understood_as_they_are_said(ahead: int) -> None:
    """So are days, over a year."""
    today = date(2026, 11, 25)
    day = today + timedelta(days=ahead)
    assert read_day(say_day(day).partition(" ")[2], today) == day


@given(st.integers(6 * 10**9, 10**10 - 1))
def test_telephone_numbers_are_understood_as_they_are_said(number: int) -> None:
    """So are telephone numbers."""
    assert read_telephone(speech_text(str(number))) == str(number)


def test_small_forms() -> None:
    """Ordinals, years and paise."""
    assert [say_ordinal(n) for n in (1, 4, 12, 20, 21, 30, 31)] == [
        "first",
        "fourth",
        "twelfth",
        "twentieth",
        "twenty first",
        "thirtieth",
        "thirty first",
    ]
    assert [say_year(year) for year in (2026, 2005, 2000, 1900)] == [
        "twenty twenty six",
        "two thousand and five",
        "two thousand",
        "nineteen hundred",
    ]
    assert say_rupees(Decimal("100000.5")) == "one lakh rupees and fifty paise"
    assert say_day(date(2026, 12, 1), with_year=True) == "Tuesday the first of December twenty twenty six"


@given(st.text(max_size=100))
def test_any_text_is_survived(text: str) -> None:
    """Nothing raises, and text without digits stays as it is."""
    said = speech_text(text)
    if not any(character.isdigit() for character in text):
        assert said == text
