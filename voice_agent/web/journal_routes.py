"""``/v1/journals``: what is kept of calls, to be listed, read, exported and deleted.

What there is stands behind :class:`JournalDirectory`. As with live sessions, a session of a tenant that the sender doesn't see is answered as one that never was, and words need
the scope ``admin``.
"""

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Final, Protocol

import attrs
from quart import Blueprint, Response, request

from voice_agent.core.errors import InvalidFieldError
from voice_agent.core.identity import Scope
from voice_agent.core.journal import JournalEntry, RecordState
from voice_agent.core.request_errors import JournalsUnavailableError, NotFoundError, SessionRunningError
from voice_agent.web.described import Answer, Operation, described
from voice_agent.web.journal_export import EXPORT_LINE, EXPORT_TYPE, JournalExport
from voice_agent.web.journal_views import (
    EntryPage,
    KeptEntry,
    KeptPage,
    KeptSession,
    KeptTranscript,
    TranscriptFormat,
)
from voice_agent.web.json_answers import json_answer
from voice_agent.web.query import parameter, read_query
from voice_agent.web.scopes import needs
from voice_agent.web.sender import Sender, sender

PATH: Final = "/v1/journals"
MAX_LIMIT: Final = 200
MAX_ENTRIES: Final = 1000
TEXT_TYPE: Final = "text/plain; charset=utf-8"
_TAG: Final = "journals"
_CURSOR: Final = r"[0-9]{1,20}\.[0-9]{6}:[!-~]{1,128}"


@attrs.frozen(kw_only=True)
class JournalQuery:
    """Which kept sessions are wanted."""

    key: str | None = parameter(None, "Only sessions of this key or token subject.", minimum=1, maximum=256)
    state: RecordState | None = parameter(None, "Only sessions in this state.")
    limit: int = parameter(50, "How many at most.", minimum=1, maximum=MAX_LIMIT)
    cursor: str | None = parameter(
        None, "The `next` of the page before.", minimum=1, maximum=160, pattern=_CURSOR
    )


@attrs.frozen(kw_only=True)
class EntryQuery:
    """Which entries of a journal are wanted."""

    after: int = parameter(
        0, "Only entries with a higher number: the `next` of the page before.", minimum=0, maximum=2**31
    )
    limit: int = parameter(200, "How many at most.", minimum=1, maximum=MAX_ENTRIES)


@attrs.frozen(kw_only=True)
class TranscriptQuery:
    """How a transcript is wanted."""

    format: TranscriptFormat = parameter(TranscriptFormat.JSON, "As JSON, or as plain text, a final a line.")


class JournalDirectory(Protocol):
    """What is kept, as somebody may see it. Every method may raise :class:`JournalsUnavailableError`."""

    async def page(self, who: Sender, query: JournalQuery) -> KeptPage:
        """Return a page of the kept sessions that are wanted, the newest first."""
        ...

    async def find(self, who: Sender, session_id: str) -> KeptSession:
        """Return a kept session.

        Raises:
            NotFoundError: there is none that ``who`` sees.
        """
        ...

    async def page_of_entries(
        self, who: Sender, session_id: str, *, after: int, limit: int
    ) -> tuple[JournalEntry, ...]:
        """Return entries of a session, in order; audited where ``who`` may read words.

        Raises:
            NotFoundError: there is none that ``who`` sees.
        """
        ...

    async def entries(self, who: Sender, session_id: str, action: str) -> AsyncIterator[JournalEntry]:
        """Return all entries of a session, read page by page as they are asked for; audited as ``action``.

        Raises:
            NotFoundError: there is none that ``who`` sees; later on: it was deleted meanwhile.
        """
        ...

    async def delete(self, who: Sender, session_id: str) -> None:
        """Delete a session, and what stands of it in files of the store.

        Raises:
            NotFoundError: there is none that ``who`` sees.
            SessionRunningError: its call still runs.
        """
        ...


