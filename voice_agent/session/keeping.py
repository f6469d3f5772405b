"""Keeping: one call's journal. What is promised to the caller is kept first, and told then.

The stage that sends asks here before each message, in the order in which messages leave, so that the journal has the
order of what was told. Only a few kinds are kept: finals, notices, and how the call ended.
"""

from collections.abc import Callable
from contextlib import suppress
from time import time
from typing import Final

import attrs
import structlog

from voice_agent.core.errors import StoreFullError
from voice_agent.core.events import Notice, SessionClosed, SessionEvent, SessionReady, Transcript
from voice_agent.core.identity import Identity
from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, SessionRecord
from voice_agent.core.transport import Wire
from voice_agent.core.units import MINUTES
from voice_agent.session.lapse import Lapse
from voice_agent.session.store.codec import describe
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.session.store.writer import JournalWriter, Ticket

AGENT: Final = "none"
"""Nobody answers yet."""
GONE_AFTER_SECONDS: Final = 5 * MINUTES
"""A session that began, and of which nothing more was kept for the length of a longest call and this, has lost its
server; see :mod:`voice_agent.session.store.retention`."""

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Storage:
    """What a process keeps its sessions with."""

    writer: JournalWriter
    node: str
    budget_seconds: float
    """How long a message waits to be kept before it is told all the same."""


class Keeping:
    """Keeps one call; :meth:`keep` is called for each message, in order."""

    def __init__(
        self,
        storage: Storage,
        *,
        session_id: str,
        identity: Identity,
        wire: Wire,
        settings_version: int,
        max_seconds: float,
        now: Callable[[], float] = time,
        tell: Callable[[Notice], None] = lambda _notice: None,
    ) -> None:
        """``tell`` tells the caller a notice, and doesn't wait."""
        self._storage = storage
        self._session_id = session_id
        self._identity = identity
        self._wire = wire
        self._settings_version = settings_version
        self._max_seconds = max_seconds
        self._now = now
        self._record: SessionRecord | None = None
        self._numbers = 0
        self._heard_ms = 0
        self._tell = tell
        self._lapse: Lapse | None = None
        """What could not be kept, since the writer has no room."""

    async def keep(self, event: SessionEvent) -> SessionEvent:
        """Return the event as it may be told now: when it is kept, or marked that it is not yet."""
        if isinstance(event, SessionReady):
            self._begin(event)
        described = describe(event)
        if described is None or self._record is None:
            return event
        kind, body = described
        if isinstance(event, Transcript):
            self._heard_ms = max(self._heard_ms, round(event.result.end * 1000))
        elif isinstance(event, SessionClosed):
            self._heard_ms = event.position_ms
        entry = JournalEntry(
            number=0,  # given when the writer takes it
            seq=event.seq,
            kind=kind,
            at=self._now(),
            position_ms=event.position_ms,
            heard_ms=self._heard_ms,
            body=body,
        )
        self._update(entry)
        ticket = self._submit(entry)
        if ticket is None or await ticket.wait(self._storage.budget_seconds) is not Outcome.ACCEPTED:
            return self._marked(event)
        return event

    def _submit(self, entry: JournalEntry | None) -> Ticket | None:
        """Give an entry to the writer, behind one for what it had no room for; None: it has none now.

        Without an entry there is only the latter.
        """
        assert self._record is not None  # noqa: S101 (narrows; looked at before)
        unnumbered = ([] if self._lapse is None else [self._lapse.entry(0)]) + (
            [] if entry is None else [entry]
        )
        entries = tuple(
            attrs.evolve(one, number=number) for number, one in enumerate(unnumbered, self._numbers + 1)
        )
        write = Write(
            session_id=self._session_id, epoch=self._record.epoch, entries=entries, record=self._record
        )
        is_last = self._record.state is not RecordState.OPEN
        try:
            ticket = self._storage.writer.submit(write, is_last=is_last)
        except StoreFullError:
            self._pass_over(entry)
            return None
        self._numbers += len(entries)
        if self._lapse is not None:
            log.warning("journal_goes_on", messages=self._lapse.messages, number=self._numbers)
            self._notify(self._lapse.end_notice)
            self._lapse = None
        return ticket

    def _pass_over(self, entry: JournalEntry | None) -> None:
        """Count what is not kept. The caller is told when that begins, and by each message's mark."""
        if entry is not None and self._lapse is not None:
            self._lapse = self._lapse.with_another(entry)
            return
        if entry is not None:
            self._lapse = Lapse.of(entry)
            log.error("journal_full", number=self._numbers + 1)
            self._notify(self._lapse.begin_notice)
        self._storage.writer.when_room(self._go_on)

    def _go_on(self) -> None:
        """The writer has room again: no need to wait for something to be said."""
        if self._lapse is not None:
            self._submit(None)

    def _notify(self, notice: Notice) -> None:
        # The supervisor that would tell it is gone when the program ends; then nobody listens either.
        with suppress(RuntimeError):
            self._tell(notice)

    def _begin(self, ready: SessionReady) -> None:
        now = self._now()
        self._record = SessionRecord(
            session_id=self._session_id,
            key_id=self._identity.key_id,
            tenant=self._identity.tenant,
            wire=self._wire.value,
            encoding=ready.audio_format.encoding.value,
            sample_rate=ready.audio_format.sample_rate,
            channels=ready.audio_format.channels,
            language=ready.options.language,
            agent=AGENT,
            settings_version=self._settings_version,
            node=self._storage.node,
            opened_at=now,
            updated_at=now,
            lease_until=now + self._max_seconds + GONE_AFTER_SECONDS,
            resumable_seconds=0.0,
            token_sha256="",
            retention_seconds=self._identity.quotas.retention_seconds,
        )

    def _update(self, entry: JournalEntry) -> None:
        assert self._record is not None  # noqa: S101 (narrows; looked at before)
        self._record = attrs.evolve(self._record, updated_at=entry.at)
        if entry.kind is EntryKind.CLOSED:
            self._record = attrs.evolve(
                self._record,
                state=RecordState.ENDED,
                ended_at=entry.at,
                close_reason=str(entry.body["reason"]),
            )

    @staticmethod
    def _marked(event: SessionEvent) -> SessionEvent:
        if isinstance(event, Transcript | Notice | SessionClosed):
            return attrs.evolve(event, is_stored=False)
        return event
