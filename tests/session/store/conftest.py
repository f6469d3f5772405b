"""Stores of every kind, and sessions to keep in them."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from voice_agent.core.journal import EntryKind, JournalEntry, SessionRecord
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Store
from voice_agent.session.store.redis import open_redis_store
from voice_agent.session.store.sqlite import open_sqlite_store

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]
OpenStore = Callable[[], AbstractAsyncContextManager[Store]]


@pytest.fixture
def make_record() -> MakeRecord:
    """Make a record; what a test doesn't name is plausible."""

    def make(session_id: str = "s1", **changes: Any) -> SessionRecord:
        fields: dict[str, Any] = {
            "session_id": session_id,
            "key_id": "k1",
            "tenant": "t1",
            "wire": "websocket",
            "encoding": "pcm_s16le",
            "sample_rate": 16_000,
            "channels": 1,
            "language": "en",
            "agent": "none",
            "settings_version": 1,
            "node": "n1",
            "opened_at": 1_000.0,
            "updated_at": 1_000.0,
            "lease_until": 1_010.0,
            "resumable_seconds": 60.0,
            "token_sha256": "token-0",
        }
        return SessionRecord(**{**fields, **changes})

    return make


@pytest.fixture
def make_entry() -> MakeEntry:
    """Make a final, the ``number``th entry."""

    def make(number: int, text: str = "hello", **changes: Any) -> JournalEntry:
        fields: dict[str, Any] = {
            "number": number,
            "seq": number * 3,
            "kind": EntryKind.FINAL,
            "at": 1_000.0 + number,
            "position_ms": number * 1000,
            "heard_ms": number * 1000,
            "body": {"type": "final", "text": text},
        }
        return JournalEntry(**{**fields, **changes})

    return make


class RedisServer:
    """A real redis-server of ours, which a test may kill, freeze and start again."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen([*command, "--save", "", *self.options], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self.port), 1) as asking,
            ):
                asking.sendall(b"PING\r\n")
                if asking.recv(64).startswith(b"+PONG"):
                    return
            assert self.process.poll() is None, (self.folder / "redis.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all who use a prefix of their own."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian package redis-server)")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(params=["memory", "sqlite", "redis"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Open the store under test; for those that last, every opening sees the same."""
    memory = MemoryStore()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        match request.param:
            case "memory":
                yield memory
            case "sqlite":
                async with open_sqlite_store(tmp_path / "sessions.db") as store:
                    yield store
            case "redis":
                server = request.getfixturevalue("redis_server")
                prefix = f"test-{tmp_path.name}"
                async with open_redis_store(server.url, prefix=prefix, keep_seconds=3600) as store:
                    yield store

    return opened
