"""RedisStore: keeps sessions where several nodes reach them; Redis 6 or later, or Valkey, alone, with Sentinel or as a cluster.

For each session a hash ``PREFIX:{id}:record`` and a stream ``PREFIX:{id}:journal`` whose ids are the entries' numbers, so
that Redis itself refuses one that is not above the last. The braces put both into one slot of a cluster. A write is one
script, because epoch and last number must not change between the look and the write; sessions of a batch go out
together and don't wait for each other. Two sorted sets say which sessions there are and when each expires; they are
written behind the session, and what is missing there for a moment is added by the next write. In the second one the
sessions that have not ended, those that say how long they are kept, and all others stand apart (``EXPIRES_BAND``,
``ENDED_BAND``), so that many of one kind never hide one of another. Keys have a time to live too, twice as long as is
meant, in case that nobody is left to delete them.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import coredis
import coredis.exceptions
import trio

from voice_agent.core.errors import JournalHoleError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.core.units import SECONDS
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

OPERATION_SECONDS: Final = 2 * SECONDS
"""A Redis that takes longer is not there: frozen, swapping, or cut off."""
MAX_CONNECTIONS: Final = 16
EXPIRES_BAND: Final = 1e12
"""Added to the times of ended sessions that say when they are to be deleted; more than any Unix time in seconds."""
ENDED_BAND: Final = 2e12
"""Added to the times at which the other ones ended. A double of that size still tells milliseconds apart."""
CLAIM_ATTEMPTS: Final = 5
PAGE_STEP: Final = 200

_FENCED: Final = 0
_ACCEPTED: Final = 1

WRITE_SCRIPT: Final = """
-- KEYS: record, journal. ARGV: epoch, record or '', seconds to live, then number, seq, heard and text of each entry.
-- Answers 1 accepted, 0 fenced, -n: number n was expected.
local known = redis.call('HMGET', KEYS[1], 'epoch', 'number')
if not known[1] and ARGV[2] == '' then return 0 end
if known[1] and tonumber(known[1]) > tonumber(ARGV[1]) then return 0 end
local last = tonumber(known[2] or 0)
local expected = last + 1
for i = 4, #ARGV, 4 do
  local number = tonumber(ARGV[i])
  if number > expected then return -expected end
  if number == expected then expected = expected + 1 end
end
for i = 4, #ARGV, 4 do
  local number = tonumber(ARGV[i])
  if number > last then
    redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 'entry', ARGV[i + 3])
    redis.call('HSET', KEYS[1], 'number', number, 'seq', ARGV[i + 1], 'heard', ARGV[i + 2])
  end
