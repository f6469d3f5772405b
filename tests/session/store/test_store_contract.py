"""What every store promises."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from voice_agent.core.errors import (
    JournalHoleError,
    ResumeExpiredError,
    ResumeForeignError,
    ResumeRefusedError,
    ResumeTokenUsedError,
    ResumeTokenWrongError,
    ResumeUnknownError,
)
from voice_agent.core.journal import EntryKind, JournalEntry, RecordState, SessionRecord, transcript_of
from voice_agent.session.store.protocol import Claim, Outcome, Selection, Store, Write
from voice_agent.session.store.redis import open_redis_store

OpenStore = Callable[[], AbstractAsyncContextManager[Store]]
MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]

TOKENS = ("token-0", "token-1", "token-2", "token-3")

CLAIM = Claim(
    session_id="s1",
    key_id="k1",
    tenant="t1",
    token_sha256=TOKENS[0],
    new_token_sha256=TOKENS[1],
    node="n2",
    now=1_020.0,
    lease_seconds=10.0,
)


def begin(record: SessionRecord, *entries: JournalEntry) -> Write:
    return Write(session_id=record.session_id, epoch=record.epoch, entries=entries, record=record)


def more(*entries: JournalEntry, session_id: str = "s1", epoch: int = 1) -> Write:
    return Write(session_id=session_id, epoch=epoch, entries=entries)


async def test_what_was_written_is_read(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Record and journal come back as they were, in order, also by parts; a transcript is a fold over them."""
    record = make_record()
    entries = [make_entry(n, f"word {n} Straße 東京") for n in range(1, 6)]
    entries.append(make_entry(6, kind=EntryKind.CLOSED, body={"type": "closed"}))
    async with open_store() as store:
        assert await store.write([begin(record, *entries[:2]), more(*entries[2:])]) == [Outcome.ACCEPTED] * 2
        assert await store.record("s1") == record
        assert list(await store.journal("s1")) == entries
        assert list(await store.journal("s1", after=2, limit=2)) == entries[2:4]
        assert transcript_of(await store.journal("s1")) == tuple(f"word {n} Straße 東京" for n in range(1, 6))
        assert await store.record("s2") is None
        assert list(await store.journal("s2")) == []
        await store.check()


