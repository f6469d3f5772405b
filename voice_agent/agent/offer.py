"""The offer: what a caller's gold is worth, what may be lent on it, and what that costs; in exact decimals.

    value      = weight x price of pure gold x fineness
    limit      = value x loan-to-value, at most the largest loan
    loan       = the limit, or what the caller wishes where that is less
    instalment = loan x r (1 + r)^n / ((1 + r)^n - 1),  r = yearly rate / 12,  n = months

The last line is the ordinary annuity: n equal payments, one at the end of each month, each paying the interest on what is still
owed and then the debt ("reducing balance"); their present value at the rate r is the loan. The rate is that of the tier that the
whole loan falls into.

Rounding, to whole rupees, never flatters: value, limit, loan and saving are rounded down, fee and instalment up. So the last
instalment may be a few rupees less. Nothing is rounded in between.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from enum import Enum
from typing import Final

import attrs

from voice_agent.agent.customer import NO_LENDER, Profile
from voice_agent.agent.gold_purity import FINENESS
from voice_agent.core.units import MINUTES
from voice_agent.settings.gold_values import Tier, decimal_of, lender_rates, rate_tiers
from voice_agent.settings.schema import GoldSettings

HUNDRED: Final = Decimal(100)
MONTHS_OF_A_YEAR: Final = 12
CLOCK_TOLERANCE: Final = timedelta(seconds=5 * MINUTES)
"""How far a price may lie in the future: clocks differ. A later one is no price."""
_PRECISION: Final = 50
"""Digits; (1 + r)^120 of a rate with ten digits is far from needing them."""


@attrs.frozen
class Price:
    """What a gram of pure gold costs in rupees, when that was so, and who says so."""

    per_gram: Decimal
    at: datetime
    source: str


@attrs.frozen(kw_only=True)
class Terms:
    """What the lender lends on, and for how much."""

    loan_to_value_percent: Decimal
    tiers: tuple[Tier, ...]
    fee_percent: Decimal
    months: int
    min_loan: Decimal
    max_loan: Decimal
    lender_rates: Mapping[str, Decimal]
    price_max_age: timedelta

    @classmethod
    def of(cls, gold: GoldSettings) -> "Terms":
        """Read them from settings that passed their checks."""
        return cls(
            loan_to_value_percent=decimal_of(gold.loan_to_value_percent),
            tiers=rate_tiers(gold.rate_tiers),
            fee_percent=decimal_of(gold.fee_percent),
            months=gold.months,
            min_loan=Decimal(gold.min_loan_rupees),
            max_loan=Decimal(gold.max_loan_rupees),
            lender_rates=lender_rates(gold.lender_rates),
            price_max_age=timedelta(hours=gold.price_max_age_hours),
        )

    def rate_of(self, loan: Decimal) -> Decimal:
        """Return the yearly rate of a loan, in percent."""
        return next(
            tier.rate_percent for tier in self.tiers if tier.up_to_rupees is None or loan <= tier.up_to_rupees
        )


class NoQuoteReason(Enum):
    """Why nothing can be quoted."""

    NO_PRICE = "no price of gold is known"
    PRICE_FROM_FUTURE = "the time of the price can't be right"
    PRICE_TOO_OLD = "the price of gold is too old"
    NOT_KNOWN = "weight or purity is not known"
    TOO_LITTLE = "the loan would be below the smallest one"


@attrs.frozen
class NoQuote:
    """Nothing can be quoted, and why."""

    reason: NoQuoteReason


@attrs.frozen(kw_only=True)
class Quote:
    """An estimate; the branch decides, when it has weighed and tested the gold. Rupees, whole; rates in percent a year."""

    grams: Decimal
    karat: int
    price: Price
    value: Decimal
    limit: Decimal
    loan: Decimal
    """What is asked for, or the limit."""
    wish_is_above_limit: bool
    rate_percent: Decimal
    fee: Decimal
    months: int
    instalment: Decimal
    their_rate_percent: Decimal | None
    saving: Decimal | None
    """Against the current lender's rate, over all months, our fee taken off; None where their rate is not known, 0 where there is
    nothing to save."""


def quote(profile: Profile, terms: Terms, price: Price | None, now: datetime) -> Quote | NoQuote:
    """Reckon the offer for a caller; ``now`` says how old the price is."""
    reason = price_fault(price, terms, now)
    if reason is not None or price is None:
        return NoQuote(reason or NoQuoteReason.NO_PRICE)
    grams, karat = profile.grams, profile.karat
    if grams is None or grams <= 0 or karat not in FINENESS:
        return NoQuote(NoQuoteReason.NOT_KNOWN)
    with localcontext() as context:
        context.prec = _PRECISION
        exact_value = grams * price.per_gram * FINENESS[karat]
        limit = min(_down(exact_value * terms.loan_to_value_percent / HUNDRED), terms.max_loan)
        wished = _down(profile.wished_rupees) if profile.wished_rupees is not None else limit
        loan = min(limit, wished)
        if loan < terms.min_loan or loan <= 0:
            return NoQuote(NoQuoteReason.TOO_LITTLE)
        rate = terms.rate_of(loan)
        fee = loan * terms.fee_percent / HUNDRED
        theirs = _their_rate(profile, terms)
        return Quote(
            grams=grams,
            karat=karat,
            price=price,
            value=_down(exact_value),
            limit=limit,
            loan=loan,
            wish_is_above_limit=wished > limit,
            rate_percent=rate,
            fee=_up(fee),
            months=terms.months,
            instalment=_up(instalment(loan, rate, terms.months)),
            their_rate_percent=theirs,
            saving=None if theirs is None else saving(loan, rate, theirs, terms.months, fee),
        )


def price_fault(price: Price | None, terms: Terms, now: datetime) -> NoQuoteReason | None:
    """Return why nothing may be quoted from a price; None where it may."""
    if price is None:
        return NoQuoteReason.NO_PRICE
    if price.at - now > CLOCK_TOLERANCE:
        return NoQuoteReason.PRICE_FROM_FUTURE
    if now - price.at > terms.price_max_age:
        return NoQuoteReason.PRICE_TOO_OLD
    return None


def instalment(loan: Decimal, rate_percent: Decimal, months: int) -> Decimal:
    """Return the exact monthly payment of a reducing-balance loan."""
    rate = rate_percent / HUNDRED / MONTHS_OF_A_YEAR
    if not rate:
        return loan / months
    growth = (1 + rate) ** months
    return loan * rate * growth / (growth - 1)


def saving(loan: Decimal, ours: Decimal, theirs: Decimal, months: int, fee: Decimal) -> Decimal:
    """Return what the same loan costs less with us, over all months; 0 where it doesn't."""
    difference = (instalment(loan, theirs, months) - instalment(loan, ours, months)) * months - fee
    return max(_down(difference), Decimal(0))


def _their_rate(profile: Profile, terms: Terms) -> Decimal | None:
    """Return the current lender's rate: what the caller says they pay, or what is known of that lender."""
    if profile.lender in {None, NO_LENDER}:
        return None
    return profile.lender_rate_percent or terms.lender_rates.get(str(profile.lender))


def _down(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal(1), ROUND_FLOOR)


def _up(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal(1), ROUND_CEILING)
