"""What callers mean: phrasings from real talk, with the mistakes that recognisers make, and what must not be guessed."""

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.agent.gold_purity import FINENESS
from voice_agent.agent.number_words import say_decimal, say_digits, say_integer
from voice_agent.agent.understanding.answers import Answer, read_answer
from voice_agent.agent.understanding.dates import read_day
from voice_agent.agent.understanding.intents import IntentLexicon
from voice_agent.agent.understanding.names import read_name
from voice_agent.agent.understanding.quantities import Quantities, read_quantities
from voice_agent.agent.understanding.telephone import read_telephone

QUANTITIES = {
    "forty two point five grams of twenty two carat": {"grams": "42.5", "karat": 22},
    "40 grahams of 22 carrot gold": {"grams": "40", "karat": 22},
    "I have about forty grams, twenty two karat": {"grams": "40", "karat": 22},
    "twenty two carat forty grams": {"grams": "40", "karat": 22},
    "it's 18 caret, ten gram": {"grams": "10", "karat": 18},
    "22k gold, 50k please": {"karat": 22, "rupees": "50000"},
    "three sovereigns and two grams": {"grams": "26"},
    "five pavan": {"grams": "40"},
    "one tola": {"grams": "11.6638038"},
    "two and half tola": {"grams": "29.1595095"},
    "half a kilo": {"grams": "500"},
    "a kilo": {"grams": "1000"},
    "thirty, no, forty grams": {"grams": "40", "bare": "30"},
    "916 hallmark, forty grams": {"grams": "40", "karat": 22},
    "nine one six gold": {"karat": 22},
    "nine sixteen hallmark": {"karat": 22},
    "I need one lakh twenty thousand": {"rupees": "120000"},
    "1 lack rupees": {"rupees": "100000"},
    "₹1,20,000": {"rupees": "120000"},
    "five hundred rupees": {"rupees": "500"},
    "rs 50,000": {"rupees": "50000"},
    "they charge eleven point five percent": {"rate_percent": "11.5"},
    "12.5 per cent": {"rate_percent": "12.5"},
    "one and a half percent a month": {"rate_percent": "18"},
    "2% monthly": {"rate_percent": "24"},
    "forty": {"bare": "40"},
    "forty grams twenty two": {"grams": "40", "bare": "22"},
}
UNSURE = [
    "thirty or forty grams",
    "between thirty and forty grams",
    "thirty to forty grams",
    "one twenty grams",
    "forty grams and a half",
    "ten grams of eighteen carat and twenty grams of twenty two carat",
    "fifty thousand to one lakh",
    "twenty carat",
    "a hundred kilos",
    "zero grams",
    "some gold",
    "pure gold",
]


@pytest.mark.parametrize(("said", "meant"), QUANTITIES.items())
def test_a_quantity_is_understood(said: str, meant: dict[str, object]) -> None:
    """Weights, karats, amounts and rates, each taken for what it is, and nothing else besides."""
    expected = {name: Decimal(value) if isinstance(value, str) else value for name, value in meant.items()}
    assert read_quantities(said) == Quantities(**expected)


@pytest.mark.parametrize("said", UNSURE)
def test_what_is_unsure_is_not_guessed(said: str) -> None:
    """A range, two values, a fineness that there isn't, an unbelievable weight: nothing was understood."""
    assert read_quantities(said) == Quantities()


@given(
    st.decimals("0.01", 999, places=2),
    st.sampled_from(sorted(FINENESS)),
    st.booleans(),
    st.sampled_from(["grams", "gram", "grahams"]),
    st.sampled_from(["carat", "carrot", "karats"]),
)
def test_what_is_said_in_words_is_read_back(
    grams: Decimal, karat: int, karat_first: bool, unit: str, word: str
) -> None:
    """Every weight and purity, in either order."""
    weight, purity = f"{say_decimal(grams)} {unit}", f"{say_integer(karat)} {word}"
    said = f"{purity} {weight}" if karat_first else f"{weight} of {purity}"
    assert read_quantities(said) == Quantities(grams=grams, karat=karat)


