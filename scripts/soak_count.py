"""What the soak counts: what callers were promised, and what the journals say."""

import itertools
from collections import Counter
from typing import Any

import attrs
from soak_talks import Talk

from voice_agent.core.journal import EntryKind, JournalEntry, RecordState
from voice_agent.session.store.protocol import Selection, Store

OVERLAP_SECONDS = 0.5
"""Two finals that share more than this of the call's audio tell the same words twice."""


@attrs.define
class Tally:
    """What callers saw."""

    calls: int = 0
    resumes: int = 0
    unreachable: int = 0
    failures: Counter[str] = attrs.field(factory=Counter)
    told: dict[tuple[str, int], str] = attrs.field(factory=dict)
    """Finals that were promised, by session and ``seq``."""
    told_twice: int = 0
    unstored: int = 0
    lost_seconds: float = 0.0
    whole: list[tuple[Talk, str]] = attrs.field(factory=list)
    """What callers said, and what they were told, call by call."""

    def hear(self, session: str, message: dict[str, Any]) -> None:
        """Take a final down."""
        if message.get("stored") is False:
            self.unstored += 1
            return
        place = (session, message["seq"])
        self.told_twice += place in self.told
        self.told[place] = message["text"]


@attrs.define
class Findings:
    """What the journals say."""

    sessions: int = 0
    entries: int = 0
    missing: int = 0
    other_words: int = 0
    holes: int = 0
    doubles: int = 0
    left_open: int = 0


async def look_through(store: Store, tally: Tally) -> Findings:
    """Compare what was promised with what is kept."""
    findings = Findings()
    kept: dict[tuple[str, int], str] = {}
    cursor: str | None = None
    while True:
        page = await store.select(Selection(), cursor=cursor)
        for record in page.records:
            findings.sessions += 1
            findings.left_open += record.state is RecordState.OPEN
            entries = await _whole(store, record.session_id)
            findings.entries += len(entries)
            findings.holes += [entry.number for entry in entries] != list(range(1, len(entries) + 1))
            findings.doubles += _doubles(entries)
            for entry in entries:
                if entry.kind is EntryKind.FINAL:
                    kept[record.session_id, entry.seq] = str(entry.body["text"])
        cursor = page.next_cursor
        if cursor is None:
            break
    for place, text in tally.told.items():
        findings.missing += place not in kept
        findings.other_words += kept.get(place, text) != text
    return findings


async def _whole(store: Store, session: str) -> list[JournalEntry]:
    entries: list[JournalEntry] = []
    while more := await store.journal(session, after=len(entries)):
        entries += more
    return entries


def _doubles(entries: list[JournalEntry]) -> int:
    """Count numbers of messages that came twice, and speech that is told twice."""
    seqs = Counter(entry.seq for entry in entries if entry.kind is EntryKind.FINAL)
    retracted = {entry.body.get("seq") for entry in entries if entry.kind.value == "retracted"}
    spans = sorted(
        (float(entry.body["start"]), float(entry.body["end"]))
        for entry in entries
        if entry.kind is EntryKind.FINAL and entry.seq not in retracted
    )
    overlaps = sum(earlier[1] - later[0] > OVERLAP_SECONDS for earlier, later in itertools.pairwise(spans))
    return sum(count - 1 for count in seqs.values()) + overlaps
