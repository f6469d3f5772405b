"""The RateLimit fields of an answer (draft-ietf-httpapi-ratelimit-headers, since its revision 08), and Retry-After.

A policy is told as the burst ``q`` and the seconds ``w`` in which it is filled again, which is what a token bucket has in
the place of a quota and its window; the state as the rest ``r`` and the seconds ``t`` until all of it is there again.
"""

import math
from collections.abc import Sequence
from typing import Final

import attrs

from voice_agent.core.limits import Limit
from voice_agent.core.rates import Outcome, Rate

MAX_SECONDS: Final = 86_400
"""What never comes is told as a day."""


@attrs.frozen
class Counted:
    """One limit, how much it allows, and how it stands."""

    limit: Limit
    rate: Rate
    outcome: Outcome


def rate_limit_fields(*counted: Counted) -> tuple[tuple[bytes, bytes], ...]:
    """Return the two fields, in lower case as ASGI has them; none where nothing was counted."""
    if not counted:
        return ()
    return (
        (b"ratelimit-policy", _joined([_policy(one) for one in counted])),
        (b"ratelimit", _joined([_state(one) for one in counted])),
    )


def retry_after_field(seconds: float) -> tuple[bytes, bytes]:
    """Return when to come again, in whole seconds (RFC 9110, section 10.2.3), at least one."""
    return b"retry-after", str(_whole(seconds)).encode()


def _policy(counted: Counted) -> str:
    return f'"{counted.limit}";q={int(counted.rate.burst)};w={_whole(counted.rate.window_seconds)}'


def _state(counted: Counted) -> str:
    outcome = counted.outcome
    return f'"{counted.limit}";r={int(outcome.remaining)};t={_whole(outcome.full_after_seconds)}'


def _whole(seconds: float) -> int:
    return max(1, min(MAX_SECONDS, math.ceil(min(seconds, MAX_SECONDS))))


def _joined(items: Sequence[str]) -> bytes:
    return ", ".join(items).encode()