@attrs.frozen
class JournalRoutes:
    """The requests that a directory answers; :func:`create_journal_routes` gives them their addresses."""

    directory: JournalDirectory

    @described(
        Operation(
            summary="List what is kept: sessions, the newest first.",
            tag=_TAG,
            query=JournalQuery,
            answers=(Answer(why="A page of kept sessions.", body=KeptPage),),
            errors=(InvalidFieldError, JournalsUnavailableError),
        )
    )
    async def list_journals(self) -> Response:
        """Answer with a page."""
        query = read_query(JournalQuery, request.args.items(multi=True))
        return json_answer(await self.directory.page(sender(), query))

    @described(
        Operation(
            summary="Look at what is kept of one session: its record.",
            tag=_TAG,
            answers=(Answer(why="The record.", body=KeptSession),),
            errors=(NotFoundError, JournalsUnavailableError),
        )
    )
    async def show(self, session_id: str) -> Response:
        """Answer with one record."""
        return json_answer(await self.directory.find(sender(), session_id))

    @described(
        Operation(
            summary="Read a session's journal page by page; without the scope `admin`, finals come without their words.",
            tag=_TAG,
            query=EntryQuery,
            answers=(Answer(why="Some entries, in order.", body=EntryPage),),
            errors=(InvalidFieldError, NotFoundError, JournalsUnavailableError),
        )
    )
    async def show_entries(self, session_id: str) -> Response:
        """Answer with some entries."""
        query = read_query(EntryQuery, request.args.items(multi=True))
        who = sender()
        found = await self.directory.page_of_entries(
            who, session_id, after=query.after, limit=query.limit + 1
        )
        page = found[: query.limit]
        with_words = who.identity.may(Scope.ADMIN)
        return json_answer(
            EntryPage(
                entries=tuple(KeptEntry.of(entry, with_words=with_words) for entry in page),
                next=page[-1].number if len(found) > query.limit else None,
            )
        )

    @described(
        Operation(
            summary="Read what was said: the finals of a session, in order.",
            tag=_TAG,
            query=TranscriptQuery,
            answers=(
                Answer(why="The transcript.", body=KeptTranscript),
                Answer(
                    why="The transcript, a final a line.", body={"type": "string"}, content_type="text/plain"
                ),
            ),
            errors=(InvalidFieldError, NotFoundError, JournalsUnavailableError),
        )
    )
    async def show_transcript(self, session_id: str) -> Response:
        """Answer with a transcript."""
        query = read_query(TranscriptQuery, request.args.items(multi=True))
        who = sender()
        session = await self.directory.find(who, session_id)
        entries = await self.directory.entries(who, session_id, "journal_read")
        transcript = await KeptTranscript.of(session, entries)
        if query.format is TranscriptFormat.JSON:
            return json_answer(transcript)
        return Response(transcript.text, content_type=TEXT_TYPE, headers={"Cache-Control": "no-store"})

    @described(
        Operation(
            summary="Export all that is kept of a session, as lines of JSON; without the scope `admin`, finals come "
            "without their words.",
            tag=_TAG,
            answers=(
                Answer(
                    why="A line with the record, one for each entry, and one that says that this was all.",
                    body=EXPORT_LINE,
                    content_type=EXPORT_TYPE,
                ),
            ),
            errors=(NotFoundError, JournalsUnavailableError),
        )
    )
    async def export(self, session_id: str) -> Response:
        """Answer with a stream that is read from the store while it is sent."""
        who = sender()
        session = await self.directory.find(who, session_id)
        response = Response("", content_type=EXPORT_TYPE)
        response.headers["Cache-Control"] = "no-store"
        response.headers["Content-Disposition"] = f'attachment; filename="{session_id}.ndjson"'
        if request.method != "HEAD":
            entries = await self.directory.entries(who, session_id, "journal_export")
            response.response = JournalExport(session, entries, with_words=who.identity.may(Scope.ADMIN))
            del response.headers["Content-Length"]
            response.timeout = None
        return response

    @described(
        Operation(
            summary="Delete all that is kept of a session that has ended, for good.",
            tag=_TAG,
            answers=(Answer(why="Nothing of it is kept any more.", status=HTTPStatus.NO_CONTENT),),
            errors=(NotFoundError, SessionRunningError, JournalsUnavailableError),
        )
    )
    async def delete(self, session_id: str) -> Response:
        """Delete one session."""
        await self.directory.delete(sender(), session_id)
        response = Response("", status=HTTPStatus.NO_CONTENT)
        del response.headers["Content-Type"]
        return response


def create_journal_routes(directory: JournalDirectory) -> Blueprint:
    """Make the routes."""
    answers = JournalRoutes(directory)
    routes = Blueprint("journals", __name__)
    one = f"{PATH}/<session_id>"
    for path, method, view, scope in (
        (PATH, "GET", answers.list_journals, Scope.OBSERVE),
        (one, "GET", answers.show, Scope.OBSERVE),
        (f"{one}/entries", "GET", answers.show_entries, Scope.OBSERVE),
        (f"{one}/transcript", "GET", answers.show_transcript, Scope.ADMIN),
        (f"{one}/export", "GET", answers.export, Scope.OBSERVE),
        (one, "DELETE", answers.delete, Scope.ADMIN),
    ):
        routes.add_url_rule(path, f"{method} {path}", needs(scope)(view), methods=[method])
    return routes
