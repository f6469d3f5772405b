"""Crossing: a bounded queue from the media thread to a Trio task."""

from collections import deque
from contextlib import suppress
from typing import Generic, TypeVar

import trio

_Item = TypeVar("_Item")


class Crossing(Generic[_Item]):
    """Any thread puts, one Trio run takes. Make it inside that run.

    Putting never waits: beyond ``max_items`` the oldest goes, and is counted in ``dropped``. What was put before the
    end is still taken.
    """

    def __init__(self, max_items: int) -> None:
        self.dropped = 0
        self._max_items = max_items
        self._items: deque[_Item] = deque()
        self._ended_by: Exception | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._readers = trio.lowlevel.ParkingLot()

    def put(self, item: _Item) -> None:
        """Queue an item; after the end it is ignored."""
        if self._ended_by is not None:
            return
        self._items.append(item)
        if len(self._items) > self._max_items:
            try:
                self._items.popleft()
                self.dropped += 1
            except IndexError:  # the reader took it in this moment
                pass
        self._wake_soon()

    def end(self, error: Exception) -> None:
        """Let :meth:`take` raise ``error`` once everything is taken; the first end counts."""
        if self._ended_by is None:
            self._ended_by = error
            self._wake_soon()

    async def take(self) -> _Item:
        """Return the oldest item, or raise the end."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._items:
            if self._ended_by is not None:
                await trio.lowlevel.cancel_shielded_checkpoint()
                raise self._ended_by
            await self._readers.park()
        await trio.lowlevel.cancel_shielded_checkpoint()
        return self._items.popleft()

    def _wake_soon(self) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._readers.unpark_all, idempotent=True)
