"""Requests, calls and failures by address and key: to the request, on a clock of the test's own."""

from typing import Any

import attrs
import pytest

from voice_agent.access.caller import Caller
from voice_agent.access.limiter import Limiter
from voice_agent.access.turnstile import PASS, Verdict
from voice_agent.core.identity import ANONYMOUS, Identity, Quotas, Scope
from voice_agent.core.limits import Limit
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import LimitsSettings, Settings

KEY = Identity(key_id="k1", tenant="t", scopes=frozenset(Scope))
OTHER = attrs.evolve(KEY, key_id="k2")
HERE = "192.0.2.7"


@attrs.define
class Bench:
    """A limiter with its clock and what it counted."""

    limiter: Limiter
    settings: CurrentSettings
    hits: list[Limit]
    clock: list[float]


def bench(**limits: Any) -> Bench:
    settings = CurrentSettings(Settings(limits=LimitsSettings(**limits)))
    hits: list[Limit] = []
    clock = [1000.0]
    return Bench(
        Limiter(settings, on_hit=hits.append, now=lambda: clock[0]), settings=settings, hits=hits, clock=clock
    )


def fields(verdict: Verdict) -> dict[str, str]:
    refusal = verdict.refusal
    return {
        name.decode(): value.decode()
        for name, value in (*verdict.headers, *(refusal.headers if refusal else ()))
    }


def granted(ask: Any, *, at_most: int = 1000) -> int:
    """Ask until refused; return how often it was granted."""
    return next(n for n in range(at_most + 1) if ask().refusal is not None)


def test_requests_of_one_address_are_held_to_burst_and_rate() -> None:
    """The burst, then the rate; the fields tell how it stands, and 429 when to come again."""
    one = bench(requests_per_second_per_address=2, requests_burst_per_address=3)
    first = one.limiter.arrives(HERE)
    assert first.refusal is None
    assert fields(first) == {
        "ratelimit-policy": '"requests_per_address";q=3;w=2',
        "ratelimit": '"requests_per_address";r=2;t=1',
    }
    assert granted(lambda: one.limiter.arrives(HERE)) == 2
    refused = one.limiter.arrives(HERE)
    assert refused.refusal is not None
    assert (refused.refusal.error.status, refused.refusal.error.code) == (429, "rate_limited")
    assert fields(refused) == {
        "ratelimit-policy": '"requests_per_address";q=3;w=2',
        "ratelimit": '"requests_per_address";r=0;t=2',
        "retry-after": "1",
    }
    assert one.limiter.arrives("192.0.2.8").refusal is None
    one.clock[0] += 0.5
    assert granted(lambda: one.limiter.arrives(HERE)) == 1
    assert one.hits == [Limit.REQUESTS_PER_ADDRESS] * 3


def test_all_of_an_ipv6_network_is_one() -> None:
    """Who has a /64 has one allowance, not 18 quintillion."""
    one = bench(requests_burst_per_address=5)
    addresses = iter(f"2001:db8::{n:x}" for n in range(1, 100))
    assert granted(lambda: one.limiter.arrives(next(addresses))) == 5
    assert one.limiter.arrives("2001:db8:0:1::1").refusal is None


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_an_address_that_stands_for_everybody_is_not_counted(address: str) -> None:
    """Behind a proxy that nobody configured, all would be one; by default that is loopback, and the operator may say."""
    one = bench(requests_burst_per_address=1, calls_burst_per_address=1, auth_failures_burst=1)
    assert all(one.limiter.arrives(address) is PASS for _ in range(10))
    assert all(one.limiter.begins_call(Caller(ANONYMOUS, address)) is PASS for _ in range(10))
    for _ in range(10):
        one.limiter.note_failure(address)
    assert one.limiter.wait_seconds(address) == 0
    assert one.limiter.holder(Caller(ANONYMOUS, address)) is None
    one.settings.replace(
        attrs.evolve(one.settings.now, limits=attrs.evolve(one.settings.now.limits, uncounted_networks=""))
    )
    assert granted(lambda: one.limiter.arrives(address)) == 1


def test_requests_of_one_key_are_held_from_wherever_they_come() -> None:
    """The key's bucket; anonymous callers have none, for they are everybody."""
    one = bench(requests_burst_per_key=4)
    addresses = iter(f"192.0.2.{n}" for n in range(1, 100))
    assert granted(lambda: one.limiter.enters(next(addresses), KEY)) == 4
    assert one.limiter.enters(HERE, OTHER).refusal is None
    assert one.limiter.enters(HERE, ANONYMOUS) is PASS
    assert one.hits == [Limit.REQUESTS_PER_KEY]


