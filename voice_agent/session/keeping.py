"""Keeping: one call's journal. What is promised to the caller is kept first, and told then.

The stage that sends asks here before each message, in the order in which messages leave, so that the journal has the
order of what was told. Only a few kinds are kept: finals, notices, and how the call ended. While none of them comes, an
entry that tells nobody anything says now and then up to where the audio is settled, and that the session has its owner.
"""

from collections.abc import Callable, Mapping
from time import time
from typing import Any, Final

import attrs
import trio

from voice_agent.core.errors import IceTimeoutError
from voice_agent.core.events import (
    CloseReason,
    Notice,
    ResumeOffer,
    SessionClosed,
    SessionEvent,
    SessionReady,
    Transcript,
)
from voice_agent.core.identity import Identity
from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, SessionRecord
from voice_agent.core.transport import Wire
from voice_agent.core.units import SECONDS
from voice_agent.session.call_journal import CallJournal
from voice_agent.session.heard import Heard
from voice_agent.session.resuming import LEASE_SECONDS, Resumed, hash_of, new_token
from voice_agent.session.store.codec import CUT, DETACHED, UTTERANCES, describe
from voice_agent.session.store.protocol import Outcome
from voice_agent.session.store.writer import JournalWriter

AGENT: Final = "none"
"""Nobody answers yet."""
RENEW_SECONDS: Final = 10 * SECONDS
"""A third of the lease, so that one write that is late loses nothing."""
LEAVES_IT_OPEN: Final = frozenset(
    {CloseReason.HANGUP, CloseReason.DRAIN, CloseReason.CANCELLED, CloseReason.INTERNAL_ERROR}
)
"""Ends of a connection that nobody asked for; the session can go on behind them."""
PROOF_SECONDS: Final = 5 * SECONDS
"""Who is heard so long after a ``ready`` has got it, and the token in it."""


@attrs.frozen(kw_only=True)
class Storage:
    """What a process keeps its sessions with."""

    writer: JournalWriter
    node: str
    budget_seconds: float
    """How long a message waits to be kept before it is told all the same."""
    now: Callable[[], float] = time
    """Unix time."""


@attrs.frozen(kw_only=True)
class Kept:
    """Which call is kept, and how it is resumed; ``resumed`` is None for a new session."""

    session_id: str
    identity: Identity
    wire: Wire
    settings_version: int
    window_seconds: float
    """For how long it can be resumed; 0 for not at all."""
    resumed: Resumed | None = None


