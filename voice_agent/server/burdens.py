"""Burdens: how much each worker has to do, for the others to see, so that a new call goes to the one with least.

A mapped file with one number a worker; a write is one store of eight bytes. Nobody asks anybody and nobody waits.
"""

import mmap
import struct
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from voice_agent.core.worker import WorkerPlace

FILE_NAME: Final = "burdens"
NOBODY: Final = float(2**40)
"""The burden of a place whose worker takes no calls: it is starting, stopping, or gone."""
UNWILLING: Final = float(2**30)
"""Added by a worker that would refuse a call, so that each of the others goes first."""

_NUMBER: Final = struct.Struct("=d")


class Burdens:
    """The numbers of all workers; each writes its own, the supervisor those of the dead."""

    def __init__(self, folder: Path, count: int, *, create: bool = False) -> None:
        size = count * _NUMBER.size
        with (folder / FILE_NAME).open("x+b" if create else "r+b") as file:
            if create:
                file.write(_NUMBER.pack(NOBODY) * count)
                file.flush()
            self._map = mmap.mmap(file.fileno(), size)
        self._count = count

    @classmethod
    def of(cls, place: WorkerPlace) -> Self:
        """Open what the supervisor has made."""
        return cls(place.folder, place.count)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map.close()

    def put(self, number: int, burden: float) -> None:
        """Say what worker ``number`` has to do."""
        _NUMBER.pack_into(self._map, (number - 1) * _NUMBER.size, burden)

    def before(self, number: int) -> int:
        """Return how many workers have less to do than worker ``number``."""
        burdens = [burden for (burden,) in _NUMBER.iter_unpack(self._map[:])]
        return sum(burden < burdens[number - 1] for burden in burdens)
