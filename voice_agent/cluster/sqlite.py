"""SqliteDirectory: the nodes of one machine, in the file in which they keep their sessions."""

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from time import time

from voice_agent.cluster.beat import Beat, Sighting, dump_beat, load_beat
from voice_agent.session.store.sqlite import SqliteStore


class SqliteDirectory:
    """A :class:`~voice_agent.cluster.directory.Directory`; all who use the file have the clock of their machine."""

    def __init__(self, store: SqliteStore, now: Callable[[], float] = time) -> None:
        self._store = store
        self._now = now

    async def put(self, beat: Beat) -> None:
        """As the protocol says."""
        await self._store.change(partial(_put, beat=beat, now=self._now()))

    async def beats(self, *, gone_seconds: float) -> Sequence[Sighting]:
        """As the protocol says; old ones are passed over here, and removed by the next put."""
        return await self._store.look(partial(_beats, now=self._now(), gone_seconds=gone_seconds))

    async def remove(self, node: str) -> None:
        """As the protocol says."""
        await self._store.change(partial(_remove, node=node))


FORGOTTEN_AFTER_SECONDS = 3600.0


def _put(connection: sqlite3.Connection, beat: Beat, now: float) -> None:
    connection.execute("DELETE FROM nodes WHERE put_at < ?", (now - FORGOTTEN_AFTER_SECONDS,))
    connection.execute("INSERT OR REPLACE INTO nodes VALUES (?, ?, ?)", (beat.node, now, dump_beat(beat)))


def _beats(connection: sqlite3.Connection, now: float, gone_seconds: float) -> tuple[Sighting, ...]:
    rows = connection.execute(
        "SELECT beat, put_at FROM nodes WHERE put_at > ? ORDER BY node", (now - gone_seconds,)
    )
    return tuple(Sighting(beat=load_beat(text), age_seconds=max(0.0, now - put_at)) for text, put_at in rows)


def _remove(connection: sqlite3.Connection, node: str) -> None:
    connection.execute("DELETE FROM nodes WHERE node = ?", (node,))
