"""Quotas of a key hold over all nodes, but for what began elsewhere within the last two beats."""

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.access.caller import Caller
from voice_agent.access.limiter import Limiter
from voice_agent.cluster.beat import NodeState
from voice_agent.cluster.membership import Membership, MembershipHooks, Report
from voice_agent.cluster.memory import MemoryDirectory
from voice_agent.core.identity import Identity, Quotas, Scope
from voice_agent.core.limits import Limit
from voice_agent.session.registry import CallRegistry
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import LimitsSettings, Settings

SETTINGS = Settings(
    limits=LimitsSettings(max_calls_per_key=3, calls_per_minute_per_key=60, calls_burst_per_key=6)
)
CLUSTER = SETTINGS.cluster
ROUNDING = 1e-6
WITHIN_SECONDS = 2 * CLUSTER.beat_seconds
"""When what begins at one node is known to all: its next beat, and theirs."""
KIOSK = Caller(Identity(key_id="kiosk", tenant="t", scopes=frozenset(Scope)), "192.0.2.7")
OTHER = Caller(Identity(key_id="other", tenant="t", scopes=frozenset(Scope)), "192.0.2.8")


@attrs.define
class Node:
    """What of a node counts calls."""

    limiter: Limiter
    registry: CallRegistry
    exits: ExitStack = attrs.field(factory=ExitStack)

    def begins(self, caller: Caller = KIOSK) -> bool:
        """Begin a call that goes on, as the desk would."""
        holder = self.limiter.holder(caller)
        assert holder is not None
        if self.limiter.has_too_many(caller, self.registry.held_by(holder)) is not None:
            return False
        if self.limiter.begins_call(caller).refusal is not None:
            return False
        self.exits.enter_context(self.registry.place(holder))
        return True

    def begin_all(self, tries: int = 20, caller: Caller = KIOSK) -> int:
        """Try often, end what began at once; return how many began."""
        begun = 0
        for _ in range(tries):
            begun += self.begins(caller)
            self.exits.close()
        return begun


@asynccontextmanager
async def nodes(*names: str) -> AsyncIterator[list[Node]]:
    directory = MemoryDirectory()
    made = []
    async with trio.open_nursery() as nursery:
        for name in names:
            node = Node(Limiter(CurrentSettings(SETTINGS), on_hit=lambda _limit: None), CallRegistry(100))
            membership = Membership(
                name,
                directory,
                CLUSTER,
                report=lambda node=node: Report(
                    state=NodeState.OPEN,
                    capacity=100,
                    calls=len(node.registry),
                    load=0,
                    calls_held=node.registry.held(),
                ),
                hooks=MembershipHooks(on_owed=node.limiter.charge),
            )
            node.limiter.shared = membership
            await nursery.start(membership.run)
            # So that the nodes' beats don't fall together.
            await trio.sleep(CLUSTER.beat_seconds / len(names))
            made.append(node)
        await trio.sleep(WITHIN_SECONDS)
        yield made
        nursery.cancel_scope.cancel()


async def test_calls_at_once_hold_exactly_when_others_have_heard(autojump_clock: MockClock) -> None:
    """Three are allowed, over all nodes together; when one ends somewhere, another may begin anywhere."""
    async with nodes("a", "b", "c") as [a, b, c]:
        assert a.begins()
        await trio.sleep(WITHIN_SECONDS)
        assert b.begins()
        await trio.sleep(WITHIN_SECONDS)
        assert c.begins()
        await trio.sleep(WITHIN_SECONDS)
        assert not any(node.begins() for node in (a, b, c))
        assert a.begins(OTHER)
        b.exits.close()
        await trio.sleep(WITHIN_SECONDS)
        assert a.begins()
        await trio.sleep(WITHIN_SECONDS)
        assert not any(node.begins() for node in (a, b, c))


async def test_the_error_is_what_began_elsewhere_within_two_beats(autojump_clock: MockClock) -> None:
    """In the same moment every node gives all that is allowed, and no more; two beats later none gives anything."""
    async with nodes("a", "b", "c") as group:
        for node in group:
            assert [node.begins() for _ in range(4)] == [True, True, True, False]
        await trio.sleep(WITHIN_SECONDS)
        assert not any(node.begins() for node in group)


async def test_new_calls_per_minute_hold_over_nodes(autojump_clock: MockClock) -> None:
    """A burst that one node gave is gone at the others two beats later; what comes back comes back once for all."""
    async with nodes("a", "b") as [a, b]:
        begun = a.begin_all()
        assert begun == 6
        began_at = trio.current_time()
        for node in (b, a, b):
            await trio.sleep(WITHIN_SECONDS)
            begun += node.begin_all()
            # A second gives one call back. What began elsewhere counts from when it is heard of, so never too little.
            back = trio.current_time() - began_at
            assert 6 < begun <= 6 + back + ROUNDING
        assert b.begin_all(caller=OTHER) == 6
        await trio.sleep(600)
        assert a.begin_all() == 6


async def test_a_burst_at_every_node_is_no_debt_for_ever(autojump_clock: MockClock) -> None:
    """Whoever took the burst at each of two nodes in one moment owes one burst at most: it is back in its usual time."""
    async with nodes("a", "b") as group:
        assert [node.begin_all() for node in group] == [6, 6]
        await trio.sleep(WITHIN_SECONDS + 6 + ROUNDING)
        assert group[0].begin_all() == 6


@pytest.mark.parametrize("limit", [Limit.REQUESTS_PER_KEY, Limit.AUTH_FAILURES])
def test_other_limits_are_each_node_s_own(limit: Limit) -> None:
    """What a beat says of a limit that is not shared, or of none that there is, changes nothing."""
    limiter = Limiter(CurrentSettings(SETTINGS), on_hit=lambda _limit: None, now=lambda: 1000.0)
    limiter.charge(f"{limit} kiosk", 1e9)
    limiter.charge("nonsense", 1e9)
    assert limiter.begins_call(KIOSK).refusal is None


async def test_a_key_s_own_quota_is_shared_too(autojump_clock: MockClock) -> None:
    """It is smaller than the setting, and counted in its own rate."""
    own = Caller(
        attrs.evolve(KIOSK.identity, quotas=Quotas(max_calls=10, calls_per_minute=10)), KIOSK.address
    )
    async with nodes("a", "b") as [a, b]:
        assert a.begin_all(caller=own) == 1
        await trio.sleep(WITHIN_SECONDS)
        assert b.begin_all(caller=own) == 0
        await trio.sleep(6)
        assert b.begin_all(caller=own) == 1
