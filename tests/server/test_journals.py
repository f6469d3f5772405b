"""What is kept, over HTTP and without a wire: who sees what of it, page by page, exported and deleted."""

import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
import pytest
from quart_trio import QuartTrio

from voice_agent.access.admitted import SCOPE_KEY, Admitted
from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.identity import EVERY_TENANT, Identity, Scope
from voice_agent.core.journal import PATIENCE_SECONDS, EntryKind, JournalEntry, RecordState, SessionRecord
from voice_agent.observability.audit import open_audit
from voice_agent.observability.metrics import Metrics
from voice_agent.server import journals as journals_module
from voice_agent.server.journals import PAGE_ENTRIES, Journals
from voice_agent.session.registry import CallRegistry
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.web.app import Readiness, create_app
from voice_agent.web.journal_export import PIECE_BYTES, JournalExport
from voice_agent.web.journal_routes import create_journal_routes
from voice_agent.web.sender import Sender

NOW = 10_000.0


def somebody(key: str, tenant: str, *scopes: Scope) -> Identity:
    return Identity(key_id=key, tenant=tenant, scopes=frozenset(scopes or Scope))


ACME = somebody("acme-1", "acme")
OTHER = somebody("other-1", "other")
EVERYBODY = somebody("root", EVERY_TENANT)
WATCHER = somebody("watcher", "acme", Scope.OBSERVE)
CALLER = somebody("caller", "acme", Scope.CALL)


class CountingStore(MemoryStore):
    """Notes how much was read at once; may be away, or have files that can't be wiped now."""

    def __init__(self) -> None:
        super().__init__()
        self.most_read = 0
        self.is_away = False
        self.scrubs = 0
        self.can_scrub = True

    async def record(self, session_id: str) -> SessionRecord | None:
        if self.is_away:
            raise StoreUnavailableError("the store's file /secret/place can't be used now")
        return await super().record(session_id)

    async def select(self, *args: Any, **kwargs: Any) -> Any:
        if self.is_away:
            raise StoreUnavailableError("the store's file /secret/place can't be used now")
        return await super().select(*args, **kwargs)

    async def journal(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        if self.is_away:
            raise StoreUnavailableError("the store's file /secret/place can't be used now")
        found = await super().journal(session_id, after=after, limit=limit)
        self.most_read = max(self.most_read, len(found))
        return found

    async def scrub(self) -> None:
        if not self.can_scrub:
            raise StoreUnavailableError("another process reads it")
        self.scrubs += 1


def record(session_id: str, **changes: Any) -> SessionRecord:
    fields: dict[str, Any] = {
        "key_id": "k1",
        "tenant": "acme",
        "wire": "websocket",
        "encoding": "pcm_s16le",
        "sample_rate": 16_000,
        "channels": 1,
        "language": "en",
        "agent": "none",
        "settings_version": 1,
        "node": "n1",
        "opened_at": 1_000.0,
        "updated_at": 2_000.0,
        "lease_until": 2_000.0,
        "resumable_seconds": 60.0,
        "token_sha256": "hash-of-a-token",
        "used_tokens": ("hash-of-a-token-before",),
        "ended_at": 2_000.0,
        "close_reason": "stopped",
        "state": RecordState.ENDED,
    }
    return SessionRecord(session_id=session_id, **{**fields, **changes})


def running(session_id: str, **changes: Any) -> SessionRecord:
    fields = {"state": RecordState.OPEN, "ended_at": None, "close_reason": None, "lease_until": NOW + 20}
    return record(session_id, **{**fields, **changes})


def entry(number: int, kind: EntryKind, **body: Any) -> JournalEntry:
    return JournalEntry(
        number=number, seq=2 * number, kind=kind, at=1_000.5, position_ms=900, heard_ms=800, body=body
    )


def final(number: int, text: str) -> JournalEntry:
    return entry(
        number, EntryKind.FINAL, text=text, stable=text, words=[], start=0.5, end=1.5, utterance=number
    )


JOURNAL = (
    final(1, "It was the best of times."),
    entry(2, EntryKind.NOTICE, code="no_words", message="No words.", detail={"utterance": 2}),
    entry(3, EntryKind.HEARD),
    entry(4, EntryKind.GAP, messages=7, first_seq=6, last_seq=8, seconds=4.0),
    entry(5, EntryKind.REPLY, text="What the agent said."),
    final(6, "It was the worst of times."),
    entry(7, EntryKind.CLOSED, reason="stopped"),
)


@attrs.define
class Place:
    """A server's store and its web application."""

    store: CountingStore = attrs.field(factory=CountingStore)
    journals: Journals = attrs.field(init=False)
    app: QuartTrio = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journals = Journals(
            store=self.store,
            registry=CallRegistry(100),
            retention_seconds=lambda: 3_600.0,
            now=lambda: NOW,
        )
        self.app = create_app(
            metrics=Metrics(),
            readiness=lambda: Readiness(is_ready=True, detail={}),
            routes=[create_journal_routes(self.journals)],
        )

    async def keep(self, one: SessionRecord, *entries: JournalEntry) -> None:
        [outcome] = await self.store.write(
            [Write(session_id=one.session_id, epoch=1, entries=entries, record=one)]
        )
        assert outcome is Outcome.ACCEPTED

    def client(self, who: Identity) -> Any:
        client = self.app.test_client()
        client.open = partial(
            client.open, scope_base={SCOPE_KEY: Admitted(identity=who, address="192.0.2.7", fault=None)}
        )
        return client

    async def get(self, who: Identity, path: str, status: int = 200) -> Any:
        answer = await self.client(who).get(f"/v1/journals{path}")
        assert answer.status_code == status, await answer.get_data()
        return json.loads(await answer.get_data())

    async def lines(self, who: Identity, session_id: str) -> list[dict[str, Any]]:
        answer = await self.client(who).get(f"/v1/journals/{session_id}/export")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in (await answer.get_data()).splitlines()]