end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'record', ARGV[2], 'epoch', ARGV[1]) end
if ARGV[2] ~= '' then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
redis.call('EXPIRE', KEYS[2], redis.call('TTL', KEYS[1]))
return 1
"""

CLAIM_SCRIPT: Final = """
-- KEYS: record. ARGV: the record that was judged, the record to be, its epoch. Answers 1 when nobody came between.
if redis.call('HGET', KEYS[1], 'record') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[2], 'epoch', ARGV[3])
return 1
"""

_Result = TypeVar("_Result")
Client = coredis.Redis[bytes] | coredis.RedisCluster[bytes]


class RedisStore:
    """A :class:`~voice_agent.session.store.protocol.Store`; use :func:`open_redis_store` to get one."""

    def __init__(self, client: Client, *, prefix: str, keep_seconds: float) -> None:
        self._client = client
        self._prefix = prefix
        self._keep_seconds = max(1, round(keep_seconds))
        self._write = client.register_script(WRITE_SCRIPT)
        self._claim = client.register_script(CLAIM_SCRIPT)

    async def write(self, batch: Sequence[Write]) -> Sequence[Outcome]:
        """As the protocol says; each session's part is atomic by itself."""
        outcomes: list[Outcome | None] = [None] * len(batch)
        by_session: dict[str, list[int]] = {}
        for place, write in enumerate(batch):
            by_session.setdefault(write.session_id, []).append(place)

        async def write_one(places: list[int]) -> None:
            for place in places:
                outcomes[place] = await self._write_one(batch[place])

        async def write_all() -> None:
            async with trio.open_nursery() as nursery:
                for places in by_session.values():
                    nursery.start_soon(write_one, places)

        await _bounded(write_all)
        return [outcome for outcome in outcomes if outcome is not None]

    async def _write_one(self, write: Write) -> Outcome:
        arguments: list[str | int] = [
            write.epoch,
            "" if write.record is None else dump_record(write.record),
            self._seconds_to_live(write.record),
        ]
        for entry in write.entries:
            arguments += [entry.number, entry.seq, entry.heard_ms, dump_entry(entry)]
        answer = int(
            await self._write.execute(  # type: ignore[arg-type]  # the script answers with a number
                keys=[self._key(write.session_id, "record"), self._key(write.session_id, "journal")],
                args=arguments,
            )
        )
        if answer < 0:
            raise JournalHoleError(
                f"entry {[e.number for e in write.entries]} came where {-answer} was expected"
            )
        if answer == _FENCED:
            return Outcome.FENCED
        if write.record is not None:
            await self._index(write.record)
        return Outcome.ACCEPTED

    def _seconds_to_live(self, record: SessionRecord | None) -> int:
        if record is None:
            return self._keep_seconds
        kept = max(self._keep_seconds, 2 * (record.retention_seconds or 0.0))
        return round(kept + record.resumable_until - record.updated_at)

    async def _index(self, record: SessionRecord) -> None:
        await self._client.zadd(self._set("places"), {cursor_of(record): 0})
        await self._client.zadd(self._set("expiry"), {record.session_id: _expiry_score(record)})

    async def claim(self, claim: Claim) -> Claimed:
        """As the protocol says."""
        return await _bounded(lambda: self._try_claim(claim))

    async def _try_claim(self, claim: Claim) -> Claimed:
        key = self._key(claim.session_id, "record")
        for _ in range(CLAIM_ATTEMPTS):
            text, number, seq, heard = await self._client.hmget(key, ["record", "number", "seq", "heard"])
            record = judge(claim, None if text is None else load_record(text))
            assert text is not None  # noqa: S101 (judged)
            answer = await self._claim.execute(keys=[key], args=[text, dump_record(record), record.epoch])
            if int(answer) == _ACCEPTED:  # type: ignore[arg-type]  # the script answers with a number
                await self._index(record)
                return Claimed(
                    record=record,
                    last_number=int(number or 0),
                    last_seq=int(seq or 0),
                    heard_ms=int(heard or 0),
                )
        raise StoreUnavailableError("the session's record changes too fast to be claimed; try again")

    async def record(self, session_id: str) -> SessionRecord | None:
        """As the protocol says."""
        text = await _bounded(lambda: self._client.hget(self._key(session_id, "record"), "record"))
        return None if text is None else load_record(text)

    async def journal(self, session_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[JournalEntry]:
        """As the protocol says."""
        found = await _bounded(
            lambda: self._client.xrange(
                self._key(session_id, "journal"), start=f"({after}-0", end="+", count=limit
            )
        )
        return tuple(load_entry(_bytes(item.field_values)) for item in found)

    async def select(self, selection: Selection, *, cursor: str | None = None, limit: int = 100) -> Page:
        """As the protocol says; looks at all sessions, page by page, so a rare key takes many looks."""
        return await _bounded(lambda: self._select(selection, cursor, limit))

    async def _select(self, selection: Selection, cursor: str | None, limit: int) -> Page:
        found: list[SessionRecord] = []
        top = "+" if cursor is None else f"({cursor}"
        while len(found) <= limit:
            places = await self._client.zrange(
                self._set("places"),
                top,
                "-",
                sortby=coredis.PureToken.BYLEX,
                rev=True,
                offset=0,
                count=PAGE_STEP,
            )
            for place in places:
                session_id = _text(place).partition(":")[2]
                text = await self._client.hget(self._key(session_id, "record"), "record")
                if text is None:
                    await self._client.zrem(self._set("places"), [place])  # its time to live is over
                else:
                    found += [record for record in load_records([text]) if matches(selection, record)]
            if len(places) < PAGE_STEP:
                break
            top = f"({_text(places[-1])}"
        page = tuple(found[:limit])
        return Page(records=page, next_cursor=cursor_of(page[-1]) if len(found) > limit else None)

    async def delete(self, session_id: str) -> bool:
        """As the protocol says."""

        async def delete() -> bool:
            record = await self.record(session_id)
            if record is not None:
                await self._client.zrem(self._set("places"), [cursor_of(record)])
            await self._client.zrem(self._set("expiry"), [session_id])
            keys = [self._key(session_id, "record"), self._key(session_id, "journal")]
            return await self._client.delete(keys) > 0

        return await _bounded(delete)

    async def scrub(self) -> None:
        """Redis forgets by itself; its append-only file does when it is rewritten, which is its operator's to decide."""
        await trio.lowlevel.checkpoint()

    async def expired(self, *, now: float, retention_seconds: float, limit: int) -> Sequence[SessionRecord]:
        """As the protocol says."""
        ended_before = now - retention_seconds

        async def look() -> tuple[SessionRecord, ...]:
            found: list[SessionRecord] = []
            for low, high in (
                (0.0, now),
                (EXPIRES_BAND, EXPIRES_BAND + now),
                (ENDED_BAND, ENDED_BAND + ended_before),
            ):
                ids = await self._client.zrange(
                    self._set("expiry"),
                    low,
                    high,
                    sortby=coredis.PureToken.BYSCORE,
                    offset=0,
                    count=limit - len(found),
                )
                for session_id in map(_text, ids):
                    text = await self._client.hget(self._key(session_id, "record"), "record")
                    if text is None:
                        await self._client.zrem(self._set("expiry"), [session_id])
                    for record in load_records([] if text is None else [text]):
                        if is_expired(record, now=now, retention_seconds=retention_seconds):
                            found.append(record)
                        else:  # it was written while the index could not be
                            await self._index(record)
                if len(found) >= limit:
                    break
            return tuple(found)

        return await _bounded(look)

    async def check(self) -> None:
        """Write and read something small."""

        async def check() -> None:
            await self._client.set(self._set("check"), b"ok", ex=60)
            await self._client.get(self._set("check"))

        await _bounded(check)

    def _key(self, session_id: str, part: str) -> str:
        return f"{self._prefix}:{{{session_id}}}:{part}"

    def _set(self, name: str) -> str:
        return f"{self._prefix}:{name}"


@asynccontextmanager
async def open_redis_store(
    url: str, *, prefix: str = "voice-agent", keep_seconds: float
) -> AsyncIterator[RedisStore]:
    """Connect to one Redis, ``redis://user:password@host:port/db`` or ``rediss://`` with TLS.

    Raises:
        StoreUnavailableError: it can't be reached.
    """
    client = coredis.Redis.from_url(
        url,
        connect_timeout=OPERATION_SECONDS,
        stream_timeout=OPERATION_SECONDS,
        max_connections=MAX_CONNECTIONS,
    )
    async with _translated(client):
        yield RedisStore(client, prefix=prefix, keep_seconds=keep_seconds)


@asynccontextmanager
async def _translated(client: Any) -> AsyncIterator[None]:
    try:
        async with client:
            yield
    except* (coredis.exceptions.RedisError, OSError) as group:
        raise StoreUnavailableError(f"Redis can't be reached ({_first(group)})") from group


async def _bounded(job: Callable[[], Awaitable[_Result]]) -> _Result:
    """Do it within the time that an operation may take; whatever Redis or the network raises is one error."""
    try:
        with trio.fail_after(OPERATION_SECONDS):
            return await job()
    except (coredis.exceptions.RedisError, OSError, trio.TooSlowError) as error:
        raise StoreUnavailableError(f"Redis can't be used now ({error!r})") from error
    except ExceptionGroup as group:
        holes = group.subgroup(JournalHoleError)
        if holes is not None:
            raise _first(holes) from group
        if group.split((coredis.exceptions.RedisError, OSError, trio.TooSlowError))[1] is None:
            raise StoreUnavailableError(f"Redis can't be used now ({_first(group)!r})") from group
        raise


def _expiry_score(record: SessionRecord) -> float:
    if record.ended_at is None:
        return record.resumable_until
    if record.expires_at is not None:
        return EXPIRES_BAND + record.expires_at
    return ENDED_BAND + record.ended_at


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bytes(fields: Any) -> bytes:
    value: bytes = next(value for key, value in fields.items() if _text(key) == "entry")
    return value
