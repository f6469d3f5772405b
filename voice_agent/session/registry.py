"""CallRegistry: the calls that are open, so that they can be counted, told of a drain, and ended by it."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from voice_agent.core.events import CloseReason, Notice
from voice_agent.session.session import Session


class CallRegistry:
    """The open calls of a process. A call is in here for exactly as long as its ``enrolled`` block."""

    def __init__(self, max_calls: int) -> None:
        self._max_calls = max_calls
        self._places_taken = 0
        self._sessions: set[Session] = set()
        self._emptied = trio.Event()
        self._all_ended_for: CloseReason | None = None

    def __len__(self) -> int:
        return self._places_taken

    @property
    def is_full(self) -> bool:
        """Whether another call would be one too many."""
        return self._places_taken >= self._max_calls

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place from the handshake on; check :attr:`is_full` first, without a checkpoint in between."""
        self._places_taken += 1
        try:
            yield
        finally:
            self._places_taken -= 1
            if not self._places_taken:
                self._emptied.set()
                self._emptied = trio.Event()

    @contextmanager
    def enrolled(self, session: Session) -> Iterator[None]:
        """Have a session told and ended by a drain."""
        self._sessions.add(session)
        if self._all_ended_for is not None:
            # Its handshake was under way when all were ended.
            session.end(self._all_ended_for)
        try:
            yield
        finally:
            self._sessions.discard(session)

    async def tell_all(self, notice: Notice) -> None:
        """Tell every call; one that does not read delays nobody."""
        async with trio.open_nursery() as nursery:
            for session in self._sessions:
                nursery.start_soon(session.tell, notice)

    def end_all(self, reason: CloseReason) -> None:
        """Decide the end of every call, and of each that is still on its way in.

        Each still finishes its last words within its finish timeout.
        """
        self._all_ended_for = reason
        for session in tuple(self._sessions):
            session.end(reason)

    async def wait_empty(self) -> None:
        """Wait until no call is open."""
        while self._places_taken:
            await self._emptied.wait()
