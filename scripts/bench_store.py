"""What it costs to keep a message before it is told: milliseconds from submit to accepted, by store and by calls at once.

    python scripts/bench_store.py [--seconds 5]

Each call writes a final, waits until it is kept, pauses for a moment as speech does, and goes on. SQLite lies in a
temporary folder; Redis is a redis-server of this script's own, with its append-only file flushed at each write, and
once a second.
"""

import argparse
import contextlib
import random
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import trio

from voice_agent.core.journal import EntryKind, JournalEntry, SessionRecord
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Outcome, Store, Write
from voice_agent.session.store.redis import open_redis_store
from voice_agent.session.store.sqlite import Synchronous, open_sqlite_store
from voice_agent.session.store.writer import JournalWriter, open_journal_writer

CALLS = (1, 8, 64)
PAUSE_SECONDS = 0.05
TEXT = "it was the best of times, it was the worst of times"

OpenStore = Callable[[Path], AbstractAsyncContextManager[Store]]


def record(session_id: str) -> SessionRecord:
    """A record as a call's is."""
    return SessionRecord(
        session_id=session_id, key_id="k", tenant="t", wire="websocket", encoding="pcm_s16le", sample_rate=16_000,
        channels=1, language="en", agent="none", settings_version=1, node="n", opened_at=1.0, updated_at=1.0,
        lease_until=1.0, resumable_seconds=60.0, token_sha256="",
    )  # fmt: skip


async def call(writer: JournalWriter, session_id: str, waits: list[float]) -> None:
    """Keep finals for ever, and note how long each took."""
    rng = random.Random(session_id)
    number = 0
    while True:
        number += 1
        entry = JournalEntry(
            number=number, seq=number, kind=EntryKind.FINAL, at=1.0, position_ms=0, heard_ms=0, body={"text": TEXT}
        )  # fmt: skip
        began_at = time.perf_counter()
        write = Write(session_id=session_id, epoch=1, entries=(entry,), record=record(session_id))
        if await writer.submit(write).wait(30) is not Outcome.ACCEPTED:
            raise SystemExit("a write was not accepted")
        waits.append((time.perf_counter() - began_at) * 1000)
        await trio.sleep(rng.uniform(0, 2 * PAUSE_SECONDS))


async def measure(open_store: OpenStore, calls: int, seconds: float) -> list[float]:
    """Return the waits of all calls."""
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        async with (
            open_store(Path(folder)) as store,
            open_journal_writer(store, max_waiting_bytes=1 << 30, drain_seconds=5) as writer,
            trio.open_nursery() as nursery,
        ):
            for number in range(calls):
                nursery.start_soon(call, writer, f"s{number}", waits)
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()
    return waits


@asynccontextmanager
async def memory(_folder: Path) -> AsyncIterator[Store]:
    """In this process."""
    yield MemoryStore()


def sqlite(synchronous: Synchronous, folder: Path) -> AbstractAsyncContextManager[Store]:
    """In a file."""
    return open_sqlite_store(folder / "bench.db", synchronous=synchronous)


@contextlib.contextmanager
def redis_server(fsync: str, folder: Path) -> Iterator[str]:
    """Run a Redis of our own, and give its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(
        [*command, "--appendonly", "yes", "--appendfsync", fsync], stdout=subprocess.DEVNULL
    )
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def redis(fsync: str, folder: Path) -> AsyncIterator[Store]:
    """In a Redis of our own."""
    with redis_server(fsync, folder) as url:
        async with open_redis_store(url, keep_seconds=60) as store:
            yield store


def main() -> None:
    """Print a row for each store and number of calls."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5)
    seconds = parser.parse_args().seconds
    stores: dict[str, OpenStore] = {
        "memory": memory,
        "sqlite, full": partial(sqlite, "full"),
        "sqlite, normal": partial(sqlite, "normal"),
    }
    if shutil.which("redis-server"):
        stores |= {
            "redis, fsync always": partial(redis, "always"),
            "redis, fsync each second": partial(redis, "everysec"),
        }
    print(f"{'store':26} {'calls':>5} {'writes/s':>9} {'median ms':>10} {'p95 ms':>8} {'max ms':>8}")
    for name, open_store in stores.items():
        for calls in CALLS:
            waits = trio.run(measure, open_store, calls, seconds)
            p95 = statistics.quantiles(waits, n=20)[-1]
            print(
                f"{name:26} {calls:5} {len(waits) / seconds:9.0f} {statistics.median(waits):10.2f} {p95:8.2f} {max(waits):8.2f}"
            )


if __name__ == "__main__":
    main()
