"""Stores of every kind, and sessions to keep in them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from voice_agent.core.journal import EntryKind, JournalEntry, SessionRecord
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Store
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


@pytest.fixture(params=["memory", "sqlite"])
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

    return opened
