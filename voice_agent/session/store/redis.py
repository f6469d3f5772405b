"""RedisStore: keeps sessions where several nodes reach them; Redis 6 or later, or Valkey, alone, with Sentinel or as a cluster.

For each session a hash ``PREFIX:{id}:record`` and a stream ``PREFIX:{id}:journal`` whose ids are the entries' numbers, so
that Redis itself refuses one that is not above the last. The braces put both into one slot of a cluster. A write is one
script, because epoch and last number must not change between the look and the write; sessions of a batch go out
together and don't wait for each other. Two sorted sets say which sessions there are and when each expires; they are
written behind the session, and what is missing there for a moment is added by the next write. In the second one the
sessions that have not ended, those that say how long they are kept, and all others stand apart (``EXPIRES_BAND``,
``ENDED_BAND``), so that many of one kind never hide one of another. Keys have a time to live too, twice as long as is
meant, in case that nobody is left to delete them.

What was sent to a Redis that froze is carried out when it thaws, when the same and later writes may have arrived on
another connection. Entries that are there are passed over; a record is, where a later one has replaced it already.
"""

import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import Any, Final, TypeVar

import coredis
import trio
from coredis.commands.script import Script

from voice_agent.core.errors import JournalHoleError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.core.units import MS, SECONDS
from voice_agent.session.store.codec import dump_entry, dump_record, load_entry, load_record, load_records
from voice_agent.session.store.ownership import judge
from voice_agent.session.store.protocol import (
    Claim,
    Claimed,
    Outcome,
    Page,
    Selection,
    Write,
    cursor_of,
    is_expired,
    matches,
)
from voice_agent.session.store.redis_link import Client, RedisLink, open_redis_link
from voice_agent.session.store.redis_scripts import ACCEPTED, CLAIM_SCRIPT, FENCED, WRITE_SCRIPT
from voice_agent.settings.redis_address import parse_redis_address

REPLICATION_SECONDS: Final = 1 * SECONDS
"""Replicas that confirm later than this don't count; below what an operation may take."""
EXPIRES_BAND: Final = 1e12
"""Added to the times of ended sessions that say when they are to be deleted; more than any Unix time in seconds."""
ENDED_BAND: Final = 2e12
"""Added to the times at which the other ones ended. A double of that size still tells milliseconds apart."""
CLAIM_ATTEMPTS: Final = 5
PAGE_STEP: Final = 200
MAX_LOOKS: Final = 10
"""Pages of sessions that are looked through for one answer; whoever asks for a rare key asks again, and others get their turn."""
CHECKED: Final = "check"
"""The session that is none."""
CHECK_SECONDS: Final = 60
INDEX_SLACK_SECONDS: Final = 10 * SECONDS
"""The index follows a lease that moves with each write in steps; less than leases last beyond their renewal."""
MAX_REMEMBERED: Final = 10_000
"""Sessions whose place in the index is known to be written; the index is written again for those beyond."""

_Item = TypeVar("_Item")