@pytest.mark.parametrize(
    ("quotas", "burst", "a_minute_later"),
    [
        (Quotas(), 40, 40),
        (Quotas(calls_per_minute=12), 4, 4),
        (Quotas(calls_per_minute=1), 1, 1),
        (Quotas(calls_per_minute=1200), 400, 400),
        (Quotas(calls_per_minute=0), 0, 0),
    ],
)
def test_a_key_s_own_quota_goes_before_the_setting(quotas: Quotas, burst: int, a_minute_later: int) -> None:
    """With a burst in proportion; 0 is none at all."""
    one = bench(calls_per_minute_per_address=100_000, calls_burst_per_address=10_000)
    caller = Caller(attrs.evolve(KEY, quotas=quotas), HERE)
    assert granted(lambda: one.limiter.begins_call(caller)) == burst
    one.clock[0] += 60
    assert granted(lambda: one.limiter.begins_call(caller)) == a_minute_later


def test_a_quota_of_requests() -> None:
    """As of calls."""
    one = bench()
    slow = attrs.evolve(KEY, quotas=Quotas(requests_per_second=1))
    assert granted(lambda: one.limiter.enters(HERE, slow)) == 4


def test_a_call_that_one_bucket_refuses_costs_the_other_nothing() -> None:
    """The address is used up; the key has all of its calls left for another address."""
    one = bench(calls_burst_per_address=2, calls_burst_per_key=5)
    assert granted(lambda: one.limiter.begins_call(Caller(KEY, HERE))) == 2
    for _ in range(20):
        assert one.limiter.begins_call(Caller(KEY, HERE)).refusal is not None
    addresses = iter(f"198.51.100.{n}" for n in range(1, 100))
    assert granted(lambda: one.limiter.begins_call(Caller(KEY, next(addresses)))) == 3
    assert one.hits == [Limit.CALLS_PER_ADDRESS] * 21 + [Limit.CALLS_PER_KEY]


def test_failures_make_an_address_wait() -> None:
    """Twenty wrong keys, then nothing is looked at for six seconds, and one more try each six."""
    one = bench()
    for _ in range(20):
        assert one.limiter.wait_seconds(HERE) == 0
        one.limiter.note_failure(HERE)
    assert one.limiter.wait_seconds(HERE) == pytest.approx(6)
    assert one.limiter.wait_seconds("192.0.2.8") == 0
    one.clock[0] += 6
    assert one.limiter.wait_seconds(HERE) == 0
    one.limiter.note_failure(HERE)
    assert one.limiter.wait_seconds(HERE) > 0
    assert one.hits == [Limit.AUTH_FAILURES] * 2


def test_calls_at_once_are_held_by_key_and_without_one_by_address() -> None:
    """A key's own quota goes before the setting; the refusal says how many there are."""
    one = bench(max_calls_per_key=2)
    caller = Caller(KEY, HERE)
    assert one.limiter.holder(caller) == "key k1"
    assert one.limiter.holder(Caller(ANONYMOUS, "2001:db8::7")) == "address 2001:db8::/64"
    assert one.limiter.has_too_many(caller, 1) is None
    refusal = one.limiter.has_too_many(caller, 2)
    assert refusal is not None
    assert (refusal.error.status, refusal.error.code) == (429, "too_many_calls")
    assert dict(refusal.headers) == {b"retry-after": b"5"}
    more = Caller(attrs.evolve(KEY, quotas=Quotas(max_calls=3)), HERE)
    assert one.limiter.has_too_many(more, 2) is None
    assert one.limiter.has_too_many(more, 3) is not None
    assert one.hits == [Limit.CALLS_AT_ONCE] * 2


def test_a_changed_setting_holds_at_once() -> None:
    """Read at each request."""
    one = bench(requests_burst_per_address=1)
    assert granted(lambda: one.limiter.arrives(HERE)) == 1
    limits = attrs.evolve(one.settings.now.limits, requests_burst_per_address=10)
    one.settings.replace(attrs.evolve(one.settings.now, limits=limits))
    assert granted(lambda: one.limiter.arrives(HERE)) == 9
