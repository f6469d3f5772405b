"""``/v1/sessions``: look at calls, follow one, end one. What a session is stands behind :class:`SessionDirectory`.

Whom a request shows as its sender decides what there is: a session of a tenant that it doesn't see is answered as one
that never was.
"""

import re
from contextlib import AbstractContextManager
from datetime import datetime
from http import HTTPStatus
from typing import Final, Protocol

import attrs
from quart import Blueprint, Response, request

from voice_agent.core.errors import InvalidFieldError, SessionClosedError
from voice_agent.core.identity import Scope
from voice_agent.core.request_errors import (
    EventsGoneError,
    NodeAwayError,
    NodeSilentError,
    NotFoundError,
    NotPassedOnError,
    TooManyListenersError,
)
from voice_agent.core.transport import Wire
from voice_agent.session.summary import SessionState, SessionSummary
from voice_agent.session.tap import Listener
from voice_agent.web.described import Answer, Header, Operation, described
from voice_agent.web.event_stream import EVENT_STREAM_TYPE, SERVER_SENT_EVENT, EventStream
from voice_agent.web.json_answers import json_answer
from voice_agent.web.query import parameter, read_query
from voice_agent.web.scopes import needs
from voice_agent.web.sender import Sender, sender
from voice_agent.web.session_cursor import MAX_CHARACTERS, PATTERN

PATH: Final = "/v1/sessions"
MAX_LIMIT: Final = 200
_EVENT_NUMBER: Final = re.compile(r"(0|[1-9][0-9]{0,17})?", re.ASCII)
"""Empty where a client has had no event yet."""
_TAG: Final = "sessions"
ELSEWHERE: Final = (NodeAwayError, NodeSilentError, NotPassedOnError)
"""What a request about a session can be answered with because another node has it."""


@attrs.frozen(kw_only=True)
class SessionQuery:
    """Which sessions are wanted."""

    key: str | None = parameter(None, "Only calls of this key or token subject.", minimum=1, maximum=256)
    wire: Wire | None = parameter(None, "Only calls that came this way.")
    state: SessionState | None = parameter(
        None, "Only sessions in this state; without it those that are not over yet."
    )
    opened_since: datetime | None = parameter(None, "Only sessions that were opened then or later.")
    limit: int = parameter(50, "How many at most.", minimum=1, maximum=MAX_LIMIT)
    cursor: str | None = parameter(
        None, "The `next` of the page before.", minimum=3, maximum=MAX_CHARACTERS, pattern=PATTERN
    )

    def admits(self, summary: SessionSummary) -> bool:
        """Whether a session is wanted."""
        return (
            (self.key is None or summary.key == self.key)
            and (self.wire is None or summary.wire is self.wire)
            and (
                summary.state is not SessionState.ENDED if self.state is None else summary.state is self.state
            )
            and (self.opened_since is None or summary.opened_at >= self.opened_since)
        )


@attrs.frozen(kw_only=True)
class SessionPage:
    """Some sessions, the newest first."""

    sessions: tuple[SessionSummary, ...]
    next: str | None
    """The cursor of the next page; None on the last one."""
    silent_nodes: tuple[str, ...] = ()
    """Nodes that should have been asked and did not answer: their sessions are missing."""


class SessionDirectory(Protocol):
    """The sessions of a server, as somebody may see them."""

    def page(self, who: Sender, query: SessionQuery) -> SessionPage:
        """Return a page of the sessions that are wanted."""
        ...

    def find(self, who: Sender, session_id: str) -> SessionSummary:
        """Return a session that is open, or ended a short while ago.

        Raises:
            NotFoundError: there is none that ``who`` sees.
        """
        ...

    def end(self, who: Sender, session_id: str) -> SessionSummary:
        """End a session in order, and return it; one that has ended already is left as it is.

        Raises:
            NotFoundError: there is none that ``who`` sees.
        """
        ...

    def listen(self, who: Sender, session_id: str, after: int | None) -> AbstractContextManager[Listener]:
        """Return what listens to a session's events when it is entered; what it raises then is raised here too.

        Raises:
            NotFoundError: there is none that ``who`` sees.
            SessionClosedError: it has ended.
            TooManyListenersError: as many as may listen already.
            EventsGoneError: events behind ``after`` are no longer kept.
        """
        ...


