"""What is shown of kept sessions: records without tokens, entries without words for those who may not read them."""

from collections.abc import AsyncIterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Self

import attrs

from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, SessionRecord
from voice_agent.web.event_stream import WORDS

WORDLESS: Final = frozenset(
    {EntryKind.NOTICE, EntryKind.HEARD, EntryKind.CLOSED, EntryKind.RETRACTED, EntryKind.GAP}
)
"""Kinds whose bodies hold nothing that was said."""


@attrs.frozen(kw_only=True)
class KeptSession:
    """One session as it is kept, without a word of what was said."""

    id: str
    key: str
    """Who called: the id of the key, or the subject of the token."""
    tenant: str
    state: RecordState
    wire: str
    encoding: str
    sample_rate: int
    channels: int
    language: str
    agent: str
    settings_version: int
    node: str
    """The server that has it, or had it last."""
    opened_at: datetime
    updated_at: datetime
    ended_at: datetime | None
    close_reason: str | None
    delete_at: datetime | None
    """When it will be deleted, by what is in force now; None while it has not ended."""

    @classmethod
    def of(cls, record: SessionRecord, *, retention_seconds: float) -> Self:
        """Show a record; ``retention_seconds`` is how long those are kept that don't say it themselves."""
        delete_at = record.expires_at
        if delete_at is None and record.ended_at is not None:
            delete_at = record.ended_at + retention_seconds
        return cls(
            id=record.session_id,
            key=record.key_id,
            tenant=record.tenant,
            state=record.state,
            wire=record.wire,
            encoding=record.encoding,
            sample_rate=record.sample_rate,
            channels=record.channels,
            language=record.language,
            agent=record.agent,
            settings_version=record.settings_version,
            node=record.node,
            opened_at=_moment(record.opened_at),
            updated_at=_moment(record.updated_at),
            ended_at=None if record.ended_at is None else _moment(record.ended_at),
            close_reason=record.close_reason,
            delete_at=None if delete_at is None else _moment(delete_at),
        )


@attrs.frozen(kw_only=True)
class KeptPage:
    """Some kept sessions, the newest first; perhaps fewer than asked for, though more follow."""

    journals: tuple[KeptSession, ...]
    next: str | None
    """The cursor of the next page; None on the last one."""


@attrs.frozen(kw_only=True)
class KeptEntry:
    """One entry of a journal; ``number`` counts from 1 without gaps."""

    number: int
    seq: int
    """The number of the message that the caller was told."""
    kind: EntryKind
    at: datetime
    position_ms: int
    heard_ms: int
    body: dict[str, Any]

    @classmethod
    def of(cls, entry: JournalEntry, *, with_words: bool) -> Self:
        """Show an entry; without words it says when something was said, and not what."""
        body = dict(entry.body)
        if not with_words and entry.kind not in WORDLESS:
            # What other kinds hold is not known here, so that nothing of it is shown.
            is_final = entry.kind is EntryKind.FINAL
            body = {name: value for name, value in body.items() if is_final and name not in WORDS}
        return cls(
            number=entry.number,
            seq=entry.seq,
            kind=entry.kind,
            at=_moment(entry.at),
            position_ms=entry.position_ms,
            heard_ms=entry.heard_ms,
            body=body,
        )


@attrs.frozen(kw_only=True)
class EntryPage:
    """Some entries of a journal, in order."""

    entries: tuple[KeptEntry, ...]
    next: int | None
    """What to give as `after` for the next page; None where there is nothing more by now."""


class TranscriptFormat(StrEnum):
    """How a transcript is written."""

    JSON = "json"
    TEXT = "text"


@attrs.frozen(kw_only=True)
class TranscriptLine:
    """A final; or, where ``missing`` is not 0, a place where so many messages are not kept."""

    seq: int
    at: datetime
    start: float | None
    """Seconds of the call; None where something is missing."""
    end: float | None
    text: str
    missing: int


@attrs.frozen(kw_only=True)
class KeptTranscript:
    """What was said in a call, by its finals."""

    id: str
    state: RecordState
    is_complete: bool
    """Whether nothing is missing so far; a session that has not ended may go on."""
    lines: tuple[TranscriptLine, ...]

    @classmethod
    async def of(cls, session: KeptSession, entries: AsyncIterable[JournalEntry]) -> Self:
        """Fold a journal; holds the finals that stand in memory, which a call's own limit bounds."""
        lines: dict[int, TranscriptLine] = {}
        async for entry in entries:
            if entry.kind is EntryKind.RETRACTED:
                lines.pop(entry.body["seq"], None)
            elif (line := _line(entry)) is not None:
                lines[entry.seq] = line
        return cls(
            id=session.id,
            state=session.state,
            is_complete=not any(line.missing for line in lines.values()),
            lines=tuple(lines.values()),
        )

    @property
    def text(self) -> str:
        """A line for each final, and a remark in brackets where something is missing."""
        return "".join(
            f"[{line.missing} messages are not kept]\n" if line.missing else f"{line.text}\n"
            for line in self.lines
        )


def _line(entry: JournalEntry) -> TranscriptLine | None:
    at, body = _moment(entry.at), entry.body
    match entry.kind:
        case EntryKind.FINAL:
            start, end, text = body.get("start"), body.get("end"), str(body.get("text", ""))
            return TranscriptLine(seq=entry.seq, at=at, start=start, end=end, text=text, missing=0)
        case EntryKind.GAP:
            missing = int(body["messages"])
            return TranscriptLine(seq=entry.seq, at=at, start=None, end=None, text="", missing=missing)
        case _:
            return None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
