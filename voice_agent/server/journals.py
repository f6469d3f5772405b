"""Journals: what the store has of sessions, as somebody may see it; each reading of words and each deletion is audited."""

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from time import time
from typing import Final, Self

import attrs

from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.identity import EVERY_TENANT, Scope
from voice_agent.core.journal import JournalEntry, RecordState, SessionRecord
from voice_agent.core.request_errors import JournalsUnavailableError, NotFoundError, SessionRunningError
from voice_agent.observability.audit import Outcome, audit
from voice_agent.session.registry import CallRegistry
from voice_agent.session.store.protocol import Selection, Store
from voice_agent.web.journal_routes import JournalQuery
from voice_agent.web.journal_views import KeptPage, KeptSession
from voice_agent.web.sender import Sender

PAGE_ENTRIES: Final = 100
"""Entries that are in memory at once while a whole journal is read."""
_SESSION_ID: Final = re.compile(r"[0-9A-Za-z_.-]{1,128}", re.ASCII)
"""What an address may name; anything else is no session, and no store is asked for it."""


@attrs.frozen(kw_only=True)
class Journals:
    """The journal directory of one server.

    ``retention_seconds`` is asked for what is in force; ``now`` is Unix time.
    """

    store: Store
    registry: CallRegistry
    retention_seconds: Callable[[], float]
    now: Callable[[], float] = time

    async def page(self, who: Sender, query: JournalQuery) -> KeptPage:
        """Return a page of the kept sessions that are wanted, the newest first.

        Raises:
            JournalsUnavailableError: the store can't be reached.
        """
        tenant = None if who.identity.tenant == EVERY_TENANT else who.identity.tenant
        selection = Selection(tenant=tenant, key_id=query.key, state=query.state)
        with _told():
            page = await self.store.select(selection, cursor=query.cursor, limit=query.limit)
        return KeptPage(journals=tuple(map(self._shown, page.records)), next=page.next_cursor)

    async def find(self, who: Sender, session_id: str) -> KeptSession:
        """Return a kept session.

        Raises:
            NotFoundError: there is none that ``who`` sees.
            JournalsUnavailableError: the store can't be reached.
        """
        return self._shown(await self._record(who, session_id))

    async def page_of_entries(
        self, who: Sender, session_id: str, *, after: int, limit: int
    ) -> tuple[JournalEntry, ...]:
        """Return entries of a session, in order; audited where ``who`` may read words.

        Raises:
            NotFoundError: there is none that ``who`` sees.
            JournalsUnavailableError: the store can't be reached.
        """
        await self._record(who, session_id)
        self._audit_words(who, "journal_read", session_id)
        with _told():
            return tuple(await self.store.journal(session_id, after=after, limit=limit))

    async def entries(self, who: Sender, session_id: str, action: str) -> AsyncIterator[JournalEntry]:
        """Return all entries of a session, read page by page as they are asked for; audited as ``action``.

        Raises:
            NotFoundError: there is none that ``who`` sees; later on: it was deleted meanwhile.
            JournalsUnavailableError: the store can't be reached; later on too.
        """
        await self._record(who, session_id)
        self._audit_words(who, action, session_id)
        return _Reading(self.store, session_id)

    async def delete(self, who: Sender, session_id: str) -> None:
        """Delete a session, and what stands of it in files of the store.

        Raises:
            NotFoundError: there is none that ``who`` sees.
            SessionRunningError: its call still runs.
            JournalsUnavailableError: the store can't be reached, or its file not be wiped now.
        """
        record = await self._record(who, session_id)
        # Whose lease has just run out may be back in a moment, and would write on.
        is_owned = record.state is RecordState.OPEN and self.now() < record.abandoned_at
        if is_owned or self.registry.find(session_id) is not None:
            raise SessionRunningError("The call still runs; end it first (DELETE /v1/sessions/…).")
        with _told():
            await self.store.delete(session_id)
        _audit(who, "journal_delete", session_id)
        try:
            await self.store.scrub()
        except StoreUnavailableError as error:
            raise JournalsUnavailableError(
                "The session is deleted, but traces of it stand in the store's file until its log can be emptied; the "
                "server goes on trying."
            ) from error

    async def _record(self, who: Sender, session_id: str) -> SessionRecord:
        record = None
        if _SESSION_ID.fullmatch(session_id):
            with _told():
                record = await self.store.record(session_id)
        if record is None or not who.identity.sees(record.tenant):
            raise NotFoundError("Nothing is kept of such a session.")
        return record

    def _shown(self, record: SessionRecord) -> KeptSession:
        return KeptSession.of(record, retention_seconds=self.retention_seconds())

    def _audit_words(self, who: Sender, action: str, session_id: str) -> None:
        if who.identity.may(Scope.ADMIN):
            _audit(who, action, session_id)


@attrs.define
class _Reading:
    """A journal from its beginning to its end. No generator, because one that is left halfway is cleaned up late."""

    _store: Store
    _session_id: str
    _page: deque[JournalEntry] = attrs.field(factory=deque)
    _last: int = 0
    _is_last_page: bool = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> JournalEntry:
        if not self._page and not self._is_last_page:
            await self._read()
        if not self._page:
            raise StopAsyncIteration
        entry = self._page.popleft()
        self._last = entry.number
        return entry

    async def _read(self) -> None:
        with _told():
            self._page.extend(
                await self._store.journal(self._session_id, after=self._last, limit=PAGE_ENTRIES)
            )
            self._is_last_page = len(self._page) < PAGE_ENTRIES
            if self._is_last_page and await self._store.record(self._session_id) is None:
                raise NotFoundError("The session was deleted while it was read.")


def _audit(who: Sender, action: str, session_id: str) -> None:
    audit(
        actor=who.identity.key_id, action=action, outcome=Outcome.DONE, target=session_id, address=who.address
    )


@contextmanager
def _told() -> Iterator[None]:
    """Tell callers that the store is away, and nothing of where it is."""
    try:
        yield
    except StoreUnavailableError as error:
        raise JournalsUnavailableError(
            "What is kept can't be read or deleted now; try again soon."
        ) from error
