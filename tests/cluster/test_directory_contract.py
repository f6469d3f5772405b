"""What every directory promises."""

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import trio

from voice_agent.cluster.beat import Beat, NodeState
from voice_agent.cluster.directory import Directory

OpenDirectory = Callable[[], AbstractAsyncContextManager[Directory]]
MakeBeat = Callable[..., Beat]

A_MINUTE = 60.0


async def test_nodes_find_each_other(open_directory: OpenDirectory, make_beat: MakeBeat) -> None:
    """What one puts the other reads as it was, by name, with its age; a later beat takes the place of the one before."""
    first = make_beat(
        "b/worker-1",
        state=NodeState.DRAINING,
        advertised_url="http://10.0.0.7:8080",
        internal_address="unix:/run/b.sock",
        calls_held={"key Straße 東京": 2},
        owed_seconds={"calls_per_key k": 1.5},
    )
    async with open_directory() as one, open_directory() as other:
        await one.put(first)
        await other.put(make_beat("a"))
        await other.put(make_beat("a", calls=4))
        seen = await one.beats(gone_seconds=A_MINUTE)
        assert [sighting.beat for sighting in seen] == [make_beat("a", calls=4), first]
        assert all(0 <= sighting.age_seconds < A_MINUTE for sighting in seen)
        assert await other.beats(gone_seconds=A_MINUTE)


async def test_who_says_goodbye_is_gone(open_directory: OpenDirectory, make_beat: MakeBeat) -> None:
    """At once, for everybody; saying it twice changes nothing."""
    async with open_directory() as one, open_directory() as other:
        await one.put(make_beat("a"))
        await other.put(make_beat("b"))
        await one.remove("a")
        await one.remove("a")
        assert [sighting.beat.node for sighting in await other.beats(gone_seconds=A_MINUTE)] == ["b"]


async def test_who_tells_nothing_any_more_is_gone(open_directory: OpenDirectory, make_beat: MakeBeat) -> None:
    """After its time, by the directory's clock; and it is back with its next beat."""
    async with open_directory() as directory:
        await directory.put(make_beat("a"))
        await trio.sleep(0.05)
        await directory.put(make_beat("b"))
        [a, b] = await directory.beats(gone_seconds=A_MINUTE)
        assert a.age_seconds > b.age_seconds
        between = math.nextafter(a.age_seconds, 0)
        nodes = [sighting.beat.node for sighting in await directory.beats(gone_seconds=between)]
        assert "a" not in nodes
        await directory.put(make_beat("a"))
        assert "a" in [sighting.beat.node for sighting in await directory.beats(gone_seconds=A_MINUTE)]


async def test_nobody_is_there_at_first(open_directory: OpenDirectory) -> None:
    """An empty directory is no error."""
    async with open_directory() as directory:
        assert list(await directory.beats(gone_seconds=A_MINUTE)) == []
