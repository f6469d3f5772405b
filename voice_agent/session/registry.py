"""CallRegistry: the calls that are open, so that they can be counted, found, told of a drain, and ended by it.

Of those that have ended the last few are remembered for a short while, so that who looks for one is told how it ended.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import attrs
import trio

from voice_agent.core.events import CloseReason, Notice
from voice_agent.core.identity import Identity
from voice_agent.core.units import MINUTES
from voice_agent.session.session import Session
from voice_agent.session.summary import SessionSummary, summarise

REMEMBERED_ENDED: Final = 200
REMEMBERED_SECONDS: Final = 10 * MINUTES


@attrs.frozen
class _Ended:
    number: int
    """Its place in the order in which calls were opened."""
    summary: SessionSummary
    forgotten_at: float


@attrs.define(eq=False)
class Place:
    """What a call holds from its handshake to its end."""

    registry: "CallRegistry"
    session: Session | None = None
    number: int = 0
    replaces: str | None = None
    """The session whose former connection gives its place to this one."""

    def hold(self, session: Session) -> None:
        """Have the session found, told and ended; until the place is left, when it is over."""
        self.registry.end_replacing(self.replaces)
        self.session = session
        self.number = self.registry.enrol(session)


class CallRegistry:
    """The open calls of a process. A call is in here for exactly as long as its ``place`` block."""

    def __init__(self, max_calls: int | Callable[[], int], *, node: str = "") -> None:
        """``max_calls`` may be a function, which is asked whenever it matters; ``node`` is whose calls these are."""
        self._node = node
        self._max_calls = max_calls if callable(max_calls) else lambda: max_calls
        self._places_taken = 0
        self._held_by: Counter[str] = Counter()
        self._calls_enrolled = 0
        self._sessions: dict[int, Session] = {}
        self._ended: deque[_Ended] = deque(maxlen=REMEMBERED_ENDED)
        self._emptied = trio.Event()
        self._replaced: set[str] = set()
        self._receptions: set[trio.CancelScope] = set()
        self._all_told: Callable[[], Notice] | None = None
        self._all_ended: Callable[[Session], None] | None = None

    def __len__(self) -> int:
        return self._places_taken

    @property
    def is_full(self) -> bool:
        """Whether another call would be one too many."""
        return self._places_taken >= self._max_calls()

    def held_by(self, holder: str) -> int:
        """Return how many places somebody holds."""
        return self._held_by[holder]

    def held(self) -> Mapping[str, int]:
        """Return how many places everybody holds who holds any."""
        return dict(self._held_by)

    @contextmanager
    def place(self, holder: str | None = None, *, replaces: str | None = None) -> Iterator[Place]:
        """Hold a place from the handshake on; check :attr:`is_full` first, without a checkpoint in between.

        ``holder`` is under which name it is counted, if it is. ``replaces`` is a session that goes on here: see
        :meth:`may_replace`.
        """
        self._places_taken += 1
        if holder is not None:
            self._held_by[holder] += 1
        place = Place(self, replaces=replaces)
        if replaces is not None:
            self._replaced.add(replaces)
        try:
            yield place
        finally:
            self.end_replacing(replaces)
            if place.session is not None:
                self._forget(place.number, place.session)
            self._places_taken -= 1
            if holder is not None:
                self._held_by[holder] -= 1
                if not self._held_by[holder]:
                    del self._held_by[holder]
            if not self._places_taken:
                self._emptied.set()
                self._emptied = trio.Event()

    def enrol(self, session: Session) -> int:
        """Return the session's number, which counts from 1; used by :meth:`Place.hold`."""
        self._calls_enrolled += 1
        self._sessions[self._calls_enrolled] = session
        if session.is_resumed:
            self._ended = deque(
                (one for one in self._ended if one.summary.id != session.id), maxlen=REMEMBERED_ENDED
            )
        # Its handshake may have been under way when all were told, or ended.
        if self._all_told is not None:
            session.tell_soon(self._all_told())
        if self._all_ended is not None:
            self._all_ended(session)
        return self._calls_enrolled

    @contextmanager
    def reception(self) -> Iterator[trio.CancelScope]:
        """Wait in the block for what a caller says first; cancelled when all are told something, or ended."""
        with trio.CancelScope() as scope:
            if self._all_told is not None or self._all_ended is not None:
                scope.cancel()
            self._receptions.add(scope)
            try:
                yield scope
            finally:
                self._receptions.discard(scope)

    def may_replace(self, session_id: str | None, identity: Identity) -> bool:
        """Whether a session of the identity has a connection here, which nobody else is about to replace.

        One that does takes its place, so that a caller who has as many calls as allowed can come back.
        """
        session = None if session_id is None else self.find(session_id)
        return (
            session is not None and session.identity.is_same_as(identity) and session_id not in self._replaced
        )

    def end_replacing(self, session_id: str | None) -> None:
        """The session has its new connection, or there was none."""
        if session_id is not None:
            self._replaced.discard(session_id)

    def give_way(self, session_id: str) -> None:
        """End the connections that had a session which goes on with another one."""
        for session in tuple(self._sessions.values()):
            if session.id == session_id:
                session.give_way()

    def _end_receptions(self) -> None:
        for scope in tuple(self._receptions):
            scope.cancel()

    def _forget(self, number: int, session: Session) -> None:
        del self._sessions[number]
        session.tap.close()
        if self.find(session.id) is not None:
            return  # it goes on with another connection
        summary = summarise(session, node=self._node, ended_at=datetime.now(UTC))
        self._ended.append(_Ended(number, summary, trio.current_time() + REMEMBERED_SECONDS))

    def find(self, session_id: str) -> Session | None:
        """Return the open session with the id; of two connections, the one that has it now."""
        sessions = reversed(self._sessions.values())
        return next((session for session in sessions if session.id == session_id), None)

    def find_summary(self, session_id: str) -> SessionSummary | None:
        """Return what is to be seen of a session that is open, or ended a short while ago."""
        session = self.find(session_id)
        if session is not None:
            return summarise(session, node=self._node)
        return next((one.summary for one in self._remembered() if one.summary.id == session_id), None)

    def summaries(self) -> Iterator[SessionSummary]:
        """Every session that is open or remembered, the one that was opened last first.

        Made one by one, as they are asked for; don't wait in between.
        """
        ended = {one.number: one.summary for one in self._remembered()}
        for number in sorted({*self._sessions, *ended}, reverse=True):
            yield ended.get(number) or summarise(self._sessions[number], node=self._node)

    def _remembered(self) -> Iterator[_Ended]:
        now = trio.current_time()
        while self._ended and self._ended[0].forgotten_at <= now:
            self._ended.popleft()
        return iter(self._ended)

    async def tell_all(self, make_notice: Callable[[], Notice]) -> None:
        """Tell every call, and each that comes later, what is made then; one that does not read delays nobody."""
        self._all_told = make_notice
        self._end_receptions()
        async with trio.open_nursery() as nursery:
            for session in tuple(self._sessions.values()):
                nursery.start_soon(session.tell, make_notice())

    def end_all(
        self, reason: CloseReason, *, finish_seconds: float = math.inf, close_seconds: float = math.inf
    ) -> None:
        """Decide the end of every call, and of each that is still on its way in.

        Each still finishes its last words within its finish timeout, and is closed within its close timeout; or
        within the given seconds, where they are less.
        """

        def end(session: Session) -> None:
            session.hurry(finish_seconds=finish_seconds, close_seconds=close_seconds)
            session.end(reason)

        self._all_ended = end
        self._end_receptions()
        for session in tuple(self._sessions.values()):
            end(session)

    async def wait_empty(self) -> None:
        """Wait until no call is open."""
        while self._places_taken:
            await self._emptied.wait()