async def test_a_write_that_is_sent_again_changes_nothing(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Whose answer got lost may be repeated, also with more behind it: no double."""
    first, second, third = (make_entry(n) for n in (1, 2, 3))
    async with open_store() as store:
        await store.write([begin(make_record(), first, second)])
        assert await store.write([begin(make_record(), first, second)]) == [Outcome.ACCEPTED]
        assert await store.write([more(second, third)]) == [Outcome.ACCEPTED]
        assert list(await store.journal("s1")) == [first, second, third]


async def test_a_hole_is_refused_and_nothing_of_the_write_is_kept(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """An entry that is not the next one is a defect, and what came with it is not kept either."""
    async with open_store() as store:
        await store.write([begin(make_record(), make_entry(1))])
        with pytest.raises(JournalHoleError):
            await store.write([more(make_entry(2), make_entry(4))])
        assert [entry.number for entry in await store.journal("s1")] == [1]


async def test_a_good_claim_changes_the_owner_once(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """The epoch grows, the token is used up, and the claimer learns where the journal stands."""
    async with open_store() as store:
        await store.write([begin(make_record(state=RecordState.DETACHED), make_entry(1), make_entry(2))])
        claimed = await store.claim(CLAIM)
        assert (claimed.last_number, claimed.last_seq, claimed.heard_ms) == (2, 6, 2000)
        assert (claimed.record.epoch, claimed.record.node) == (2, "n2")
        assert claimed.record.state is RecordState.OPEN
        assert claimed.record.lease_until == 1_030.0
        assert await store.record("s1") == claimed.record
        with pytest.raises(ResumeTokenUsedError):
            await store.claim(attrs.evolve(CLAIM, new_token_sha256=TOKENS[2]))
        again = await store.claim(attrs.evolve(CLAIM, token_sha256=TOKENS[1], new_token_sha256=TOKENS[2]))
        assert again.record.epoch == 3


async def test_a_claim_whose_answer_got_lost_is_granted_again(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """The very same claim changes nothing more: the epoch grows once."""
    async with open_store() as store:
        await store.write([begin(make_record(state=RecordState.DETACHED), make_entry(1))])
        claimed = await store.claim(CLAIM)
        assert await store.claim(CLAIM) == claimed


async def test_a_spare_token_holds_while_the_session_is_detached(
    open_store: OpenStore, make_record: MakeRecord
) -> None:
    """Both tokens of a caller who may not have got the newer one resume, and only one of them, once."""
    used = {"used_tokens": (TOKENS[0],), "token_sha256": TOKENS[1], "spare_token_sha256": TOKENS[0]}
    async with open_store() as store:
        for name, token in (("by the spare", TOKENS[0]), ("by the newer", TOKENS[1])):
            await store.write([begin(make_record(name, state=RecordState.DETACHED, **used))])
            claim = attrs.evolve(CLAIM, session_id=name, token_sha256=token, new_token_sha256=TOKENS[2])
            claimed = await store.claim(claim)
            assert claimed.record.spare_token_sha256 == ""
            for late in TOKENS[:2]:
                with pytest.raises(ResumeTokenUsedError):
                    await store.claim(attrs.evolve(claim, token_sha256=late, new_token_sha256=TOKENS[3]))
        await store.write([begin(make_record("owned", **used))])
        with pytest.raises(ResumeTokenUsedError):
            await store.claim(attrs.evolve(CLAIM, session_id="owned", new_token_sha256=TOKENS[2]))


async def test_of_claims_at_once_one_wins(open_store: OpenStore, make_record: MakeRecord) -> None:
    """Ten callers with the same token: one has the session, the others are told that the token was used."""
    won: list[int] = []
    refused: list[str] = []

    async def claim(store: Store, number: int) -> None:
        try:
            claimed = await store.claim(attrs.evolve(CLAIM, new_token_sha256=f"new-{number}"))
        except ResumeTokenUsedError as error:
            refused.append(error.code)
        else:
            won.append(claimed.record.epoch)

    async with open_store() as store:
        await store.write([begin(make_record(state=RecordState.DETACHED))])
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(claim, store, number)
    assert won == [2]
    assert len(refused) == 9


async def test_the_old_owner_can_not_write_any_more(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """A write of a lower epoch is fenced, entries and record; the others of its batch are not touched by that."""
    async with open_store() as store:
        await store.write([begin(make_record(), make_entry(1))])
        claimed = await store.claim(CLAIM)
        outcomes = await store.write(
            [
                begin(make_record(), make_entry(2, "of the old owner")),
                more(make_entry(2, "of the new owner"), epoch=2),
                begin(make_record("s2"), make_entry(1)),
            ]
        )
        assert outcomes == [Outcome.FENCED, Outcome.ACCEPTED, Outcome.ACCEPTED]
        assert transcript_of(await store.journal("s1")) == ("hello", "of the new owner")
        assert await store.record("s1") == claimed.record


@pytest.mark.parametrize(
    ("changes", "claimed_as", "error"),
    [
        ({}, {"session_id": "s9"}, ResumeUnknownError),
        ({}, {"token_sha256": "guessed"}, ResumeTokenWrongError),
        ({"used_tokens": ("old",)}, {"token_sha256": "old"}, ResumeTokenUsedError),
        ({}, {"key_id": "k2"}, ResumeForeignError),
        ({}, {"tenant": "t2"}, ResumeForeignError),
        ({"state": RecordState.ENDED, "ended_at": 1_001.0}, {}, ResumeExpiredError),
        ({}, {"now": 1_070.1}, ResumeExpiredError),
    ],
)
async def test_a_bad_claim_is_refused_and_changes_nothing(
    open_store: OpenStore,
    make_record: MakeRecord,
    changes: dict[str, object],
    claimed_as: dict[str, object],
    error: type[ResumeRefusedError],
) -> None:
    """Each reason has an error of its own, and the record stays as it was."""
    record = make_record(**changes)
    async with open_store() as store:
        await store.write([begin(record)])
        with pytest.raises(error):
            await store.claim(attrs.evolve(CLAIM, **claimed_as))
        assert await store.record("s1") == record


async def test_sessions_are_listed_the_newest_first_page_by_page(
    open_store: OpenStore, make_record: MakeRecord
) -> None:
    """Every session once, filtered by tenant, key and state."""
    records = [make_record(f"s{n}", opened_at=1_000.0 + n, tenant=f"t{n % 2}") for n in range(7)]
    async with open_store() as store:
        await store.write([begin(record) for record in records])
        found: list[SessionRecord] = []
        cursor = None
        while True:
            page = await store.select(Selection(), cursor=cursor, limit=3)
            found += page.records
            cursor = page.next_cursor
            if cursor is None:
                break
        assert found == records[::-1]
        only = await store.select(Selection(tenant="t1", key_id="k1", state=RecordState.OPEN))
        assert [record.session_id for record in only.records] == ["s5", "s3", "s1"]
        assert (await store.select(Selection(key_id="k2"))).records == ()


async def test_deleted_is_deleted(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Record and journal are gone, for the owner too, whose next write doesn't bring them back."""
    async with open_store() as store:
        await store.write([begin(make_record(), make_entry(1))])
        assert await store.delete("s1")
        assert not await store.delete("s1")
        assert await store.record("s1") is None
        assert list(await store.journal("s1")) == []
        assert await store.write([more(make_entry(2))]) == [Outcome.FENCED]
        assert list(await store.journal("s1")) == []


async def test_what_has_expired_is_found(open_store: OpenStore, make_record: MakeRecord) -> None:
    """Those that ended long ago, and those that nobody has owned for long; not the others."""
    async with open_store() as store:
        await store.write(
            [
                begin(make_record("ended", state=RecordState.ENDED, ended_at=2_000.0)),
                begin(make_record("ended late", state=RecordState.ENDED, ended_at=5_000.0)),
                begin(make_record("abandoned", updated_at=2_000.0, lease_until=2_000.0)),
                begin(make_record("owned", updated_at=2_000.0, lease_until=9_000.0)),
            ]
        )
        found = await store.expired(now=6_000.0, retention_seconds=3_000.0, limit=10)
        assert {record.session_id for record in found} == {"ended", "abandoned"}
        assert len(await store.expired(now=6_000.0, retention_seconds=3_000.0, limit=1)) == 1


async def test_a_session_may_say_itself_how_long_it_is_kept(
    open_store: OpenStore, make_record: MakeRecord
) -> None:
    """Shorter and longer than the others; from its end on, and not before."""
    ended = {"state": RecordState.ENDED, "ended_at": 5_000.0, "lease_until": 9_000.0}
    async with open_store() as store:
        await store.write(
            [
                begin(make_record("short", retention_seconds=10.0, **ended)),
                begin(make_record("long", retention_seconds=50_000.0, **ended)),
                begin(make_record("other", **ended)),
                begin(make_record("living", retention_seconds=0.5, lease_until=90_000.0)),
            ]
        )

        async def expired(now: float) -> set[str]:
            found = await store.expired(now=now, retention_seconds=1_000.0, limit=10)
            return {record.session_id for record in found}

        assert await expired(5_009.0) == set()
        assert await expired(5_011.0) == {"short"}
        assert await expired(6_001.0) == {"short", "other"}
        assert await expired(55_001.0) == {"short", "other", "long"}
        living = make_record("living", retention_seconds=0.5, state=RecordState.ENDED, ended_at=60_000.0)
        await store.write([begin(living)])
        assert "living" in await expired(60_001.0)


async def test_many_that_ended_hide_none_that_lost_its_server(
    open_store: OpenStore, make_record: MakeRecord
) -> None:
    """However many are kept on after their end, and however few are looked at in one go."""
    kept = [
        make_record(f"kept{n}", state=RecordState.ENDED, ended_at=1_000.0 + n, opened_at=900.0 + n)
        for n in range(30)
    ]
    async with open_store() as store:
        await store.write([begin(record) for record in kept])
        await store.write([begin(make_record("lost", lease_until=5_000.0))])
        found = await store.expired(now=6_000.0, retention_seconds=9_000.0, limit=3)
        assert [record.session_id for record in found] == ["lost"]


async def test_it_is_still_there_after_the_store_was_closed(
    open_store: OpenStore, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """What was accepted is read by who opens it next."""
    async with open_store() as store:
        await store.write([begin(make_record(), make_entry(1))])
    async with open_store() as store:
        assert await store.record("s1") == make_record()
        assert transcript_of(await store.journal("s1")) == ("hello",)


async def test_a_rare_key_among_many_is_found_in_bounded_looks(
    redis_server: Any, tmp_path: Path, make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer looks at so many sessions and no more; the cursor leads on, also from an empty page, to each one once."""
    monkeypatch.setattr("voice_agent.session.store.redis.PAGE_STEP", 5)
    monkeypatch.setattr("voice_agent.session.store.redis.MAX_LOOKS", 2)
    records = [
        make_record(f"s{n:02}", opened_at=1_000.0 + n, key_id="rare" if n in {3, 4, 40} else "k1")
        for n in range(50)
    ]
    pages: list[list[str]] = []
    async with open_redis_store(redis_server.url, prefix=f"test-{tmp_path.name}", keep_seconds=3600) as store:
        await store.write([begin(record) for record in records])
        cursor = None
        while True:
            page = await store.select(Selection(key_id="rare"), cursor=cursor, limit=3)
            pages.append([record.session_id for record in page.records])
            if (cursor := page.next_cursor) is None:
                break
    assert pages == [["s40"], [], [], [], ["s04", "s03"], []]


async def test_keys_in_redis_outlive_what_is_meant_and_no_longer(
    redis_server: Any, tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Twice as long as the setting in force at the write, or as the session itself says, and a minute; a running call's lease goes before."""
    prefix = f"test-{tmp_path.name}"
    keep_seconds = 100.0

    async def lasts(session_id: str) -> set[int]:
        found = set()
        for part in ("record", "journal"):
            key = f"{prefix}:{{{session_id}}}:{part}"
            done = await trio.run_process(
                ["redis-cli", "-p", str(redis_server.port), "TTL", key], capture_stdout=True, check=True
            )
            found.add(round(int(done.stdout), -1))
        return found

    ended = {"state": RecordState.ENDED, "ended_at": 1_000.0, "lease_until": 0.0, "resumable_seconds": 0.0}
    async with open_redis_store(redis_server.url, prefix=prefix, keep_seconds=lambda: keep_seconds) as store:
        await store.write([begin(make_record("s1", **ended), make_entry(1))])
        await store.write([begin(make_record("s2", retention_seconds=5_000.0, **ended), make_entry(1))])
        await store.write([begin(make_record("s3", lease_until=8_940.0), make_entry(1))])
        assert (await lasts("s1"), await lasts("s2"), await lasts("s3")) == ({160}, {10_060}, {8_160})
        keep_seconds = 500.0
        await store.write([begin(make_record("s1", **ended), make_entry(2))])
        assert await lasts("s1") == {560}


async def test_nothing_of_a_deleted_session_is_left_in_redis(
    redis_server: Any, tmp_path: Path, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Neither keys nor a place in an index; another session's are all there."""
    prefix = f"test-{tmp_path.name}"

    async def ask(*words: str) -> set[str]:
        done = await trio.run_process(
            ["redis-cli", "-p", str(redis_server.port), *words], capture_stdout=True, check=True
        )
        return set(done.stdout.decode().split())

    async with open_redis_store(redis_server.url, prefix=prefix, keep_seconds=3600) as store:
        await store.write([begin(make_record("s1"), make_entry(1)), begin(make_record("s2"), make_entry(1))])
        before = await ask("--scan", "--pattern", f"{prefix}*")
        assert {key for key in before if "s1" in key} == {
            f"{prefix}:{{s1}}:record",
            f"{prefix}:{{s1}}:journal",
        }
        assert await store.delete("s1")
        await store.scrub()
        assert await ask("--scan", "--pattern", f"{prefix}*") == {key for key in before if "s1" not in key}
        for index in ("places", "expiry"):
            [member] = await ask("ZRANGE", f"{prefix}:{index}", "0", "-1")
            assert "s2" in member
