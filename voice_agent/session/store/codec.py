"""Records, entries and events as JSON, both ways; readers take the present version and the one before."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

import cattrs
import structlog

from voice_agent.core.errors import StoreCorruptError
from voice_agent.core.events import Notice, SessionClosed, SessionEvent, Transcript
from voice_agent.core.journal import RECORD_VERSION, EntryKind, JournalEntry, SessionRecord
from voice_agent.core.transcripts import TranscriptResult

_converter: Final = cattrs.Converter(forbid_extra_keys=True)

Fields = dict[str, Any]

CUT: Final = "cut"
"""In the body of a final: the connection was lost while it was said."""
UTTERANCES: Final = "utterances"
"""In the body of an entry of the kind ``heard``: how many utterances had begun."""
DETACHED: Final = "detached"
"""In the body of an entry of the kind ``heard``: why the connection ended, whose last entry it is."""

log = structlog.get_logger(__name__)


def _from_version_0(fields: Fields) -> Fields:
    """Version 0 called the wire ``transport`` and knew no agent."""
    upgraded = {**fields, "version": 1, "wire": fields["transport"], "agent": "none"}
    del upgraded["transport"]
    return upgraded


OF_A_CONNECTION: Final = frozenset({"draining", "limit_near"})
"""Notices that tell of a connection; on the next one they would mislead."""

UPGRADES: Final[Mapping[int, Callable[[Fields], Fields]]] = {0: _from_version_0}
"""From each version that is still read to the next one."""


def describe(event: SessionEvent) -> tuple[EntryKind, Fields] | None:
    """Return what is kept of an event; None for one that only matters while it happens."""
    match event:
        case Transcript(result=result) if result.is_final:
            return EntryKind.FINAL, _converter.unstructure(result)
        case Notice():
            return EntryKind.NOTICE, {
                "code": event.code,
                "message": event.message,
                "detail": dict(event.detail),
            }
        case SessionClosed(record=record):
            return EntryKind.CLOSED, _converter.unstructure(record)
        case _:
            return None


def load_final(entry: JournalEntry) -> TranscriptResult:
    """Return what the final of an entry said."""
    fields = {name: value for name, value in entry.body.items() if name != CUT}
    return _converter.structure(fields, TranscriptResult)


def retell(entry: JournalEntry) -> SessionEvent | None:
    """Return what a caller who missed it is told again, with its own number; None where it means nothing any more."""
    match entry.kind:
        case EntryKind.FINAL:
            return Transcript(seq=entry.seq, position_ms=entry.position_ms, result=load_final(entry))
        case EntryKind.NOTICE if entry.body["code"] not in OF_A_CONNECTION:
            fields = {**entry.body, "seq": entry.seq, "position_ms": entry.position_ms}
            return _converter.structure(fields, Notice)
        case _:
            return None


def dump_record(record: SessionRecord) -> str:
    """Write a record."""
    return json.dumps(_converter.unstructure(record), separators=(",", ":"), ensure_ascii=False)


def load_record(text: str | bytes) -> SessionRecord:
    """Read a record.

    Raises:
        StoreCorruptError: it is no record, or of a version that is not known here.
    """
    try:
        fields: Fields = json.loads(text)
        while (version := fields.get("version", 0)) != RECORD_VERSION:
            fields = UPGRADES[version](fields)
        return _converter.structure(fields, SessionRecord)
    except Exception as error:  # cattrs and json raise what the text provokes
        raise StoreCorruptError(f"a session's record can't be read ({type(error).__name__})") from error


def load_records(texts: Iterable[str | bytes]) -> Iterator[SessionRecord]:
    """Read records; one that can't be read is passed over and logged, so that it doesn't hide the others."""
    for text in texts:
        try:
            yield load_record(text)
        except StoreCorruptError as error:
            log.warning("record_unreadable", reason=error.message)


def dump_entry(entry: JournalEntry) -> str:
    """Write an entry."""
    return json.dumps(_converter.unstructure(entry), separators=(",", ":"), ensure_ascii=False)


def load_entry(text: str | bytes) -> JournalEntry:
    """Read an entry.

    Raises:
        StoreCorruptError: it is none.
    """
    try:
        return _converter.structure(json.loads(text), JournalEntry)
    except Exception as error:  # cattrs and json raise what the text provokes
        raise StoreCorruptError(f"a journal entry can't be read ({type(error).__name__})") from error
