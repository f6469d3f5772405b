"""A node among others: it beats, it listens, and what it says of them is never older than it may be."""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.cluster.beat import Beat, NodeState, Sighting
from voice_agent.cluster.membership import GOODBYE_SECONDS, Membership, MembershipHooks, Report
from voice_agent.cluster.memory import MemoryDirectory
from voice_agent.cluster.names import tag_of
from voice_agent.core.errors import StoreUnavailableError
from voice_agent.settings.schema import ClusterSettings

MakeBeat = Callable[..., Beat]

SETTINGS = ClusterSettings()


class ShakyDirectory(MemoryDirectory):
    """One that can be away, or hang."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.hangs = False

    async def put(self, beat: Beat) -> None:
        await self._work()
        await super().put(beat)

    async def beats(self, *, gone_seconds: float) -> Sequence[Sighting]:
        await self._work()
        return await super().beats(gone_seconds=gone_seconds)

    async def remove(self, node: str) -> None:
        await self._work()
        await super().remove(node)

    async def _work(self) -> None:
        if self.hangs:
            await trio.sleep_forever()
        if self.is_away:
            raise StoreUnavailableError("away")


@attrs.define
class Node:
    """A membership, and what its hooks were told."""

    name: str
    directory: MemoryDirectory
    settings: ClusterSettings = SETTINGS
    calls: dict[str, int] = attrs.field(factory=dict)
    beats: list[bool] = attrs.field(factory=list)
    nodes: list[int] = attrs.field(factory=list)
    owed: list[tuple[str, float]] = attrs.field(factory=list)
    membership: Membership = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.membership = Membership(
            self.name,
            self.directory,
            self.settings,
            report=lambda: Report(
                state=NodeState.OPEN,
                capacity=10,
                calls=sum(self.calls.values()),
                load=0.5,
                calls_held=self.calls,
            ),
            hooks=MembershipHooks(
                on_beat=self.beats.append,
                on_nodes=self.nodes.append,
                on_owed=lambda name, seconds: self.owed.append((name, seconds)),
            ),
        )

    @property
    def others(self) -> list[str]:
        return [sighting.beat.node for sighting in self.membership.others]


@pytest.fixture
def directory() -> ShakyDirectory:
    return ShakyDirectory()


async def test_nodes_see_each_other_and_their_end(
    autojump_clock: MockClock, directory: ShakyDirectory, nursery: trio.Nursery
) -> None:
    """Each is found by name and by tag within a beat; who ends says goodbye and is gone with the next."""
    one, other = Node("one", directory), Node("other", directory)
    life = trio.CancelScope()

    async def live() -> None:
        with life:
            await other.membership.run()

    await nursery.start(one.membership.run)
    nursery.start_soon(live)
    await trio.sleep(SETTINGS.beat_seconds * 1.5)
    assert one.others == ["other"]
    found = one.membership.find("other")
    assert found is not None
    assert found == one.membership.find_by_tag(tag_of("other"))
    assert (found.capacity, found.load) == (10, 0.5)
    assert one.membership.find("one") is None
    assert one.membership.find("third") is None
    life.cancel()
    await trio.sleep(SETTINGS.beat_seconds)
    assert one.others == []
    assert one.nodes[-2:] == [2, 1]
    nursery.cancel_scope.cancel()


async def test_who_is_killed_is_gone_in_its_time(
    autojump_clock: MockClock, directory: ShakyDirectory, nursery: trio.Nursery
) -> None:
    """Without a goodbye a node is seen for as long as it may be silent, and not longer."""
    one, other = Node("one", directory), Node("other", directory)
    await other.membership.beat()
    await nursery.start(one.membership.run)
    await trio.sleep(SETTINGS.gone_seconds - 0.1)
    assert one.others == ["other"]
    await trio.sleep(0.2)
    assert one.others == []
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("trouble", ["is_away", "hangs"])
async def test_an_outage_of_the_directory_is_survived(
    autojump_clock: MockClock, directory: ShakyDirectory, nursery: trio.Nursery, trouble: str
) -> None:
    """Beating goes on; others stay known until they would be gone; then the node is alone, and knows it. It comes back."""
    one, other = Node("one", directory), Node("other", directory)
    await nursery.start(other.membership.run)
    await nursery.start(one.membership.run)
    setattr(directory, trouble, True)
    await trio.sleep(SETTINGS.gone_seconds - 0.1)
    assert one.others == ["other"]
    assert not one.membership.is_away
    await trio.sleep(SETTINGS.gone_seconds)
    assert one.others == []
    assert one.membership.is_away
    assert False in one.beats
    setattr(directory, trouble, False)
    await trio.sleep(SETTINGS.gone_seconds)
    assert one.others == ["other"]
    assert not one.membership.is_away
    nursery.cancel_scope.cancel()


async def test_saying_goodbye_holds_up_no_end(
    autojump_clock: MockClock, directory: ShakyDirectory, nursery: trio.Nursery
) -> None:
    """A directory that hangs costs a second at the end."""
    one = Node("one", directory)
    await nursery.start(one.membership.run)
    directory.hangs = True
    began_at = trio.current_time()
    with trio.move_on_after(3 * SETTINGS.beat_seconds):
        await Node("two", directory).membership.run()
    assert trio.current_time() - began_at <= 3 * SETTINGS.beat_seconds + GOODBYE_SECONDS
    nursery.cancel_scope.cancel()


async def test_calls_begun_elsewhere_are_heard_of_once(
    autojump_clock: MockClock, directory: ShakyDirectory, nursery: trio.Nursery
) -> None:
    """Each exactly once, whatever beats are missed, and with the next two beats at the latest; what went before, never."""
    one, other = Node("one", directory), Node("other", directory)
    other.membership.note_begun("calls_per_key k", 1.0)
    await nursery.start(other.membership.run)
    await nursery.start(one.membership.run)
    assert one.owed == []
    other.membership.note_begun("calls_per_key k", 2.0)
    await trio.sleep(2 * SETTINGS.beat_seconds)
    assert one.owed == [("calls_per_key k", 2.0)]
    directory.is_away = True
    other.membership.note_begun("calls_per_key k", 2.0)
    other.membership.note_begun("calls_per_key l", 3.0)
    await trio.sleep(2 * SETTINGS.gone_seconds)
    directory.is_away = False
    await trio.sleep(2 * SETTINGS.beat_seconds)
    assert sorted(one.owed[1:]) == [("calls_per_key k", 2.0), ("calls_per_key l", 3.0)]
    await trio.sleep(5 * SETTINGS.beat_seconds)
    assert len(one.owed) == 3
    assert other.owed == []
    nursery.cancel_scope.cancel()


async def test_open_calls_elsewhere_are_counted(
    autojump_clock: MockClock, directory: ShakyDirectory, nursery: trio.Nursery
) -> None:
    """Over all other nodes, without one's own."""
    nodes = [Node(name, directory, calls={"key k": 2}) for name in ("a", "b", "c")]
    for node in (*nodes, *nodes):
        await node.membership.beat()
    assert nodes[0].membership.calls_elsewhere("key k") == 4
    assert nodes[0].membership.calls_elsewhere("key l") == 0


@pytest.mark.parametrize(("when_away", "is_blind"), [("open", False), ("closed", True)])
async def test_the_operator_chooses_what_an_outage_means(
    autojump_clock: MockClock,
    directory: ShakyDirectory,
    nursery: trio.Nursery,
    when_away: Any,
    is_blind: bool,
) -> None:
    """Calls are counted on this node alone, or none is taken; and only when others would be gone."""
    node = Node("one", directory, ClusterSettings(when_away=when_away))
    await nursery.start(node.membership.run)
    directory.is_away = True
    await trio.sleep(SETTINGS.gone_seconds - SETTINGS.beat_seconds)
    assert not node.membership.is_blind
    await trio.sleep(2 * SETTINGS.beat_seconds)
    assert node.membership.is_blind is is_blind
    nursery.cancel_scope.cancel()