@pytest.fixture
def place() -> Place:
    return Place()


@pytest.fixture
def audited() -> Callable[[], list[tuple[str, str, str]]]:
    """Return actor, action and target of what was audited."""
    stream = io.StringIO()
    open_audit("", stream)

    def lines() -> list[tuple[str, str, str]]:
        told = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [(one["actor"], one["action"], one["target"]) for one in told if one["outcome"] == "done"]

    return lines


async def test_sessions_are_listed_the_newest_first_with_filters_and_pages(place: Place) -> None:
    """Each once, one's own tenant's only, without tokens; the cursor leads on."""
    for n in range(5):
        await place.keep(record(f"s{n}", opened_at=1_000.0 + n, key_id=f"k{n % 2}"))
    await place.keep(running("s5", opened_at=1_005.0))
    await place.keep(record("foreign", tenant="other"))
    found: list[str] = []
    path = "?limit=4"
    while True:
        page = await place.get(WATCHER, path)
        found += [one["id"] for one in page["journals"]]
        if page["next"] is None:
            break
        path = f"?limit=4&cursor={page['next']}"
    assert found == ["s5", "s4", "s3", "s2", "s1", "s0"]
    assert [one["id"] for one in (await place.get(ACME, "?state=open"))["journals"]] == ["s5"]
    assert [one["id"] for one in (await place.get(ACME, "?key=k1&state=ended"))["journals"]] == ["s3", "s1"]
    assert len((await place.get(EVERYBODY, ""))["journals"]) == 7
    assert [one["id"] for one in (await place.get(OTHER, ""))["journals"]] == ["foreign"]
    for wrong in ("?limit=0", "?limit=201", "?state=live", "?cursor=x", "?wire=webrtc"):
        assert (await place.get(ACME, wrong, 400))["code"] == "invalid_field"


async def test_a_record_is_shown_without_its_tokens_and_with_when_it_goes(place: Place) -> None:
    """By the setting, or by what the session says itself; a running one has no such time yet."""
    await place.keep(record("s1"))
    await place.keep(record("s2", retention_seconds=60.0))
    await place.keep(running("s3"))
    shown = await place.get(WATCHER, "/s1")
    assert "token" not in json.dumps(shown)
    assert (shown["opened_at"], shown["ended_at"]) == (
        "1970-01-01T00:16:40.000Z",
        "1970-01-01T00:33:20.000Z",
    )
    assert shown["delete_at"] == "1970-01-01T01:33:20.000Z"
    assert (await place.get(WATCHER, "/s2"))["delete_at"] == "1970-01-01T00:34:20.000Z"
    assert (await place.get(WATCHER, "/s3"))["delete_at"] is None


