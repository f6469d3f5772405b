"""Writers of SQLite files that are killed at random moments, one after the other.

``python sqlite_victim.py FILE KILLS SEED``: forks a writer, kills it with SIGKILL after some milliseconds, opens the file
as the next server would, and compares it with what the writer had said was kept. Prints a JSON object at the end. A file
outlives some kills, and is followed by a new one: all of it is read each time.
"""

import json
import os
import random
import select
import signal
import sys
import time
from pathlib import Path

import trio

from voice_agent.core.journal import EntryKind, JournalEntry, SessionRecord
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.session.store.sqlite import open_sqlite_store

SESSIONS = 4
KILLS_PER_FILE = 20


def record(session_id: str) -> SessionRecord:
    return SessionRecord(
        session_id=session_id, key_id="k", tenant="t", wire="websocket", encoding="pcm_s16le", sample_rate=16_000,
        channels=1, language="en", agent="none", settings_version=1, node="n", opened_at=1.0, updated_at=1.0,
        lease_until=1.0, resumable_seconds=60.0, token_sha256="",
    )  # fmt: skip


def entry(session_id: str, number: int) -> JournalEntry:
    text = f"{session_id} says {number} " + "x" * (number % 300)
    body = {"type": "final", "text": text}
    return JournalEntry(
        number=number, seq=number, kind=EntryKind.FINAL, at=1.0, position_ms=0, heard_ms=number, body=body
    )


async def write_until_killed(path: Path, told: int) -> None:
    async with open_sqlite_store(path) as store:
        last = {}
        for name in map(str, range(SESSIONS)):
            journal = await store.journal(name, limit=1_000_000)
            last[name] = journal[-1].number if journal else 0
        os.write(told, b"ready\n")
        while True:
            batch = [
                Write(
                    session_id=name,
                    epoch=1,
                    entries=tuple(entry(name, last[name] + 1 + step) for step in range(3)),
                    record=record(name),
                )
                for name in last
            ]
            assert set(await store.write(batch)) == {Outcome.ACCEPTED}
            for name in last:
                last[name] += 3
            os.write(told, (json.dumps(last) + "\n").encode())


def kill_one(path: Path, seconds: float) -> dict[str, int]:
    """Return what the killed writer had said was kept."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            trio.run(write_until_killed, path, write)
        finally:
            os._exit(1)
    os.close(write)
    heard = b""
    deadline = None
    while deadline is None or time.monotonic() < deadline:
        wait = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([read], [], [], wait)
        if ready:
            data = os.read(read, 65_536)
            if not data:
                raise SystemExit("the writer ended by itself")
            heard += data
        if deadline is None and heard:
            deadline = time.monotonic() + seconds
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while data := os.read(read, 65_536):
        heard += data
    os.close(read)
    lines = [line for line in heard.split(b"\n")[:-1] if line != b"ready"]
    return json.loads(lines[-1]) if lines else {}


async def verify(path: Path, promised: dict[str, int]) -> dict[str, int]:
    """Count what is wrong with the file: holes, doubles, torn and lost entries."""
    wrong = {"holes": 0, "torn": 0, "lost": 0}
    total = 0
    async with open_sqlite_store(path) as store:
        for name in map(str, range(SESSIONS)):
            journal = await store.journal(name, limit=1_000_000)
            total += len(journal)
            numbers = [one.number for one in journal]
            wrong["holes"] += numbers != list(range(1, len(numbers) + 1))
            wrong["torn"] += sum(one != entry(name, one.number) for one in journal[-20:])
            wrong["lost"] += max(0, promised.get(name, 0) - len(journal))
    return {**wrong, "entries": total}


def main() -> None:
    path, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    figures = {"kills": 0, "promised": 0, "holes": 0, "torn": 0, "lost": 0, "entries": 0}
    while figures["kills"] < kills:
        promised: dict[str, int] = {}
        found: dict[str, int] = {}
        file = path.with_suffix(f".{figures['kills']}.db")
        for _ in range(min(KILLS_PER_FILE, kills - figures["kills"])):
            promised = kill_one(file, rng.random() * 0.03) or promised
            found = trio.run(verify, file, promised)
            figures["kills"] += 1
            for kind in ("holes", "torn", "lost"):
                figures[kind] += found[kind]
        figures["promised"] += sum(promised.values())
        figures["entries"] += found["entries"]
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
