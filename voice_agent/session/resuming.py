"""Resuming: a caller whose connection was lost goes on with its session, on another connection, wire or server.

The right to do so is a token, which each ``ready`` brings and which resumes once. The store decides, in one step, who has
the session from now on; whoever had it before can't write any more (see :mod:`voice_agent.session.store.ownership`).
"""

import secrets
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from math import floor
from typing import Final

import attrs
import trio

from voice_agent.core.commands import Resume
from voice_agent.core.errors import ResumeUnavailableError, StoreFullError, StoreUnavailableError
from voice_agent.core.events import SessionEvent
from voice_agent.core.identity import Identity
from voice_agent.core.journal import (
    EntryKind,
    JournalEntry,
    RecordState,
    SessionRecord,
    standing_finals,
)
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.core.units import SECONDS
from voice_agent.session.store.codec import CUT, DETACHED, UTTERANCES, load_final, retell
from voice_agent.session.store.protocol import Claim, Claimed, Store, Write
from voice_agent.session.store.writer import JournalWriter

LEASE_SECONDS: Final = 30 * SECONDS
"""Who has written nothing for so long has lost the session; its resume window begins then."""
CLAIM_SECONDS: Final = 6 * SECONDS
"""A store that takes longer is away: three tries, and what a store allows itself for one."""
RETRY_SECONDS: Final = 0.2 * SECONDS
UNWRITTEN_SEQ: Final = 1000
UNWRITTEN_UTTERANCES: Final = 100
"""How many messages an owner may have told, and utterances begun, without a word of it in the journal, until it was lost:
more than there can be within a lease."""
TOKEN_BYTES: Final = 32
PAGE_ENTRIES: Final = 1000


@attrs.frozen(kw_only=True)
class Resumed:
    """A session that goes on: whose it is, where it stands, and what its caller missed."""

    record: SessionRecord
    token: str = attrs.field(repr=False)
    """Resumes it the next time."""
    used_token_sha256: str = attrs.field(repr=False)
    last_number: int
    last_seq: int
    """What is told from now on is numbered above it."""
    heard_ms: int
    audio_ms: int
    """Where the caller's next audio stands."""
    last_utterance: int
    age_seconds: float
    """How long ago the session began."""
    finals: tuple[TranscriptResult, ...] = attrs.field(repr=False)
    missed: tuple[SessionEvent, ...] = attrs.field(repr=False)
    retracted_seq: int | None = None
    """The final that doesn't count any more, because what it was made of comes again."""


def new_token() -> str:
    """Make a resume token: 256 random bits."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """Return what is kept of a token. A plain hash is enough for a random secret that nobody could guess."""
    return sha256(token.encode(errors="surrogatepass")).hexdigest()


async def resume(
    wish: Resume,
    identity: Identity,
    *,
    writer: JournalWriter,
    node: str,
    now: Callable[[], float],
) -> Resumed:
    """Make this process the owner of a session, and read what is needed to go on with it.

    When it fails or is cancelled, the session belongs to nobody, and the token resumes it still.

    Raises:
        ResumeRefusedError: one of its kinds says why not.
    """
    token = new_token()
    claim = Claim(
        session_id=wish.session_id,
        key_id=identity.key_id,
        tenant=identity.tenant,
        token_sha256=hash_of(wish.token),
        new_token_sha256=hash_of(token),
        node=node,
        now=now(),
        lease_seconds=LEASE_SECONDS,
    )
    try:
        # Not cancelled half-way, when nobody could say whose the session is.
        with trio.fail_after(CLAIM_SECONDS, shield=True):
            claimed = await _claim(writer.store, claim)
    except trio.TooSlowError:
        raise _away() from None
    try:
        entries = await _journal(writer.store, wish.session_id)
    except BaseException as error:
        _give_back(writer, claimed.record, claim.token_sha256, now())
        if isinstance(error, StoreUnavailableError):
            raise _away() from error
        raise
    return _resumed(wish, claim, token, claimed, entries)


async def _claim(store: Store, claim: Claim) -> Claimed:
    """Claim, and try again while the store is away: a claim that was granted is granted again."""
    while True:
        try:
            return await store.claim(claim)
        except StoreUnavailableError:
            await trio.sleep(RETRY_SECONDS)


async def _journal(store: Store, session_id: str) -> list[JournalEntry]:
    entries: list[JournalEntry] = []
    while page := await store.journal(session_id, after=len(entries), limit=PAGE_ENTRIES):
        entries += page
    return entries


def _give_back(writer: JournalWriter, record: SessionRecord, token_sha256: str, now: float) -> None:
    """Leave a session that was claimed as if it had not been; without waiting."""
    detached = attrs.evolve(
        record,
        state=RecordState.DETACHED,
        token_sha256=token_sha256,
        used_tokens=tuple(used for used in record.used_tokens if used != token_sha256),
        updated_at=now,
        lease_until=now,
    )
    with suppress(StoreFullError):
        writer.submit(Write(session_id=record.session_id, epoch=record.epoch, record=detached))


def _away() -> ResumeUnavailableError:
    return ResumeUnavailableError("the store of sessions can't be reached now; try again in a moment")


def _resumed(
    wish: Resume, claim: Claim, token: str, claimed: Claimed, entries: list[JournalEntry]
) -> Resumed:
    """Fold the journal."""
    standing = standing_finals(entries)
    heard_ms = claimed.heard_ms
    retracted: JournalEntry | None = None
    if standing and _is_heard_again(standing[-1], wish):
        *before, retracted = standing
        standing = tuple(before)
        heard_ms = _start_ms(retracted)
    kept = {entry.seq for entry in standing}
    missed = [
        retell(entry)
        for entry in entries
        if entry.seq > wish.last_seq and (entry.kind is not EntryKind.FINAL or entry.seq in kept)
    ]
    was_left_in_order = bool(entries) and bool(entries[-1].body.get(DETACHED, False))
    utterances = max(
        (entry.body.get(UTTERANCES, entry.body.get("utterance", 0)) for entry in entries), default=0
    )
    return Resumed(
        record=claimed.record,
        token=token,
        used_token_sha256=claim.token_sha256,
        last_number=claimed.last_number,
        last_seq=max(claimed.last_seq, wish.last_seq) + (0 if was_left_in_order else UNWRITTEN_SEQ),
        heard_ms=heard_ms,
        audio_ms=heard_ms if wish.audio_ms is None else wish.audio_ms,
        last_utterance=utterances + (0 if was_left_in_order else UNWRITTEN_UTTERANCES),
        age_seconds=max(0.0, claim.now - claimed.record.opened_at),
        finals=tuple(load_final(entry) for entry in standing),
        missed=tuple(event for event in missed if event is not None),
        retracted_seq=None if retracted is None else retracted.seq,
    )


def _is_heard_again(final: JournalEntry, wish: Resume) -> bool:
    """Whether the final is of words that a lost connection cut, that the caller has not seen, and that it sends again."""
    return (
        bool(final.body.get(CUT, False))
        and final.seq > wish.last_seq
        and wish.audio_ms is not None
        and wish.audio_ms <= _start_ms(final)
    )


def _start_ms(final: JournalEntry) -> int:
    return max(0, floor(float(final.body["start"]) * 1000))