@pytest.mark.parametrize("path", ["", "/entries", "/transcript", "/export"])
async def test_others_sessions_are_not_there(place: Place, path: str) -> None:
    """One of another tenant is answered as one that never was, and so is what no id can be."""
    await place.keep(record("s1"), *JOURNAL)
    answers = [
        await place.get(OTHER, f"/{session_id}{path}", 404)
        for session_id in ("s1", "nobody", "%7Bs1%7D", "s1%0A", "x" * 200)
    ]
    assert all(answer == answers[0] for answer in answers)
    answer = await place.client(OTHER).delete("/v1/journals/s1")
    assert answer.status_code == 404
    assert await place.store.record("s1") is not None


async def test_scopes(place: Place) -> None:
    """Who may only call reads nothing; who may only observe reads no transcript and deletes nothing."""
    await place.keep(record("s1"), *JOURNAL)
    for path in ("", "/s1", "/s1/entries", "/s1/transcript", "/s1/export"):
        await place.get(CALLER, path, 403)
    await place.get(WATCHER, "/s1/transcript", 403)
    assert (await place.client(WATCHER).delete("/v1/journals/s1")).status_code == 403
    assert await place.store.record("s1") is not None


async def test_entries_page_by_page_with_words_for_admins_alone(place: Place) -> None:
    """Every entry once, in order; for others finals say when and not what, and kinds with words say nothing."""
    await place.keep(record("s1"), *JOURNAL)
    found: list[dict[str, Any]] = []
    after = 0
    while after is not None:
        page = await place.get(ACME, f"/s1/entries?after={after}&limit=3")
        assert len(page["entries"]) <= 3
        found += page["entries"]
        after = page["next"]
    assert [one["number"] for one in found] == list(range(1, 8))
    assert [one["body"] for one in found] == [dict(one.body) for one in JOURNAL]
    assert found[0]["at"] == "1970-01-01T00:16:40.500Z"
    wordless = (await place.get(WATCHER, "/s1/entries"))["entries"]
    assert wordless[0]["body"] == {"start": 0.5, "end": 1.5, "utterance": 1}
    assert wordless[4]["body"] == {}
    assert [one["body"] for one in wordless[1:4]] == [dict(one.body) for one in JOURNAL[1:4]]
    assert "times" not in json.dumps(wordless)
    assert "agent said" not in json.dumps(wordless)
    assert (await place.get(ACME, "/s1/entries?after=-1", 400))["field"] == "after"


async def test_a_transcript_says_what_is_missing(
    place: Place, audited: Callable[[], list[tuple[str, str, str]]]
) -> None:
    """As JSON and as text; a gap in the journal is a line of its own, what was retracted is none. Who read it is audited."""
    await place.keep(record("s1"), *JOURNAL)
    told = await place.get(ACME, "/s1/transcript")
    assert told["is_complete"] is False
    assert [(line["text"], line["missing"]) for line in told["lines"]] == [
        ("It was the best of times.", 0),
        ("", 7),
        ("It was the worst of times.", 0),
    ]
    answer = await place.client(ACME).get("/v1/journals/s1/transcript?format=text")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert (await answer.get_data()).decode() == (
        "It was the best of times.\n[7 messages are not kept]\nIt was the worst of times.\n"
    )
    assert audited() == [("acme-1", "journal_read", "s1")] * 2
    await place.keep(
        record("s2"),
        final(1, "Who"),
        entry(2, EntryKind.RETRACTED, seq=2),
        attrs.evolve(final(3, "Whole."), seq=6),
    )
    told = await place.get(ACME, "/s2/transcript")
    assert (told["is_complete"], [line["text"] for line in told["lines"]]) == (True, ["Whole."])


async def test_an_export_has_everything_and_says_so(
    place: Place, audited: Callable[[], list[tuple[str, str, str]]]
) -> None:
    """Record, entries, and a last line that nothing is missing; without words for who may not read them."""
    await place.keep(record("s1"), *JOURNAL)
    first, *entries, last = await place.lines(ACME, "s1")
    assert first["record"] == await place.get(ACME, "/s1")
    assert [one["entry"]["body"] for one in entries] == [dict(one.body) for one in JOURNAL]
    assert last == {"end": {"entries": len(JOURNAL)}}
    assert audited() == [("acme-1", "journal_export", "s1")]
    assert "times" not in json.dumps(await place.lines(WATCHER, "s1"))
    answer = await place.client(ACME).head("/v1/journals/s1/export")
    assert answer.status_code == 200
    assert 's1.ndjson"' in answer.headers["content-disposition"]


