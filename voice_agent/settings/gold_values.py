"""Tables of the gold-loan dialogue that stand in one text setting each: rates, lenders, branches, the time of a price."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Final

import attrs

from voice_agent.settings.lists import split_list

ABOVE: Final = "above"
_MAX_RATE: Final = Decimal(100)


@attrs.frozen
class Tier:
    """A rate, and the largest loan that it holds for; None for the last one."""

    up_to_rupees: Decimal | None
    rate_percent: Decimal


def decimal_of(number: float) -> Decimal:
    """Return the decimal that was written: 0.1 is one tenth, although no float is."""
    return Decimal(repr(number))


def rate_tiers(text: str) -> tuple[Tier, ...]:
    """Read ``100000:11.5, 500000:10.5, above:9.5``.

    Raises:
        ValueError: it is no such list, or does not rise to ``above``.
    """
    tiers = []
    for part in split_list(text):
        limit, _, rate = part.partition(":")
        is_last = limit.strip() == ABOVE
        tiers.append(Tier(None if is_last else _positive(limit), _rate(rate)))
    limits = [tier.up_to_rupees for tier in tiers[:-1]]
    rising = all(limit is not None for limit in limits) and limits == sorted(set(filter(None, limits)))
    if not tiers or tiers[-1].up_to_rupees is not None or not rising:
        raise ValueError("the limits must rise, and the last one must be above")
    return tuple(tiers)


def lender_rates(text: str) -> dict[str, Decimal]:
    """Read ``Alpha Finance=14.5, Beta Bank=12``.

    Raises:
        ValueError: it is no such list, or a name stands twice.
    """
    return {name: _rate(rate) for name, rate in _pairs(text, ",").items()}


def branches(text: str) -> dict[str, str]:
    """Read ``Chennai=12 Lake Road; Madurai=3 Temple Street``: the address by city.

    Raises:
        ValueError: it is no such list, or a city stands twice.
    """
    return _pairs(text, ";")


def price_time(text: str) -> datetime:
    """Read a time with its offset from UTC (ISO 8601).

    Raises:
        ValueError: it is none, or without an offset.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time needs its offset from UTC")
    return time


def _pairs(text: str, separator: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(separator))):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if not name or not value or name in pairs:
            raise ValueError("must be name=value, each name once")
        pairs[name] = value
    return pairs


def _rate(text: str) -> Decimal:
    rate = _positive(text)
    if rate > _MAX_RATE:
        raise ValueError("a rate is at most 100 percent")
    return rate


def _positive(text: str) -> Decimal:
    try:
        number = Decimal(text.strip()) if text.isascii() else Decimal(0)
    except InvalidOperation:
        raise ValueError("is no number") from None
    if not number.is_finite() or number <= 0:
        raise ValueError("must be above zero")
    return number