class RedisStore:
    """A :class:`~voice_agent.session.store.protocol.Store`; use :func:`open_redis_store` to get one."""

    def __init__(
        self,
        link: RedisLink,
        *,
        prefix: str,
        keep_seconds: float | Callable[[], float],
        wait_replicas: int = 0,
    ) -> None:
        self._link = link
        self._prefix = prefix
        self._keep_seconds = keep_seconds if callable(keep_seconds) else lambda: keep_seconds
        self._wait_replicas = wait_replicas
        self._write: Script[bytes] = Script(script=WRITE_SCRIPT)
        self._claim: Script[bytes] = Script(script=CLAIM_SCRIPT)
        self._indexed: OrderedDict[str, float] = OrderedDict()
        """When each session expires, by the index as it was written last."""

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """As the protocol says; each session's part is atomic by itself."""
        by_session: dict[str, list[int]] = {}
        for place, write in enumerate(batch):
            by_session.setdefault(write.session_id, []).append(place)
        outcomes: list[Outcome | None] = [None] * len(batch)

        async def write_all(client: Client) -> None:
            async def write_one(places: list[int]) -> None:
                for place in places:
                    outcomes[place] = await self._write_one(client, batch[place])

            await _for_each(write_one, by_session.values())

        await self._link.ask(write_all)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _write_one(self, client: Client, write: Write) -> Outcome:
        record = write.record
        arguments: list[str | int | float] = [
            write.epoch,
            "" if record is None else dump_record(record),
            self._seconds_to_live(record),
            0 if record is None else record.updated_at,
        ]
        for entry in write.entries:
            arguments += [entry.number, entry.seq, entry.heard_ms, dump_entry(entry)]
        keys = [self._key(write.session_id, "record"), self._key(write.session_id, "journal")]
        answer = await self._run(client, self._write, keys, arguments)
        if answer < 0:
            raise JournalHoleError(
                f"entry {[e.number for e in write.entries]} came where {-answer} was expected"
            )
        if answer == FENCED:
            return Outcome.FENCED
        if record is not None:
            await self._index(client, record)
        return Outcome.ACCEPTED

    async def _run(
        self, client: Client, script: Script[bytes], keys: list[str], arguments: Sequence[str | int | float]
    ) -> int:
        """Run a script that changes something; with replicas asked for, wait until they have it too."""
        milliseconds = round(REPLICATION_SECONDS / MS)
        waiting = (
            client.ensure_replication(self._wait_replicas, milliseconds)
            if self._wait_replicas
            else nullcontext()
        )
        with waiting:
            return int(await script.execute(keys, arguments, client))  # type: ignore[arg-type]  # they answer with numbers

    def _seconds_to_live(self, record: SessionRecord | None) -> int:
        if record is None:
            return max(1, round(self._keep_seconds()))
        kept = max(1.0, self._keep_seconds(), 2 * (record.retention_seconds or 0.0))
        return round(kept + record.abandoned_at - record.updated_at)

    async def _index(self, client: Client, record: SessionRecord) -> None:
        score = _expiry_score(record)
        known = self._indexed.get(record.session_id)
        if known is not None and abs(score - known) < INDEX_SLACK_SECONDS:
            return
        if known is None:
            await client.zadd(self._set("places"), {cursor_of(record): 0})
        await client.zadd(self._set("expiry"), {record.session_id: score})
        self._indexed[record.session_id] = score
        self._indexed.move_to_end(record.session_id)
        if len(self._indexed) > MAX_REMEMBERED:
            self._indexed.popitem(last=False)

    async def claim(self, claim: Claim) -> Claimed:
        """As the protocol says."""
        return await self._link.ask(lambda client: self._try_claim(client, claim))

    async def _try_claim(self, client: Client, claim: Claim) -> Claimed:
        key = self._key(claim.session_id, "record")
        for _ in range(CLAIM_ATTEMPTS):
            text, number, seq, heard = await client.hmget(key, ["record", "number", "seq", "heard"])
            record = judge(claim, None if text is None else load_record(text))
            assert text is not None  # noqa: S101 (judged)
            changed: list[str | int | float] = [
                _text(text),
                dump_record(record),
                record.epoch,
                record.updated_at,
            ]
            if await self._run(client, self._claim, [key], changed) == ACCEPTED:
                await self._index(client, record)
                return Claimed(
                    record=record,
                    last_number=int(number or 0),
                    last_seq=int(seq or 0),
                    heard_ms=int(heard or 0),
                )
        raise StoreUnavailableError("the session's record changes too fast to be claimed; try again")

    async def record(self, session_id: str) -> SessionRecord | None:
        """As the protocol says."""
        return await self._link.ask(lambda client: self._record(client, session_id))

    async def _record(self, client: Client, session_id: str) -> SessionRecord | None:
        text = await client.hget(self._key(session_id, "record"), "record")
        return None if text is None else load_record(text)

    async def journal(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """As the protocol says."""
        key = self._key(session_id, "journal")
        found = await self._link.ask(
            lambda client: client.xrange(key, start=f"({after}-0", end="+", count=limit)
        )
        return tuple(load_entry(_bytes(item.field_values)) for item in found)

    async def select(self, selection: Selection, *, cursor: str | None = None, limit: int = 100) -> Page:
        """As the protocol says; where few match, the page is short, and the cursor leads on."""
        found: list[SessionRecord] = []
        last = cursor
        for _ in range(MAX_LOOKS):
            places, texts = await self._link.ask(partial(self._page, top="+" if last is None else f"({last}"))
            found += [record for record in load_records(texts) if matches(selection, record)]
            last = places[-1] if len(places) == PAGE_STEP else None
            if len(found) > limit or last is None:
                break
        page = tuple(found[:limit])
        return Page(records=page, next_cursor=cursor_of(page[-1]) if len(found) > limit else last)

    async def _page(self, client: Client, top: str) -> tuple[list[str], list[bytes]]:
        """Return the next places, and the records that are there; those of one page are asked for together."""
        found = await client.zrange(
            self._set("places"),
            top,
            "-",
            sortby=coredis.PureToken.BYLEX,
            rev=True,
            offset=0,
            count=PAGE_STEP,
        )
        places = [_text(place) for place in found]
        texts = await self._texts(client, [place.partition(":")[2] for place in places])
        gone = [place for place, text in zip(places, texts, strict=True) if text is None]
        if gone:
            await client.zrem(self._set("places"), gone)  # their time to live is over
        return places, [text for text in texts if text is not None]

    async def _texts(self, client: Client, session_ids: Sequence[str]) -> list[bytes | None]:
        texts: list[bytes | None] = [None] * len(session_ids)

        async def read(place: int) -> None:
            texts[place] = await client.hget(self._key(session_ids[place], "record"), "record")

        await _for_each(read, range(len(session_ids)))
        return texts

    async def delete(self, session_id: str) -> bool:
        """As the protocol says."""

        async def delete(client: Client) -> bool:
            record = await self._record(client, session_id)
            if record is not None:
                await client.zrem(self._set("places"), [cursor_of(record)])
            await client.zrem(self._set("expiry"), [session_id])
            keys = [self._key(session_id, "record"), self._key(session_id, "journal")]
            return await client.delete(keys) > 0

        self._indexed.pop(session_id, None)
        return await self._link.ask(delete)

    async def scrub(self) -> None:
        """Redis forgets by itself; its append-only file does when it is rewritten, which is its operator's to decide."""
        await trio.lowlevel.checkpoint()

    async def expired(self, *, now: float, retention_seconds: float, limit: int) -> Sequence[SessionRecord]:
        """As the protocol says."""

        async def look(client: Client) -> tuple[SessionRecord, ...]:
            found: list[SessionRecord] = []
            for low, high in (
                (0.0, now),
                (EXPIRES_BAND, EXPIRES_BAND + now),
                (ENDED_BAND, ENDED_BAND + now - retention_seconds),
            ):
                for record in await self._indexed_between(client, low, high, limit - len(found)):
                    if is_expired(record, now=now, retention_seconds=retention_seconds):
                        found.append(record)
                    else:  # it was written while the index could not be
                        self._indexed.pop(record.session_id, None)
                        await self._index(client, record)
                if len(found) >= limit:
                    break
            return tuple(found)

        return await self._link.ask(look)

    async def _indexed_between(
        self, client: Client, low: float, high: float, limit: int
    ) -> Sequence[SessionRecord]:
        found = await client.zrange(
            self._set("expiry"), low, high, sortby=coredis.PureToken.BYSCORE, offset=0, count=limit
        )
        session_ids = [_text(session_id) for session_id in found]
        texts = await self._texts(client, session_ids)
        gone = [each for each, text in zip(session_ids, texts, strict=True) if text is None]
        if gone:
            await client.zrem(self._set("expiry"), gone)
        return tuple(load_records([text for text in texts if text is not None]))

    async def check(self) -> None:
        """Write and read something small."""
        await self._link.ask(self._check)

    async def _check(self, client: Client) -> None:
        await client.set(self._set("check"), b"ok", ex=CHECK_SECONDS)
        await client.get(self._set("check"))

    async def try_rights(self, client: Client) -> None:
        """Do once what calls will need, on a session that is none, and leave nothing behind."""
        await self._check(client)
        keys = [self._key(CHECKED, "record"), self._key(CHECKED, "journal"), self._set("check-index")]
        for key in keys:  # an earlier start may have been stopped between two of them
            await client.delete([key])
        await self._run(client, self._write, keys[:2], [1, "{}", CHECK_SECONDS, 1, 1, 1, 0, "{}"])
        await self._run(client, self._claim, keys[:1], ["{}", "{}", 1, 1])
        await client.hmget(keys[0], ["record", "number"])
        await client.hget(keys[0], "record")
        await client.xrange(keys[1], count=1)
        await client.zadd(keys[2], {CHECKED: 0})
        for index in (self._set("places"), self._set("expiry")):
            await client.zrange(index, "+", "-", sortby=coredis.PureToken.BYLEX, rev=True, offset=0, count=1)
            await client.zrem(index, [CHECKED])
        for key in keys:
            await client.delete([key])

    async def run_script(self, script: str, names: Sequence[str], arguments: Sequence[str | float]) -> Any:
        """Let another room run a script on keys below this store's prefix; they must lie in one slot of a cluster."""
        keys = [self._set(name) for name in names]
        registered: Script[bytes] = Script(script=script)
        return await self._link.ask(lambda client: registered.execute(keys, list(arguments), client))

    def _key(self, session_id: str, part: str) -> str:
        return f"{self._prefix}:{{{session_id}}}:{part}"

    def _set(self, name: str) -> str:
        return f"{self._prefix}:{name}"


@asynccontextmanager
async def open_redis_store(
    url: str,
    *,
    prefix: str = "voice-agent",
    keep_seconds: float | Callable[[], float],
    tls: ssl.SSLContext | None = None,
    wait_replicas: int = 0,
) -> AsyncIterator[RedisStore]:
    """Keep sessions in the Redis of a URL, as :mod:`voice_agent.settings.redis_address` reads it.

    ``keep_seconds`` is how long a session is kept behind its last write when nobody deletes it, or a function that is
    asked at each write; a session that says itself how long it is kept is there twice as long. ``wait_replicas`` is how many
    replicas must have a write before it counts as kept. A Redis that is away doesn't stop the start.

    Raises:
        StoreRefusedError: it is there, and refuses login, rights or certificate.
        ValueError: the URL is none.
    """
    address = parse_redis_address(url)
    if address.is_encrypted:
        tls = tls or ssl.create_default_context()
    async with open_redis_link(address, tls=tls) as link:
        store = RedisStore(link, prefix=prefix, keep_seconds=keep_seconds, wait_replicas=wait_replicas)
        if (refusal := await link.refusal(store.try_rights)) is not None:
            raise refusal
        yield store


async def _for_each(job: Callable[[_Item], Awaitable[None]], items: Iterable[_Item]) -> None:
    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(job, item)


def _expiry_score(record: SessionRecord) -> float:
    if record.ended_at is None:
        return record.abandoned_at
    if record.expires_at is not None:
        return EXPIRES_BAND + record.expires_at
    return ENDED_BAND + record.ended_at


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bytes(fields: Any) -> bytes:
    value: bytes = next(value for key, value in fields.items() if _text(key) == "entry")
    return value
