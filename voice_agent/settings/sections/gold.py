"""What the gold-loan dialogue may offer: prices, limits, rates, branches."""

import attrs

from voice_agent.core.units import MINUTES, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class GoldSettings:
    """What the gold-loan dialogue may offer: prices, limits, rates, branches."""

    company: str = setting(
        "the gold loan desk", "Who the dialogue says it speaks for.", minimum=1, maximum=100, live=True
    )
    price_per_gram: float = setting(
        0.0,
        "Price of pure gold, where no feed tells it; 0 is no price, and without a price nothing is quoted.",
        unit="rupees",
        minimum=0,
        maximum=10_000_000,
        live=True,
    )
    price_time: str = setting(
        "", "When that was the price, as 2026-11-25T09:30:00+05:30.", maximum=64, live=True
    )
    price_max_age_hours: float = setting(
        24.0,
        "From a price that is older nothing is quoted.",
        unit="hours",
        minimum=0.01,
        maximum=87_600,
        live=True,
    )
    price_command: str = setting(
        "",
        "A command whose output is the price, as docs/dialogue.md says; run without a shell.",
        maximum=4096,
        live=True,
    )
    price_url: str = setting(
        "",
        "Where the price is fetched, instead of a command: `https://`, or `http://` on loopback.",
        maximum=2048,
        live=True,
    )
    price_refresh_seconds: float = setting(
        10 * MINUTES, "How often it is asked for.", unit="seconds", minimum=1, maximum=86_400, live=True
    )
    price_timeout_seconds: float = setting(
        10 * SECONDS,
        "Command or address may take so long.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
        live=True,
    )
    loan_to_value_percent: float = setting(
        75.0,
        "Part of the gold's value that is lent at most.",
        unit="percent",
        minimum=1,
        maximum=100,
        live=True,
    )
    rate_tiers: str = setting(
        "100000:11.5, 500000:10.5, above:9.5",
        "Interest a year in percent, by the loan: up to so many rupees, then the next, then what is above.",
        minimum=1,
        maximum=1024,
        live=True,
    )
    fee_percent: float = setting(
        1.0, "Processing fee, of the loan.", unit="percent", minimum=0, maximum=100, live=True
    )
    months: int = setting(
        12,
        "Monthly instalments that a quote is reckoned with.",
        unit="months",
        minimum=1,
        maximum=120,
        live=True,
    )
    min_loan_rupees: int = setting(
        10_000, "Less is not lent.", unit="rupees", minimum=0, maximum=1_000_000_000, live=True
    )
    max_loan_rupees: int = setting(
        5_000_000, "More is not lent.", unit="rupees", minimum=1, maximum=1_000_000_000, live=True
    )
    lender_rates: str = setting(
        "",
        "Other lenders and their interest a year in percent, as `Alpha Finance=14.5, Beta Bank=12`; the names that "
        "callers may say.",
        maximum=8192,
        live=True,
    )
    branches: str = setting(
        "",
        "Branches by city, as `Chennai=12 Lake Road; Madurai=3 Temple Street`.",
        maximum=16_384,
        live=True,
    )
    documents: str = setting(
        "an identity card with a photograph, and a proof of address",
        "What a customer has to bring.",
        minimum=1,
        maximum=500,
        live=True,
    )
    desk_url: str = setting(
        "",
        "Where visits, leads and requests for a person are posted as JSON: `https://`, or `http://` on loopback. Empty: "
        "nothing is sent, and callers are told so.",
        maximum=2048,
        live=True,
    )
    desk_timeout_seconds: float = setting(
        5 * SECONDS, "Posting may take so long.", unit="seconds", minimum=0.1, maximum=60, live=True
    )
    utc_offset_minutes: int = setting(
        330,
        "The callers' clock against UTC: what `tomorrow` means, and at what time a price was read.",
        unit="minutes",
        minimum=-720,
        maximum=840,
        live=True,
    )
