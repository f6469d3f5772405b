"""Directory: where nodes leave their beats and find those of the others; it stands where the sessions are kept."""

from collections.abc import Sequence
from typing import Protocol

from voice_agent.cluster.beat import Beat, Sighting


class Directory(Protocol):
    """Keeps the last beat of each node.

    Every method may raise :class:`StoreUnavailableError`: it could not be done now. Ages are by one clock, the
    directory's, so that machines whose clocks differ don't take each other for gone.
    """

    async def put(self, beat: Beat) -> None:
        """Put a node's beat in the place of its last one."""
        ...

    async def beats(self, *, gone_seconds: float) -> Sequence[Sighting]:
        """Return the beats that are younger, in the order of the nodes' names; those that are older are forgotten."""
        ...

    async def remove(self, node: str) -> None:
        """Forget a node, which says goodbye."""
        ...
