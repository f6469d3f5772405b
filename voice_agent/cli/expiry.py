"""An expiry on the command line: a date, or how long from now."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import click

_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([dh])", re.ASCII)
_UNITS: Final = {"d": "days", "h": "hours"}


def expiry(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    """Read an option's value; a callback for click.

    ``2030-01-31`` is its first moment, UTC; ``2030-01-31T12:00:00Z`` is that moment; ``90d`` and ``12h`` are so long
    from now, to the second.
    """
    if value is None:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        moment = _moment(value, now)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a date, as 2030-01-31, nor a time from now, as 90d or 12h"
        ) from None
    if moment <= now:
        raise click.BadParameter(f"{value!r} lies in the past")
    return moment


def _moment(value: str, now: datetime) -> datetime:
    span = _SPAN.fullmatch(value)
    if span:
        return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
    moment = datetime.fromisoformat(value)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