async def test_a_long_journal_is_exported_without_being_held(place: Place) -> None:
    """A page at a time is read from the store, and pieces of a bounded size leave."""
    count = 25 * PAGE_ENTRIES
    await place.keep(record("long"), *(final(n, f"{n} " * 50) for n in range(1, count + 1)))
    who = Sender(ACME, "192.0.2.7")
    entries = await place.journals.entries(who, "long", "journal_export")
    export = JournalExport(await place.journals.find(who, "long"), entries, with_words=True)
    async with export:
        pieces = [piece async for piece in export]
    lines = b"".join(pieces).splitlines()
    assert len(lines) == count + 2
    assert json.loads(lines[-1]) == {"end": {"entries": count}}
    assert place.store.most_read == PAGE_ENTRIES
    assert max(map(len, pieces)) < 2 * PIECE_BYTES
    assert len(pieces) > 20


@pytest.mark.parametrize(("fault", "code"), [("away", "journals_unavailable"), ("deleted", "not_found")])
async def test_an_export_that_is_cut_short_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch, fault: str, code: str
) -> None:
    """The store goes away, or somebody deletes the session, while it is read: the last line is an error."""
    monkeypatch.setattr(journals_module, "PAGE_ENTRIES", 2)
    await place.keep(record("s1"), *JOURNAL)
    reads = 0
    journal = place.store.journal

    async def read(session_id: str, **which: int) -> Sequence[JournalEntry]:
        nonlocal reads
        reads += 1
        if reads == 3 and fault == "away":
            place.store.is_away = True
        elif reads == 3:
            await place.store.delete(session_id)
        return await journal(session_id, **which)

    monkeypatch.setattr(place.store, "journal", read)
    lines = await place.lines(ACME, "s1")
    assert [next(iter(line)) for line in lines] == ["record", *["entry"] * 4, "error"]
    assert lines[-1]["error"]["code"] == code


async def test_what_is_deleted_is_gone_and_audited(
    place: Place, audited: Callable[[], list[tuple[str, str, str]]]
) -> None:
    """204 once, 404 from then on; the store was told to wipe what stands in its files."""
    await place.keep(record("s1"), *JOURNAL)
    client = place.client(ACME)
    answer = await client.delete("/v1/journals/s1")
    assert (answer.status_code, await answer.get_data()) == (204, b"")
    assert place.store.scrubs == 1
    assert await place.store.record("s1") is None
    assert (await client.delete("/v1/journals/s1")).status_code == 404
    assert audited() == [("acme-1", "journal_delete", "s1")]


async def test_a_running_call_is_not_deleted(place: Place) -> None:
    """409 while somebody has it, here or elsewhere, or may come back; who detached or lost its server may be deleted."""
    await place.keep(running("running"), *JOURNAL)
    await place.keep(running("detached", state=RecordState.DETACHED))
    await place.keep(running("frozen", lease_until=NOW - 1))
    await place.keep(running("lost", lease_until=NOW - 60 - PATIENCE_SECONDS - 1))
    client = place.client(ACME)
    assert (await client.delete("/v1/journals/frozen")).status_code == 409
    answer = await client.delete("/v1/journals/running")
    assert answer.status_code == 409
    assert json.loads(await answer.get_data())["code"] == "session_running"
    assert len(await place.store.journal("running")) == len(JOURNAL)
    for gone in ("detached", "lost"):
        assert (await client.delete(f"/v1/journals/{gone}")).status_code == 204


async def test_a_store_that_is_away_is_a_typed_503(place: Place) -> None:
    """With no word about where it is; and a file that can't be wiped now is no success."""
    await place.keep(record("s1"), *JOURNAL)
    place.store.can_scrub = False
    answer = await place.client(ACME).delete("/v1/journals/s1")
    assert answer.status_code == 503
    assert "traces" in json.loads(await answer.get_data())["detail"]
    place.store.is_away = True
    for path in ("", "/s1", "/s1/entries", "/s1/transcript", "/s1/export"):
        problem = await place.get(ACME, path, 503)
        assert problem["code"] == "journals_unavailable"
        assert "secret" not in json.dumps(problem)
