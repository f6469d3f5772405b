"""Lapse: the stretch of a call that is not kept, because the store was away and no more could wait; what is known of it.

Numbers of journal entries are given when the writer takes them, so that a stretch that it didn't take leaves no hole: an
entry of the kind ``gap`` stands for it, and whoever reads the journal knows how much is missing, and from when.
"""

from typing import Self

import attrs

from voice_agent.core.events import Notice
from voice_agent.core.journal import EntryKind, JournalEntry


@attrs.frozen(kw_only=True)
class Lapse:
    """Messages that were told and not kept: how many, from which to which; times are Unix seconds."""

    messages: int
    first_seq: int
    last: JournalEntry
    began_at: float

    @classmethod
    def of(cls, entry: JournalEntry) -> Self:
        """Begin with the first entry that found no room."""
        return cls(messages=1, first_seq=entry.seq, last=entry, began_at=entry.at)

    def with_another(self, entry: JournalEntry) -> Self:
        """Count the next one."""
        return attrs.evolve(self, messages=self.messages + 1, last=entry)

    def entry(self, number: int) -> JournalEntry:
        """Return what stands for it in the journal."""
        return attrs.evolve(self.last, number=number, kind=EntryKind.GAP, body=self.end_notice.detail)

    @property
    def begin_notice(self) -> Notice:
        """What the caller is told when it begins."""
        return Notice(
            code="not_kept",
            message="What is said from here on is not kept, until the server's store is back. The call goes on.",
            detail={"first_seq": self.first_seq},
        )

    @property
    def end_notice(self) -> Notice:
        """What the caller is told when it is over."""
        return Notice(
            code="kept_again",
            message=f"What is said is kept again; {self.messages} messages before this are not.",
            detail={
                "messages": self.messages,
                "first_seq": self.first_seq,
                "last_seq": self.last.seq,
                "seconds": round(self.last.at - self.began_at, 3),
            },
        )
