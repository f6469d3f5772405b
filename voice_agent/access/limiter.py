"""Limiter: counts requests, new calls and failures by address and by key, and says when it is too much.

It stands at three places: at the door as its turnstile, at the authenticator as its limit of failures, and at the desk
where calls begin. An address is counted before anybody knows who comes, so that a flood costs no look at credentials; a
key from wherever it comes. Anonymous callers are counted by their address alone.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import trio

from voice_agent.access.address_keys import address_key, lies_in
from voice_agent.access.buckets import Buckets
from voice_agent.access.caller import Caller
from voice_agent.access.rate_fields import Counted, rate_limit_fields, retry_after_field
from voice_agent.access.refusal import Refusal
from voice_agent.access.shared_usage import NothingShared, SharedUsage
from voice_agent.access.turnstile import PASS, Verdict
from voice_agent.core.identity import ANONYMOUS, Identity
from voice_agent.core.limits import Limit
from voice_agent.core.rates import Rate
from voice_agent.core.request_errors import RateLimitedError, TooManyCallsError
from voice_agent.core.units import MINUTES, SECONDS
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.lists import networks

FULL_RETRY_SECONDS: Final = 5 * SECONDS
"""When to come again where nobody knows when a call will end."""

_COUNTED: Final = (
    Limit.REQUESTS_PER_ADDRESS,
    Limit.REQUESTS_PER_KEY,
    Limit.CALLS_PER_ADDRESS,
    Limit.CALLS_PER_KEY,
    Limit.AUTH_FAILURES,
)
_OF_CALLS: Final = (Limit.CALLS_PER_ADDRESS, Limit.CALLS_PER_KEY)

_NOTHING: Final = Rate(per_second=1e-6, burst=0.5)
"""A quota of 0: no burst that anything fits into."""

_networks = lru_cache(maxsize=2)(networks)


class Limiter:
    """The buckets of one server. ``on_hit`` is told each limit that refuses; ``now`` is a clock that does not go back.

    A :class:`~voice_agent.access.turnstile.Turnstile` and a :class:`~voice_agent.access.authenticator.FailureLimiter`.
    """

    def __init__(
        self,
        settings: CurrentSettings,
        *,
        on_hit: Callable[[Limit], None],
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self.shared: SharedUsage = NothingShared()
        """What is used on other nodes."""
        self._settings = settings
        self._on_hit = on_hit
        self._now = now
        # A table each, so that a flood of one kind crowds nobody out of another.
        self._tables = {limit: Buckets(settings.now.limits.max_counted) for limit in _COUNTED}

    # -- the door -------------------------------------------------------------------------------------------------

    def arrives(self, address: str) -> Verdict:
        """Count a request by its address."""
        return self._judge(self._by_address(Limit.REQUESTS_PER_ADDRESS, address))

    def enters(self, address: str, identity: Identity) -> Verdict:  # noqa: ARG002 - the protocol's signature
        """Count a request by its key."""
        return self._judge(self._by_key(Limit.REQUESTS_PER_KEY, identity))

    # -- the authenticator ----------------------------------------------------------------------------------------

    def wait_seconds(self, address: str) -> float:
        """Return how long the address has to wait before its credentials are looked at again; 0 when it needn't."""
        if not self.counts(address):
            return 0.0
        rate = self._rate(Limit.AUTH_FAILURES)
        outcome = self._tables[Limit.AUTH_FAILURES].look(address_key(address), rate, self._now())
        if not outcome.is_granted:
            self._on_hit(Limit.AUTH_FAILURES)
        return outcome.retry_after_seconds

    def note_failure(self, address: str) -> None:
        """Count wrong credentials."""
        if self.counts(address):
            rate = self._rate(Limit.AUTH_FAILURES)
            self._tables[Limit.AUTH_FAILURES].take(address_key(address), rate, self._now())

    # -- the desk -------------------------------------------------------------------------------------------------

    def begins_call(self, caller: Caller) -> Verdict:
        """Count a new call, by its address and by its key; one that is refused by either costs neither."""
        claims = (
            self._by_address(Limit.CALLS_PER_ADDRESS, caller.address),
            self._by_key(Limit.CALLS_PER_KEY, caller.identity),
        )
        verdict = self._judge(*claims)
        if verdict.refusal is None:
            for limit, key, rate in (claim for claim in claims if claim is not None):
                self.shared.note_begun(f"{limit} {key}", 1 / rate.per_second)
        return verdict

    def charge(self, name: str, owed_seconds: float) -> None:
        """Count calls that began on another node; ``name`` and seconds as that one noted them."""
        limit, _, key = name.partition(" ")
        if limit in _OF_CALLS:
            kind = Limit(limit)
            window_seconds = self._rate(kind).window_seconds
            self._tables[kind].charge(key, owed_seconds, self._now(), window_seconds=window_seconds)

    def holder(self, caller: Caller) -> str | None:
        """Return under which name the caller's open calls are counted; None when they aren't."""
        if caller.identity.key_id != ANONYMOUS.key_id:
            return f"key {caller.identity.key_id}"
        return f"address {address_key(caller.address)}" if self.counts(caller.address) else None

    def has_too_many(self, caller: Caller, open_calls: int) -> Refusal | None:
        """Return why a caller who has so many open calls here gets no other one; None when they may."""
        holder = self.holder(caller)
        open_calls += 0 if holder is None else self.shared.calls_elsewhere(holder)
        own = caller.identity.quotas.max_calls
        allowed = self._settings.now.limits.max_calls_per_key if own is None else own
        if open_calls < allowed:
            return None
        self._on_hit(Limit.CALLS_AT_ONCE)
        error = TooManyCallsError(
            f"{open_calls} calls are open, of {allowed} at once; end one of them first."
        )
        return Refusal(error=error, headers=(retry_after_field(FULL_RETRY_SECONDS),))

    # -- counting -------------------------------------------------------------------------------------------------

    def counts(self, address: str) -> bool:
        """Whether the address is one that says who comes, and not one that stands for everybody."""
        return not lies_in(address, _networks(self._settings.now.limits.uncounted_networks))

    def _by_address(self, limit: Limit, address: str) -> "_Claim | None":
        return (limit, address_key(address), self._rate(limit)) if self.counts(address) else None

    def _by_key(self, limit: Limit, identity: Identity) -> "_Claim | None":
        if identity.key_id == ANONYMOUS.key_id:
            return None
        return limit, identity.key_id, self._rate_of_key(limit, identity)

    def _judge(self, *claims: "_Claim | None") -> Verdict:
        """Take from every bucket, or from none."""
        now = self._now()
        made = [claim for claim in claims if claim is not None]
        for limit, key, rate in made:
            outcome = self._tables[limit].look(key, rate, now)
            if not outcome.is_granted:
                self._on_hit(limit)
                return _refused(Counted(limit, rate, outcome))
        counted = [
            Counted(limit, rate, self._tables[limit].take(key, rate, now)) for limit, key, rate in made
        ]
        return Verdict(headers=rate_limit_fields(*counted)) if counted else PASS

    def _rate(self, limit: Limit) -> Rate:
        limits = self._settings.now.limits
        match limit:
            case Limit.REQUESTS_PER_ADDRESS:
                per_second, burst = limits.requests_per_second_per_address, limits.requests_burst_per_address
            case Limit.REQUESTS_PER_KEY:
                per_second, burst = limits.requests_per_second_per_key, limits.requests_burst_per_key
            case Limit.CALLS_PER_ADDRESS:
                per_second, burst = (
                    limits.calls_per_minute_per_address / MINUTES,
                    limits.calls_burst_per_address,
                )
            case Limit.CALLS_PER_KEY:
                per_second, burst = limits.calls_per_minute_per_key / MINUTES, limits.calls_burst_per_key
            case _:
                per_second, burst = limits.auth_failures_per_minute / MINUTES, limits.auth_failures_burst
        return Rate(per_second=per_second, burst=burst)

    def _rate_of_key(self, limit: Limit, identity: Identity) -> Rate:
        """Return the key's own rate where it has one, with a burst in proportion."""
        usual = self._rate(limit)
        quotas = identity.quotas
        if limit in _OF_CALLS:
            own = None if quotas.calls_per_minute is None else quotas.calls_per_minute / MINUTES
        else:
            own = quotas.requests_per_second
        if own is None:
            return usual
        if not own:
            return _NOTHING
        return Rate(per_second=own, burst=max(1.0, usual.burst * own / usual.per_second))


_Claim = tuple[Limit, str, Rate]


def _refused(counted: Counted) -> Verdict:
    seconds = counted.outcome.retry_after_seconds
    error = RateLimitedError(f"Too many {_WHAT[counted.limit]}; come again when Retry-After says.")
    return Verdict(
        refusal=Refusal(error=error, headers=(retry_after_field(seconds),)),
        headers=rate_limit_fields(counted),
    )


_WHAT: Final = {
    Limit.REQUESTS_PER_ADDRESS: "requests came from this address",
    Limit.REQUESTS_PER_KEY: "requests were made with this key",
    Limit.CALLS_PER_ADDRESS: "calls were begun from this address",
    Limit.CALLS_PER_KEY: "calls were begun with this key",
}
