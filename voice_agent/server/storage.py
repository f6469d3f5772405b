"""open_storage: from settings to a store, the task that writes to it, and the one that deletes what is old."""

import math
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

import attrs
import trio

from voice_agent.core.errors import SettingsError
from voice_agent.core.units import HOURS, MS
from voice_agent.observability.metrics import Metrics
from voice_agent.session.body_error import BodyError
from voice_agent.session.keeping import Storage
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Store
from voice_agent.session.store.retention import Expired, enforce_retention
from voice_agent.session.store.sqlite import open_sqlite_store
from voice_agent.session.store.writer import StoreState, WriterHooks, open_journal_writer
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import StoreSettings

FILE_NAME: Final = "voice-agent.db"
STATE_VARIABLE: Final = "STATE_DIRECTORY"
"""systemd names the folders of a unit's StateDirectory= in it (systemd.exec(5)), separated by colons."""


@attrs.frozen(kw_only=True)
class Stored:
    """A store that is open, and what writes to it."""

    store: Store
    storage: Storage


def file_of(settings: StoreSettings) -> Path:
    """Return where the SQLite file is."""
    if settings.path:
        return Path(settings.path)
    folder = os.environ.get(STATE_VARIABLE, "").partition(":")[0]
    return Path(folder) / FILE_NAME


@asynccontextmanager
async def open_storage(
    current: CurrentSettings,
    metrics: Metrics,
    *,
    node: str,
    seconds_left: Callable[[], float] = lambda: math.inf,
) -> AsyncIterator[Stored | None]:
    """Keep sessions for as long as the block lasts; then what waits is written. None where nothing is kept.

    ``node`` is what this process is called in the records. ``seconds_left`` is asked at the end how long the process may go on; what waits has no more than that.

    Raises:
        StoreCorruptError: what is kept can't be read.
        StoreRefusedError: the store refuses us.
        StoreUnavailableError: the store can't be opened.
    """
    settings = current.now.store
    if settings.kind == "none":
        yield None
        return

    def count(writes: int, seconds: float) -> None:
        metrics.store.commit_seconds.observe(seconds)
        metrics.store.commit_writes.observe(writes)

    def count_expired(expired: Expired) -> None:
        metrics.store.expired_total.labels("deleted").inc(expired.deleted)
        metrics.store.expired_total.labels("ended").inc(expired.ended)

    hooks = WriterHooks(on_state=lambda state: metrics.store.state.set(state.value), on_commit=count)
    metrics.store.state.set(StoreState.HEALTHY.value)
    body = BodyError()
    with body.unwrapped():
        async with (
            _open(current) as store,
            open_journal_writer(
                store,
                max_waiting_bytes=settings.max_waiting_bytes,
                drain_seconds=lambda: min(settings.drain_seconds, seconds_left()),
                hooks=hooks,
            ) as writer,
            trio.open_nursery() as nursery,
        ):
            metrics.store.waiting_writes.set_function(lambda: writer.waiting)
            nursery.start_soon(
                partial(
                    enforce_retention,
                    store,
                    lambda: current.now.store.retention_hours * HOURS,
                    on_expired=count_expired,
                )
            )
            storage = Storage(writer=writer, node=node, budget_seconds=settings.latency_budget_ms * MS)
            with body.noted():
                yield Stored(store=store, storage=storage)
            nursery.cancel_scope.cancel()


def _open(current: CurrentSettings) -> AbstractAsyncContextManager[Store]:
    settings = current.now.store
    match settings.kind:
        case "sqlite":
            return open_sqlite_store(file_of(settings), synchronous=settings.synchronous)
        case "redis":
            return _open_redis(settings, lambda: current.now.store.retention_hours * HOURS * 2)
        case _:
            return nullcontext(MemoryStore())


def _open_redis(
    settings: StoreSettings, keep_seconds: Callable[[], float]
) -> AbstractAsyncContextManager[Store]:
    try:
        from voice_agent.session.store.redis import open_redis_store  # noqa: PLC0415 (an extra)
        from voice_agent.session.store.redis_link import tls_context  # noqa: PLC0415 (the same)
    except ModuleNotFoundError as error:
        raise SettingsError(
            'store.kind = "redis" needs the extra: pip install voice-agent[redis]', field="store.kind"
        ) from error
    return open_redis_store(
        settings.redis_url,
        prefix=settings.redis_prefix,
        keep_seconds=keep_seconds,
        tls=tls_context(settings.redis_ca_file, settings.redis_certificate_file, settings.redis_key_file),
        wait_replicas=settings.redis_wait_replicas,
    )