@given(st.text(max_size=200))
def test_any_text_is_survived(text: str) -> None:
    """Whatever a recogniser writes, nothing raises."""
    read_quantities(text)
    read_answer(text)
    read_day(text, date(2026, 11, 25))
    read_telephone(text)
    read_name(text, ["Alpha Finance"])


ANSWERS = {
    "yes": Answer.YES,
    "yeah": Answer.YES,
    "sure, go ahead": Answer.YES,
    "okay": Answer.YES,
    "of course": Answer.YES,
    "why not": Answer.YES,
    "no problem": Answer.YES,
    "I don't mind": Answer.YES,
    "no, yeah": Answer.YES,
    "haan ji": Answer.YES,
    "no": Answer.NO,
    "not really": Answer.NO,
    "yeah, no": Answer.NO,
    "of course not": Answer.NO,
    "yes but not now": Answer.NO,
    "no thank you": Answer.NO,
    "I don\N{RIGHT SINGLE QUOTATION MARK}t think so": Answer.NO,
    "I'd rather not": Answer.NO,
    "please don't record": Answer.NO,
    "not sure": Answer.UNSURE,
    "maybe": Answer.UNSURE,
    "I guess so": Answer.UNSURE,
    "I don't know": Answer.UNSURE,
    "it depends": Answer.UNSURE,
    "forty grams": None,
    "hmm": None,
    "": None,
    "yesterday": None,
}


@pytest.mark.parametrize(("said", "meant"), ANSWERS.items())
def test_yes_and_no(said: str, meant: Answer | None) -> None:
    """With hedges, negations and changes of mind."""
    assert read_answer(said) is meant


WEDNESDAY = date(2026, 11, 25)
DAYS = {
    "today": "2026-11-25",
    "tomorrow please": "2026-11-26",
    "day after tomorrow": "2026-11-27",
    "tuesday": "2026-12-01",
    "next tuesday": "2026-12-01",
    "next friday": "2026-12-04",
    "this friday": "2026-11-27",
    "wednesday": "2026-12-02",
    "on the fifth": "2026-12-05",
    "the twenty fifth": "2026-11-25",
    "5th": "2026-12-05",
    "thirty first": "2026-12-31",
    "the fifth of march": "2027-03-05",
    "March 5": "2027-03-05",
    "5th December": "2026-12-05",
    "december the twenty second": "2026-12-22",
    "twenty ninth of february 2028": None,  # further ahead than a year
    "in three days": "2026-11-28",
    "after two weeks": "2026-12-09",
    "a week from now": "2026-12-02",
    "next week": None,
    "this monday": None,
    "last friday": None,
    "tuesday or wednesday": None,
    "february 30": None,
    "the second time": None,
    "I have five": None,
    "5/12": None,
    "yesterday": None,
}


@pytest.mark.parametrize(("said", "meant"), DAYS.items())
def test_days(said: str, meant: str | None) -> None:
    """Said on a Wednesday; what is no single day that is to come is none."""
    assert read_day(said, WEDNESDAY) == (date.fromisoformat(meant) if meant else None)


LENDERS = ["Alpha Finance", "Alpha Bank", "Muthoot", "Sree Gold Loans"]


@pytest.mark.parametrize(
    ("said", "meant"),
    {
        "I am with alpha finance": "Alpha Finance",
        "mutoot": "Muthoot",
        "with moo thoot": "Muthoot",
        "shree gold loans": "Sree Gold Loans",
        "alphabank": "Alpha Bank",
        "alpha": None,
        "alpha bank, no, alpha finance": "Alpha Finance",
        "some bank": None,
        "nobody": None,
    }.items(),
)
def test_names(said: str, meant: str | None) -> None:
    """Exact names, misheard ones, and none where two are equally likely."""
    assert read_name(said, LENDERS) == meant


