"""What is kept of a session: its record, and the journal of what was told; a transcript is a fold over the journal."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import attrs

from voice_agent.core.units import MINUTES

RECORD_VERSION: Final = 1
"""Of the form in which records and entries are kept; readers take the one before, too."""

USED_TOKENS: Final = 8
"""How many earlier resume tokens are remembered, so that one that was used is told apart from one that never was."""


PATIENCE_SECONDS: Final = MINUTES
"""How much longer than its resume window an abandoned session is left. A store that was away for so long, and in which nobody
could say meanwhile that they are still there, was found away by a look of retention, which ends nothing for the next while."""


class RecordState(StrEnum):
    """Where a kept session is in its life."""

    OPEN = "open"
    """A connection owns it."""
    DETACHED = "detached"
    """Its connection went away; it can be resumed within its window."""
    ENDED = "ended"
    """It is over for good."""


class EntryKind(StrEnum):
    """What a journal entry holds."""

    FINAL = "final"
    REPLY = "reply"
    DIALOGUE = "dialogue"
    """The dialogue's state after a turn."""
    NOTICE = "notice"
    HEARD = "heard"
    """Nothing was told; it says only up to where audio has been heard."""
    CLOSED = "closed"
    GAP = "gap"
    """Messages were told here that are not kept; the body says how many (``messages``), and which."""
    RETRACTED = "retracted"
    """The final whose ``seq`` stands in the body doesn't count: a lost connection cut it, and its audio came again."""


@attrs.frozen(kw_only=True)
class JournalEntry:
    """One thing that is kept of a session, in order.

    ``number`` counts from 1 without gaps, which is how a hole or a double shows. ``seq`` is the protocol's number of
    the message; messages that are not kept, partials for one, take numbers too, so it grows with gaps. ``heard_ms`` says
    up to where in the call's audio everything is settled by this entry and those before it. ``at`` is Unix time.
    """

    number: int
    seq: int
    kind: EntryKind
    at: float
    position_ms: int
    heard_ms: int
    body: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """The message as the protocol's JSON object; holds what was said."""


@attrs.frozen(kw_only=True)
class SessionRecord:
    """One session as it is kept; times are Unix seconds.

    ``epoch`` counts its owners: who writes with a lower one than the store knows is no longer its owner. An owner keeps
    ``lease_until`` ahead of now; one that doesn't is gone. ``token_sha256`` is the hash of the resume token that holds now.
    """

    session_id: str
    key_id: str
    tenant: str
    wire: str
    encoding: str
    sample_rate: int
    channels: int
    language: str
    agent: str
    settings_version: int
    node: str
    opened_at: float
    updated_at: float
    lease_until: float
    resumable_seconds: float
    token_sha256: str = attrs.field(repr=False)
    used_tokens: tuple[str, ...] = attrs.field(default=(), repr=False)
    retention_seconds: float | None = None
    """How long it is kept after its end; None for as long as the settings say by then."""
    ended_at: float | None = None
    close_reason: str | None = None
    state: RecordState = RecordState.OPEN
    epoch: int = 1
    spare_token_sha256: str = attrs.field(default="", repr=False)
    """Of a detached session: the token before, which holds too as long as nothing shows that the caller got the newer one."""
    version: int = RECORD_VERSION

    @property
    def resumable_until(self) -> float:
        """When the resume window closes: counted from when its connection, or its owner, was last there."""
        return max(self.updated_at, self.lease_until) + self.resumable_seconds

    @property
    def abandoned_at(self) -> float:
        """When it is ended for want of an owner, unless one comes back until then."""
        return self.resumable_until + PATIENCE_SECONDS

    @property
    def expires_at(self) -> float | None:
        """When it is to be deleted; None while it has not ended, and where the settings say it."""
        if self.ended_at is None or self.retention_seconds is None:
            return None
        return self.ended_at + self.retention_seconds


def standing_finals(entries: Iterable[JournalEntry]) -> tuple[JournalEntry, ...]:
    """Return the finals in order, without those that were retracted."""
    finals: dict[int, JournalEntry] = {}
    for entry in entries:
        if entry.kind is EntryKind.FINAL:
            finals[entry.seq] = entry
        elif entry.kind is EntryKind.RETRACTED:
            finals.pop(entry.body["seq"], None)
    return tuple(finals.values())


def transcript_of(entries: Iterable[JournalEntry]) -> tuple[str, ...]:
    """Return the texts of the finals that stand, in order."""
    return tuple(str(entry.body.get("text", "")) for entry in standing_finals(entries))
