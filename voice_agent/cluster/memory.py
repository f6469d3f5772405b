"""MemoryDirectory: the nodes of one process, which is mostly one; for servers that keep nothing or stand alone."""

from collections.abc import Callable, Sequence

import trio

from voice_agent.cluster.beat import Beat, Sighting


class MemoryDirectory:
    """A :class:`~voice_agent.cluster.directory.Directory`; ``now`` is a clock that does not go back."""

    def __init__(self, now: Callable[[], float] = trio.current_time) -> None:
        self._now = now
        self._beats: dict[str, tuple[Beat, float]] = {}

    async def put(self, beat: Beat) -> None:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        self._beats[beat.node] = beat, self._now()

    async def beats(self, *, gone_seconds: float) -> Sequence[Sighting]:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        now = self._now()
        self._beats = {node: held for node, held in self._beats.items() if now - held[1] < gone_seconds}
        return tuple(
            Sighting(beat=beat, age_seconds=now - put_at) for _, (beat, put_at) in sorted(self._beats.items())
        )

    async def remove(self, node: str) -> None:
        """As the protocol says."""
        await trio.lowlevel.checkpoint()
        self._beats.pop(node, None)