@given(st.integers(6 * 10**9, 10**10 - 1), st.sampled_from(["", "nine one ", "zero ", "my number is "]))
def test_a_telephone_number_is_read_back(number: int, prefix: str) -> None:
    """Digit by digit, with and without the country."""
    assert read_telephone(prefix + say_digits(str(number))) == str(number)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("nine eight four double zero one two three four five", "9840012345"),
        ("98400 12345", "9840012345"),
        ("+91 98400-12345", "9840012345"),
        ("nine eight four", None),
        ("12345 67890", None),
        ("98400 12345 or 98400 54321", None),
    ],
)
def test_telephone_numbers(said: str, meant: str | None) -> None:
    """A whole mobile number, or nothing."""
    assert read_telephone(said) == meant


LEXICON = IntentLexicon(
    {
        "rate": [("interest rate", 2.0), ("interest", 1.0), ("how much * interest", 1.0)],
        "loan": [("loan", 1.0), ("how much * get", 1.5)],
        "faint": [("hello", 0.5)],
    }
)


@pytest.mark.parametrize(
    ("said", "meant"),
    {
        "what is the interest rate": "rate",
        "how much would I get": "loan",
        "how much interest on the loan": "rate",
        "interest loan": None,  # as much for one as for the other
        "hello": None,  # too little
        "loaned": None,
        "": None,
    }.items(),
)
def test_intents_by_phrases(said: str, meant: str | None) -> None:
    """The one that leads clearly; words are whole; what is tied or faint is none."""
    assert LEXICON.best(said) == meant
    assert LEXICON.intents == {"rate", "loan", "faint"}


HEARD = {
    # What a small recogniser made of: two and a half lakh; one lakh twenty thousand; five tolas of twenty four carat; sixty grams.
    "I want to, in the half light.": {},
    "I need one late twenty thousand rupees.": {},
    "I need one lat twenty thousand rupees.": {"rupees": "120000"},
    "Five tolls of twenty four carat,": {"karat": 24},
    "Sixty grand.": {},
    "I want seven like ninety thousand.": {},
    "I won seven, like thirty thousand.": {},
    "One like ten thousand rupees.": {},
    "I went for lack twenty thousand.": {},
    "I want one lakh twenty thousand.": {"rupees": "120000"},
    "I pay seventeen point seven, five percent a year.": {"rate_percent": "17.75"},
    "It is eighteen, Carat gold.": {"karat": 18},
    "I pay six point to five percent a year.": {},
    "I pay for in point seven, five percent a year.": {},
    "I went for a lack.": {},
    "I once have been lacked thirty thousand.": {},
    "I want a lakh.": {"rupees": "100000"},
    "Forting carat.": {"karat": 14},
    "It is aiding Carat gold.": {"karat": 18},
    "About one hundred eight in point nine grams.": {},
    "Two core.": {"rupees": "20000000"},
    "Sixteen grants.": {"grams": "16"},
    "I have three sovereigns and two grants.": {"grams": "26"},
    "I have three sovereigns and two grabs.": {},
    "It is eighteen, Carrick Gold, about thirty grams.": {"grams": "30", "bare": None},
    "22 carat.": {"karat": 22},
    "916 Hallmark Gold.": {"karat": 22},
    "two bangles, forty grams": {"grams": "40"},
    "two bangles forty grams": {},
    "about forty": {"bare": "40"},
    "it's forty, I think": {"bare": "40"},
    "forty bangles": {},
}


@pytest.mark.parametrize(("heard", "meant"), HEARD.items())
def test_a_unit_that_was_misheard_is_no_other_number(heard: str, meant: dict[str, object]) -> None:
    """Two thirds of a quantity are not taken for the whole: where a number has lost its unit, the dialogue asks."""
    expected = {name: Decimal(value) if isinstance(value, str) else value for name, value in meant.items()}
    assert read_quantities(heard) == Quantities(**expected)
