"""Administration: what operators do to the calls and to the process, each action audited."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from operator import itemgetter

import attrs

from voice_agent.core.errors import SessionClosedError
from voice_agent.core.events import CloseReason
from voice_agent.core.request_errors import NotFoundError
from voice_agent.observability.audit import Outcome, audit
from voice_agent.server.stopping import Stopping
from voice_agent.session.registry import CallRegistry
from voice_agent.session.session import Session
from voice_agent.session.summary import SessionState, SessionSummary
from voice_agent.session.tap import Listener
from voice_agent.settings.effective import EffectiveSettings
from voice_agent.web.operations_routes import DrainBegun
from voice_agent.web.sender import Sender
from voice_agent.web.session_cursor import cursor_of, place_of, read_cursor
from voice_agent.web.session_routes import SessionPage, SessionQuery


@attrs.frozen(kw_only=True)
class Administration:
    """The session directory and the server control of one server.

    ``settings`` is asked for what is in force then.
    """

    registry: CallRegistry
    stopping: Stopping
    settings: Callable[[], EffectiveSettings]

    # -- sessions -------------------------------------------------------------------------------------------------

    def page(self, who: Sender, query: SessionQuery) -> SessionPage:
        """Return a page of the sessions that are wanted and that ``who`` sees."""
        before = None if query.cursor is None else read_cursor(query.cursor)
        wanted = sorted(
            (
                (place_of(one.opened_at, one.id), one)
                for one in self.registry.summaries()
                if who.identity.sees(one.tenant) and query.admits(one)
            ),
            key=itemgetter(0),
            reverse=True,
        )
        found = [(place, one) for place, one in wanted if before is None or place < before][: query.limit + 1]
        page = found[: query.limit]
        return SessionPage(
            sessions=tuple(one for _, one in page),
            next=cursor_of(page[-1][0]) if len(found) > query.limit else None,
        )

    def find(self, who: Sender, session_id: str) -> SessionSummary:
        """Return a session that is open, or ended a short while ago.

        Raises:
            NotFoundError: there is none that ``who`` sees.
        """
        summary = self.registry.find_summary(session_id)
        if summary is None or not who.identity.sees(summary.tenant):
            raise NotFoundError("There is no such session, or it ended a while ago.")
        return summary

    def end(self, who: Sender, session_id: str) -> SessionSummary:
        """End a session in order; one that has ended already is left as it is.

        Raises:
            NotFoundError: there is none that ``who`` sees.
        """
        summary = self.find(who, session_id)
        if summary.state is SessionState.ENDED:
            return summary
        _audit(who, "session_end", session_id)
        self._open(session_id).end(CloseReason.ENDED_BY_OPERATOR)
        return self.find(who, session_id)

    def listen(self, who: Sender, session_id: str, after: int | None) -> AbstractContextManager[Listener]:
        """Return what listens to a session's events when it is entered.

        Raises:
            NotFoundError: there is none that ``who`` sees.
            SessionClosedError: it has ended.
            TooManyListenersError: as many as may listen already.
            EventsGoneError: events behind ``after`` are no longer kept.
        """
        self.find(who, session_id)
        session = self._open(session_id)
        session.tap.check(after)
        return self._audited(who, session, after)

    def _open(self, session_id: str) -> Session:
        session = self.registry.find(session_id)
        if session is None:
            raise SessionClosedError("The session has ended; there is nothing to follow any more.")
        return session

    @contextmanager
    def _audited(self, who: Sender, session: Session, after: int | None) -> Iterator[Listener]:
        with session.tap.listening(after) as listener:
            _audit(who, "session_follow", session.id)
            yield listener

    # -- the process ----------------------------------------------------------------------------------------------

    def begin_drain(self, who: Sender) -> DrainBegun:
        """Shut down as at SIGTERM, and return at once; asked again, it changes nothing."""
        _audit(who, "drain")
        self.stopping.begin("request")
        return DrainBegun(calls=len(self.registry), deadline=self.stopping.deadline_utc)

    def settings_in_force(self) -> EffectiveSettings:
        """Return the settings, redacted."""
        return self.settings()


def _audit(who: Sender, action: str, target: str = "") -> None:
    audit(actor=who.identity.key_id, action=action, outcome=Outcome.DONE, target=target, address=who.address)