class Keeping:
    """Keeps one call; :meth:`keep` is called for each message, in order.

    ``on_fenced`` is called when the session turns out to belong to somebody else; from then on nothing is kept, and nothing
    but the close is told. ``active_at`` says when the caller was last heard of, on Trio's clock. ``tell`` tells the caller a
    notice, and doesn't wait.
    """

    def __init__(
        self,
        storage: Storage,
        kept: Kept,
        heard: Heard,
        *,
        on_fenced: Callable[[], None],
        active_at: Callable[[], float],
        tell: Callable[[Notice], None],
    ) -> None:
        self._node = storage.node
        self._kept = kept
        self._heard = heard
        self._active_at = active_at
        self._now = storage.now
        resumed = kept.resumed
        self._record: SessionRecord | None = None if resumed is None else resumed.record
        self._token = new_token() if resumed is None else resumed.token
        self._journal = CallJournal(
            storage.writer,
            budget_seconds=storage.budget_seconds,
            last_number=0 if resumed is None else resumed.last_number,
            tell=tell,
            on_fenced=on_fenced,
        )
        self._heard_ms = 0 if resumed is None else resumed.heard_ms
        self._seq = 0
        self._position_ms = self._heard_ms
        self._written = (self._heard_ms, 0)
        """What the last entry said: heard, and seq."""
        self._ready_at = trio.current_time()
        self.renew_at = trio.current_time() + RENEW_SECONDS
        """When to call :meth:`renew`, on Trio's clock."""

    @property
    def can_be_resumed(self) -> bool:
        """Whether the session can go on when its connection is lost."""
        return self._kept.window_seconds > 0

    def give_way(self) -> None:
        """Somebody else has the session."""
        self._journal.give_way()

    async def keep(self, event: SessionEvent) -> SessionEvent | None:
        """Return the event as it may be told now: when it is kept, or marked that it is not yet; None when it mustn't be."""
        self._seq = event.seq
        self._heard_ms = self._heard.note(event)
        self._position_ms = event.position_ms
        if self._journal.is_fenced:
            return event if isinstance(event, SessionClosed) else None
        if isinstance(event, SessionReady):
            return await self._begin(event)
        described = describe(event)
        if described is None or self._record is None:
            return event
        kind, body = described
        if isinstance(event, SessionClosed):
            return await self._end(event, self._record, body)
        return await self._keep(event, self._record, kind, body)

    async def _keep(
        self, event: SessionEvent, record: SessionRecord, kind: EntryKind, body: Mapping[str, Any]
    ) -> SessionEvent | None:
        if isinstance(event, Transcript) and self._heard.is_cut(event.result.utterance):
            body = {**body, CUT: True}
        outcome = await self._write(record, self._entry(kind, body))
        if outcome is Outcome.FENCED:
            return None
        if outcome is Outcome.ACCEPTED or not isinstance(event, Transcript | Notice):
            return event
        return attrs.evolve(event, is_stored=False)

    async def renew(self, position_ms: int | None) -> None:
        """Say that the session is owned, and what is settled.

        ``position_ms`` is what has been heard when no message waits; None when one does: it may say that speech began.
        """
        self.renew_at = trio.current_time() + RENEW_SECONDS
        if self._record is None or self._journal.is_fenced or not self._journal.is_healthy:
            return
        if position_ms is not None:
            self._position_ms = position_ms
            self._heard_ms = self._heard.settled_at(position_ms)
        entry = None
        if self._written != (self._heard_ms, self._seq):
            entry = self._entry(EntryKind.HEARD, {UTTERANCES: self._heard.utterances})
        await self._write(self._record, entry)

    async def _begin(self, ready: SessionReady) -> SessionReady | None:
        now = self._now()
        fields: dict[str, Any] = {
            "wire": self._kept.wire.value,
            "encoding": ready.audio_format.encoding.value,
            "sample_rate": ready.audio_format.sample_rate,
            "channels": ready.audio_format.channels,
            "language": ready.options.language,
            "settings_version": self._kept.settings_version,
            "resumable_seconds": self._kept.window_seconds,
            "token_sha256": hash_of(self._token) if self.can_be_resumed else "",
        }
        entry = None
        if self._record is None:
            self._record = SessionRecord(
                session_id=self._kept.session_id,
                key_id=self._kept.identity.key_id,
                tenant=self._kept.identity.tenant,
                agent=AGENT,
                node=self._node,
                opened_at=now,
                updated_at=now,
                lease_until=now + LEASE_SECONDS,
                retention_seconds=self._kept.identity.quotas.retention_seconds,
                **fields,
            )
        else:
            self._record = attrs.evolve(self._record, **fields)
        resumed = self._kept.resumed
        if resumed is not None and resumed.retracted_seq is not None:
            entry = self._entry(EntryKind.RETRACTED, {"seq": resumed.retracted_seq})
        if await self._write(self._record, entry) is Outcome.FENCED:
            return None
        self._ready_at = trio.current_time()
        offer = ResumeOffer(token=self._token, window_seconds=self._kept.window_seconds)
        return attrs.evolve(
            ready,
            resume=offer if self.can_be_resumed else None,
            heard_ms=None if resumed is None else resumed.heard_ms,
        )

    async def _end(
        self, closed: SessionClosed, record: SessionRecord, body: Mapping[str, Any]
    ) -> SessionEvent:
        reason = closed.record.reason
        if reason is CloseReason.TAKEN_OVER:
            return closed
        now = self._now()
        is_resumable = self.can_be_resumed and (reason in LEAVES_IT_OPEN or self._never_came(closed))
        if is_resumable:
            entry = self._entry(EntryKind.HEARD, {UTTERANCES: self._heard.utterances, DETACHED: reason.value})
            left = attrs.evolve(
                record,
                state=RecordState.DETACHED,
                spare_token_sha256=self._spare_token(),
                close_reason=reason.value,
                lease_until=now,
            )
        else:
            self._heard_ms = closed.position_ms
            entry = self._entry(EntryKind.CLOSED, body)
            left = attrs.evolve(
                record, state=RecordState.ENDED, ended_at=now, close_reason=reason.value, lease_until=now
            )
        outcome = await self._write(left, entry)
        return attrs.evolve(
            closed,
            is_stored=outcome is Outcome.ACCEPTED,
            is_resumable=is_resumable and outcome is not Outcome.FENCED,
        )

    def _never_came(self, closed: SessionClosed) -> bool:
        """Whether the media of a resumed call never arrived: the session can still go on over another wire."""
        return self._kept.resumed is not None and closed.record.error_code == IceTimeoutError.code

    def _spare_token(self) -> str:
        """Return the token before, as long as the caller may not have got this one."""
        resumed = self._kept.resumed
        if resumed is None or self._active_at() > self._ready_at + PROOF_SECONDS:
            return ""
        return resumed.used_token_sha256

    def _entry(self, kind: EntryKind, body: Mapping[str, Any]) -> JournalEntry:
        return JournalEntry(
            number=0,  # given when the writer takes it
            seq=self._seq,
            kind=kind,
            at=self._now(),
            position_ms=self._position_ms,
            heard_ms=self._heard_ms,
            body=body,
        )

    async def _write(self, record: SessionRecord, entry: JournalEntry | None) -> Outcome | None:
        """Write the record, and the entry behind the others; return what is known of it within the budget."""
        now = self._now()
        is_over = record.state is not RecordState.OPEN
        self._record = attrs.evolve(
            record, updated_at=now, lease_until=record.lease_until if is_over else now + LEASE_SECONDS
        )
        self.renew_at = trio.current_time() + RENEW_SECONDS
        if entry is not None:
            self._written = (entry.heard_ms, entry.seq)
        return await self._journal.write(self._record, entry)
