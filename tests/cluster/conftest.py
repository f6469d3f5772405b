"""Directories of every kind, and beats to put into them."""

import re
import runpy
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from voice_agent.cluster.beat import Beat, NodeState
from voice_agent.cluster.directory import Directory
from voice_agent.cluster.memory import MemoryDirectory
from voice_agent.cluster.redis import RedisDirectory
from voice_agent.cluster.sqlite import SqliteDirectory
from voice_agent.session.store.redis import open_redis_store
from voice_agent.session.store.sqlite import open_sqlite_store

ROOT: Final = Path(__file__).parents[2]
SERVERS: Final = runpy.run_path(str(ROOT / "tests/redis_servers.py"))

MakeBeat = Callable[..., Beat]
OpenDirectory = Callable[[], AbstractAsyncContextManager[Directory]]


@pytest.fixture
def make_beat() -> MakeBeat:
    """Make a beat; what a test doesn't name is plausible."""

    def make(node: str = "n1", **changes: Any) -> Beat:
        fields: dict[str, Any] = {
            "node": node,
            "state": NodeState.OPEN,
            "version": "1.2.3",
            "capacity": 100,
            "calls": 3,
            "load": 0.25,
            "at": 1_000.0,
        }
        return Beat(**{**fields, **changes})

    return make


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One Redis, with a user who has the rights that docs/storage.md gives and no others."""
    [rights] = re.findall(r"^(user voice-agent .*)$", (ROOT / "docs/storage.md").read_text(), re.MULTILINE)
    with SERVERS["redis_servers"](tmp_path_factory.mktemp("redis")) as servers:
        server = servers.start(*f"--{rights}".split())
        yield server.url.replace("redis://", "redis://voice-agent:PASSWORD@")


@pytest.fixture(scope="module")
def redis_cluster_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis Cluster."""
    with SERVERS["redis_servers"](tmp_path_factory.mktemp("cluster")) as servers:
        nodes = servers.start_cluster()
        yield nodes[0].url.replace("redis://", "redis+cluster://").removesuffix("/0")


@pytest.fixture(params=["memory", "sqlite", "redis", "redis_cluster"])
def open_directory(request: pytest.FixtureRequest, tmp_path: Path) -> OpenDirectory:
    """Open the directory under test; every opening sees the same, as every node does."""
    memory = MemoryDirectory()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Directory]:
        match request.param:
            case "memory":
                yield memory
            case "sqlite":
                async with open_sqlite_store(tmp_path / "sessions.db") as store:
                    yield SqliteDirectory(store)
            case kind:
                url = request.getfixturevalue(f"{kind}_url")
                async with open_redis_store(
                    url, prefix=f"voice-agent:{tmp_path.name}", keep_seconds=3600
                ) as redis:
                    yield RedisDirectory(redis)

    return opened
