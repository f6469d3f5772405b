"""The offer, to the rupee: by the formula, and by an account that is paid off month by month."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.agent.customer import LENDER_NOT_TOLD, NO_LENDER, Profile, Segment
from voice_agent.agent.gold_purity import FINENESS
from voice_agent.agent.offer import NoQuote, NoQuoteReason, Price, Quote, Terms, instalment, quote
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import GoldSettings, Settings

NOW = datetime(2026, 11, 25, 6, 0, tzinfo=UTC)
PRICE = Price(Decimal(9000), NOW, "settings")
TERMS = Terms.of(GoldSettings())


def quoted(profile: Profile, terms: Terms = TERMS, price: Price | None = PRICE, now: datetime = NOW) -> Quote:
    """Return a quote that there must be."""
    found = quote(profile, terms, price, now)
    assert isinstance(found, Quote)
    return found


def test_the_figures_of_one_quote() -> None:
    """Forty grams of 22 K at 9,000 rupees: reckoned by hand."""
    it = quoted(Profile(grams=Decimal(40), karat=22))
    assert it.value == 329_760  # 40 x 9000 x 0.916
    assert it.limit == it.loan == 247_320  # 75 %
    assert it.rate_percent == Decimal("10.5")  # above one lakh, to five
    assert it.fee == 2_474  # 2,473.20, rounded up
    assert it.instalment == 21_801  # 21,800.65…, rounded up
    assert (it.months, it.price, it.saving, it.their_rate_percent) == (12, PRICE, None, None)


@pytest.mark.parametrize(
    ("loan", "rate"),
    [
        (10_000, "11.5"),
        (100_000, "11.5"),
        (100_001, "10.5"),
        (500_000, "10.5"),
        (500_001, "9.5"),
        (5_000_000, "9.5"),
    ],
)
def test_the_rate_is_that_of_the_tier(loan: int, rate: str) -> None:
    """A limit belongs to the tier below it."""
    it = quoted(Profile(grams=Decimal(1000), karat=24, wished_rupees=Decimal(loan)))
    assert (it.loan, it.rate_percent) == (loan, Decimal(rate))


@pytest.mark.parametrize(("karat", "fineness"), [(24, "1"), (22, "0.916"), (18, "0.75"), (14, "0.585")])
def test_the_value_is_that_of_the_pure_gold_in_it(karat: int, fineness: str) -> None:
    """Weight, price and fineness."""
    assert quoted(Profile(grams=Decimal(10), karat=karat)).value == 90_000 * Decimal(fineness)


def test_a_wish_below_the_limit_is_what_is_lent() -> None:
    """And one above it is told as such."""
    profile = Profile(grams=Decimal(40), karat=22)
    assert quoted(attrs.evolve(profile, wished_rupees=Decimal(50_000))).loan == 50_000
    above = quoted(attrs.evolve(profile, wished_rupees=Decimal(500_000)))
    assert above.loan == 247_320
    assert above.wish_is_above_limit


@pytest.mark.parametrize(
    ("profile", "price", "reason"),
    [
        (Profile(grams=Decimal(40), karat=22), None, NoQuoteReason.NO_PRICE),
        (
            Profile(grams=Decimal(40), karat=22),
            attrs.evolve(PRICE, at=NOW - timedelta(hours=24, seconds=1)),
            NoQuoteReason.PRICE_TOO_OLD,
        ),
        (
            Profile(grams=Decimal(40), karat=22),
            attrs.evolve(PRICE, at=NOW + timedelta(minutes=6)),
            NoQuoteReason.PRICE_FROM_FUTURE,
        ),
        (Profile(karat=22), PRICE, NoQuoteReason.NOT_KNOWN),
        (Profile(grams=Decimal(40)), PRICE, NoQuoteReason.NOT_KNOWN),
        (Profile(grams=Decimal(40), karat=21), PRICE, NoQuoteReason.NOT_KNOWN),
        (Profile(grams=Decimal(1), karat=22), PRICE, NoQuoteReason.TOO_LITTLE),
        (Profile(grams=Decimal(40), karat=22, wished_rupees=Decimal(500)), PRICE, NoQuoteReason.TOO_LITTLE),
    ],
)
def test_what_is_not_quoted(profile: Profile, price: Price | None, reason: NoQuoteReason) -> None:
    """No price, an old one, one from the future; unknown or too little gold."""
    assert quote(profile, TERMS, price, NOW) == NoQuote(reason)


def test_a_price_is_good_to_the_end_of_its_age() -> None:
    """At 24 hours it is still quoted from."""
    assert quoted(
        Profile(grams=Decimal(40), karat=22), price=attrs.evolve(PRICE, at=NOW - timedelta(hours=24))
    )


def test_the_saving_is_against_the_current_lender() -> None:
    """What the caller says they pay counts before what is known of the lender; the fee is taken off."""
    terms = attrs.evolve(TERMS, lender_rates={"Alpha Finance": Decimal(18)})
    profile = Profile(grams=Decimal(40), karat=22, wished_rupees=Decimal(120_000), lender="Alpha Finance")
    it = quoted(profile, terms)
    assert it.their_rate_percent == 18
    assert it.saving == 3_885  # 12 x (11,001.5992 - 10,577.8324) - 1,200 = 3,885.20, rounded down
    told = quoted(attrs.evolve(profile, lender_rate_percent=Decimal(24)), terms)
    assert told.their_rate_percent == 24
    assert told.saving is not None
    assert told.saving > it.saving
    assert quoted(attrs.evolve(profile, lender_rate_percent=Decimal(9)), terms).saving == 0


@pytest.mark.parametrize("lender", [None, NO_LENDER, LENDER_NOT_TOLD, "Beta Bank"])
def test_no_saving_is_claimed_against_an_unknown_rate(lender: str | None) -> None:
    """Nobody's rate is guessed."""
    assert quoted(Profile(grams=Decimal(40), karat=22, lender=lender)).saving is None