@attrs.frozen
class SessionRoutes:
    """The requests that a directory answers; :func:`create_session_routes` gives them their addresses."""

    directory: SessionDirectory

    @described(
        Operation(
            summary="List sessions, the newest first.",
            tag=_TAG,
            query=SessionQuery,
            answers=(Answer(why="A page of sessions.", body=SessionPage),),
            errors=(InvalidFieldError,),
        )
    )
    async def list_sessions(self) -> Response:
        """Answer with a page."""
        query = read_query(SessionQuery, request.args.items(multi=True))
        return json_answer(self.directory.page(sender(), query))

    @described(
        Operation(
            summary="Look at one session; after its end too, for ten minutes at most.",
            tag=_TAG,
            answers=(Answer(why="The session.", body=SessionSummary),),
            errors=(NotFoundError, *ELSEWHERE),
        )
    )
    async def show(self, session_id: str) -> Response:
        """Answer with one session."""
        return json_answer(self.directory.find(sender(), session_id))

    @described(
        Operation(
            summary="End a session: what was said is recognised and told, then it is closed.",
            tag=_TAG,
            answers=(
                Answer(
                    why="Its end is decided; the caller is closed with the reason `ended_by_operator`.",
                    status=HTTPStatus.ACCEPTED,
                    body=SessionSummary,
                ),
                Answer(why="It had ended already.", status=HTTPStatus.NO_CONTENT),
            ),
            errors=(NotFoundError, *ELSEWHERE),
        )
    )
    async def end(self, session_id: str) -> Response:
        """End one session."""
        summary = self.directory.end(sender(), session_id)
        if summary.state is SessionState.ENDED:
            response = Response("", status=HTTPStatus.NO_CONTENT)
            del response.headers["Content-Type"]
            return response
        return json_answer(summary, HTTPStatus.ACCEPTED)

    @described(
        Operation(
            summary="Follow a session: its events as they are told to the caller, as server-sent events.",
            tag=_TAG,
            headers=(
                Header(
                    name="Last-Event-ID",
                    why="The `seq` of the last event that is known; those behind it come first.",
                    schema={"type": "string", "pattern": f"^{_EVENT_NUMBER.pattern}$"},
                ),
            ),
            answers=(
                Answer(
                    why="WHATWG server-sent events: `id` is the event's `seq`, `event` its `type`, `data` the JSON "
                    "of the protocol. Without the scope `admin`, transcripts come without their words.",
                    body=SERVER_SENT_EVENT,
                    content_type=EVENT_STREAM_TYPE,
                ),
            ),
            errors=(
                InvalidFieldError,
                NotFoundError,
                SessionClosedError,
                EventsGoneError,
                TooManyListenersError,
                *ELSEWHERE,
            ),
        )
    )
    async def follow(self, session_id: str) -> Response:
        """Answer with a stream that ends when the session does."""
        who = sender()
        listening = self.directory.listen(who, session_id, _last_event_id())
        response = Response("", content_type=EVENT_STREAM_TYPE)
        response.headers["Cache-Control"] = "no-store"
        # Some reverse proxies collect an answer before they pass it on, unless they are told not to.
        response.headers["X-Accel-Buffering"] = "no"
        if request.method != "HEAD":
            response.response = EventStream(listening, with_words=who.identity.may(Scope.ADMIN))
            del response.headers["Content-Length"]
            response.timeout = None
        return response


def create_session_routes(directory: SessionDirectory) -> Blueprint:
    """Make the routes."""
    answers = SessionRoutes(directory)
    routes = Blueprint("sessions", __name__)
    one = f"{PATH}/<session_id>"
    for path, method, view, scope in (
        (PATH, "GET", answers.list_sessions, Scope.OBSERVE),
        (one, "GET", answers.show, Scope.OBSERVE),
        (one, "DELETE", answers.end, Scope.ADMIN),
        (f"{one}/events", "GET", answers.follow, Scope.OBSERVE),
    ):
        routes.add_url_rule(path, f"{method} {path}", needs(scope)(view), methods=[method])
    return routes


def _last_event_id() -> int | None:
    text = request.headers.get("Last-Event-ID", "")
    if not _EVENT_NUMBER.fullmatch(text):
        raise InvalidFieldError("Last-Event-ID is the seq of an event, a whole number", field="Last-Event-ID")
    return int(text) if text else None
