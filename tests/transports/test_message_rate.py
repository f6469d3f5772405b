"""How many messages a call may bring: told before, held to after, and changed while it lasts."""

import pytest

from voice_agent.core.errors import RateExceededError
from voice_agent.transports.message_rate import MessageRate


def notices(rate: MessageRate, *times: float) -> list[float]:
    """Count a message at each time; return when a notice came."""
    return [at for at in times if rate.count(at) is not None]


def test_the_notice_comes_again_only_after_calm() -> None:
    """Who stays near the limit is told once; who had at most half of it in a second, and comes near again, again."""
    rate = MessageRate(lambda: 8)
    assert notices(rate, *[n / 8 for n in range(40)]) == [7 / 8]
    assert notices(rate, 10.0, *[10.5] * 7) == [10.5]


def test_a_changed_limit_holds_at_once() -> None:
    """The limit is asked at each message."""
    limit = 100
    rate = MessageRate(lambda: limit)
    assert notices(rate, *[0.0] * 20) == []
    limit = 20
    with pytest.raises(RateExceededError, match="more than 20"):
        rate.count(0.5)