@given(
    st.integers(10_000, 5_000_000),
    st.decimals("0.5", 36, places=2),
    st.integers(1, 120),
)
def test_instalments_pay_the_loan_off(loan: int, rate: Decimal, months: int) -> None:
    """An account that bears interest on what is owed and receives the instalment is even after the last one."""
    payment = instalment(Decimal(loan), rate, months)
    owed = Decimal(loan)
    for _ in range(months):
        owed += owed * rate / 1200 - payment
    assert abs(owed) < Decimal("0.0001")


@given(
    st.decimals("0.1", 20_000, places=2),
    st.sampled_from(sorted(FINENESS)),
    st.none() | st.integers(1, 10**7),
    st.decimals(1, 100_000, places=2),
)
def test_a_quote_never_flatters(grams: Decimal, karat: int, wish: int | None, per_gram: Decimal) -> None:
    """Whole rupees; never more than the limit, the part of the value, or the wish; fee and instalment are not below the exact."""
    profile = Profile(grams=grams, karat=karat, wished_rupees=None if wish is None else Decimal(wish))
    it = quote(profile, TERMS, attrs.evolve(PRICE, per_gram=per_gram), NOW)
    if isinstance(it, NoQuote):
        assert it.reason is NoQuoteReason.TOO_LITTLE
        return
    for amount in (it.value, it.limit, it.loan, it.fee, it.instalment):
        assert amount == int(amount)
    assert it.limit <= grams * per_gram * FINENESS[karat] * Decimal("0.75")
    assert 10_000 <= it.loan <= min(it.limit, 5_000_000, wish or it.limit)
    assert it.fee * 100 >= it.loan
    assert it.instalment >= instalment(it.loan, it.rate_percent, it.months) - Decimal("1e-12")


def test_segments() -> None:
    """Follow from the lender."""
    kinds = {
        None: Segment.UNKNOWN,
        LENDER_NOT_TOLD: Segment.UNKNOWN,
        NO_LENDER: Segment.NEW,
        "Alpha": Segment.SWITCHING,
    }
    assert {lender: Profile(lender=lender).segment for lender in kinds} == kinds


@pytest.mark.parametrize(
    "flags",
    [
        {"gold.rate_tiers": "500000:10.5, 100000:11.5, above:9.5"},
        {"gold.rate_tiers": "100000:11.5"},
        {"gold.rate_tiers": "above:9.5, 100000:11"},
        {"gold.rate_tiers": "100000:0, above:9.5"},
        {"gold.rate_tiers": "100000:eleven, above:9.5"},
        {"gold.rate_tiers": "100000:NaN, above:9.5"},
        {"gold.rate_tiers": "above:101"},
        {"gold.lender_rates": "Alpha"},
        {"gold.lender_rates": "Alpha=12, Alpha=13"},
        {"gold.branches": "Chennai"},
        {"gold.price_per_gram": 9000.0},
        {"gold.price_per_gram": 9000.0, "gold.price_time": "2026-11-25T09:30:00"},
        {"gold.price_time": "today"},
        {"gold.price_command": "a", "gold.price_url": "https://example.org/"},
        {"gold.price_command": "echo 'open"},
        {"gold.price_url": "http://example.org/"},
        {"gold.desk_url": "ftp://example.org/"},
        {"gold.min_loan_rupees": 10, "gold.max_loan_rupees": 9},
    ],
)
def test_settings_that_can_t_be_meant_are_refused(flags: dict[str, Any]) -> None:
    """With the setting named, before anything starts."""
    from voice_agent.core.errors import SettingsError

    with pytest.raises(SettingsError) as refused:
        load_settings(files=(), environ={}, flags=flags)
    assert next(iter(flags)) in refused.value.message


def test_terms_are_read_from_settings() -> None:
    """Exactly as they were written: 10.1 percent is 101 tenths."""
    flags = {
        "gold.fee_percent": 10.1,
        "gold.lender_rates": "Alpha Finance=14.5, Beta Bank=12",
        "gold.rate_tiers": "above:9.95",
    }
    terms = Terms.of(load_settings(files=(), environ={}, flags=flags).settings.gold)
    assert terms.fee_percent == Decimal("10.1")
    assert terms.lender_rates == {"Alpha Finance": Decimal("14.5"), "Beta Bank": Decimal(12)}
    assert terms.rate_of(Decimal(1)) == Decimal("9.95")
    assert Settings().gold.price_per_gram == 0, "no price is shipped: it would be stale"
