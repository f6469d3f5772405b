"""One of several processes that keep their sessions in one SQLite file, as the workers of a server do.

``python sqlite_sharer.py FILE NAME COMMITS``: commits so many times, an entry for each of its sessions and a look at what is kept,
and prints a JSON object: the seconds that a commit took, in the middle and at most.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import trio
from sqlite_victim import entry, record

from voice_agent.session.store.protocol import Outcome, Selection, Write
from voice_agent.session.store.sqlite import open_sqlite_store

SESSIONS = 4


async def main(path: Path, name: str, commits: int) -> None:
    seconds = []
    async with open_sqlite_store(path) as store:
        for number in range(1, commits + 1):
            batch = [
                Write(
                    session_id=session,
                    epoch=1,
                    entries=(entry(session, number),),
                    record=record(session),
                )
                for session in (f"{name}-{index}" for index in range(SESSIONS))
            ]
            began_at = time.perf_counter()
            outcomes = await store.write(batch)
            seconds.append(time.perf_counter() - began_at)
            assert set(outcomes) == {Outcome.ACCEPTED}
            if number % 20 == 0:
                await store.select(Selection(), limit=10)
    print(json.dumps({"median": statistics.median(seconds), "most": max(seconds)}))


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
