"""Starting on a Redis: what only its operator can mend stops the start, in words; one that is only away doesn't."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from voice_agent.core.errors import SettingsError, StoreRefusedError, StoreUnavailableError
from voice_agent.core.journal import JournalEntry, SessionRecord
from voice_agent.session.store.protocol import Outcome, Write
from voice_agent.session.store.redis import RedisStore, open_redis_store
from voice_agent.session.store.redis_link import tls_context

MakeRecord = Callable[..., SessionRecord]
MakeEntry = Callable[..., JournalEntry]

LIMIT_SECONDS = 30
"""Catches hangs."""


@pytest.fixture(scope="module")
def server(shared_redis: Any) -> Any:
    """A Redis in which the tests of this file make users and keys."""
    server = shared_redis.start()
    server.cli("ACL", "SETUSER", "someone", "on", ">word", "~*", "+@all")
    return server


RIGHTS = (
    "evalsha", "script|load", "get", "set", "del", "expire", "ttl", "hget", "hmget", "hset", "xadd", "xrange", "zadd",
    "zrange", "zrem",
)  # fmt: skip


@pytest.mark.parametrize("right", RIGHTS)
async def test_a_right_that_is_missing_stops_the_start(server: Any, documented_acl: str, right: str) -> None:
    """Each right that the documentation names is needed, and tried before calls are taken."""
    assert f"+{right} " in documented_acl + " "
    rules = documented_acl.split()[2:]
    server.cli("SCRIPT", "FLUSH")
    server.cli("ACL", "SETUSER", "poor", "reset", *rules, ">word", f"-{right}")
    url = f"redis://poor:word@127.0.0.1:{server.port}/0"
    with (
        trio.fail_after(LIMIT_SECONDS),
        pytest.raises(StoreRefusedError, match=r"rights in docs/storage\.md"),
    ):
        async with open_redis_store(url, prefix="voice-agent", keep_seconds=3600):
            pass
    server.cli("ACL", "SETUSER", "poor", f"+{right}")
    async with open_redis_store(url, prefix="voice-agent", keep_seconds=3600):
        assert "check" not in server.cli("KEYS", "voice-agent:{*")
    with pytest.raises(StoreRefusedError, match=r"rights in docs/storage\.md"):
        async with open_redis_store(url, prefix="other-agent", keep_seconds=3600):
            pass


async def start_is_refused(url: str, words: str, tls: ssl.SSLContext | None = None) -> None:
    with trio.fail_after(LIMIT_SECONDS), pytest.raises(StoreRefusedError, match=words) as caught:
        async with open_redis_store(url, prefix="refused", keep_seconds=3600, tls=tls):
            pass
    assert "wrong-word" not in str(caught.value)


async def test_a_wrong_password_stops_the_start(server: Any, sentinels: Any, redis_servers: Any) -> None:
    """Of a server alone, behind Sentinels, and in a cluster, whose clients wrap it in words of their own."""
    await start_is_refused(f"redis://someone:wrong-word@127.0.0.1:{server.port}", "user and password")
    await start_is_refused(f"redis://nobody:wrong-word@127.0.0.1:{server.port}", "user and password")
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels.sentinels)
    await start_is_refused(f"redis+sentinel://:wrong-word@{hosts}/calls", "user and password")
    await start_is_refused(f"redis+sentinel://{hosts}/calls", "user and password")
    nodes = await trio.to_thread.run_sync(redis_servers.start_cluster)
    for node in nodes:
        node.cli("CONFIG", "SET", "requirepass", "word")
    await start_is_refused(f"redis+cluster://:wrong-word@127.0.0.1:{nodes[1].port}", "user and password")


async def test_tls_that_can_not_be_trusted_stops_the_start(
    shared_redis: Any, encrypted_redis: Any, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """Another authority, and another name; of an encrypted one the password is looked at too."""
    login = "voice-agent:wrong-word"
    await start_is_refused(f"rediss://{login}@127.0.0.1:{encrypted_redis.port}", "store.redis_ca_file")
    elsewhere = shared_redis.start_encrypted(authority, name="redis.example.org")
    await start_is_refused(f"rediss://127.0.0.1:{elsewhere.port}", "store.redis_ca_file", trusting)
    await start_is_refused(
        f"rediss://{login}@127.0.0.1:{encrypted_redis.port}", "user and password", trusting
    )


async def test_a_redis_that_asks_for_a_certificate_is_shown_one(
    shared_redis: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    """From the files that the settings name; a file that can't be used is told before anything is connected."""
    server = shared_redis.start_encrypted(authority, asks="yes")
    ca_file, mine = tmp_path / "ca.pem", tmp_path / "mine.pem"
    authority.cert_pem.write_to_path(ca_file)
    authority.issue_cert("node-1").private_key_and_cert_chain_pem.write_to_path(mine)
    url = f"rediss://127.0.0.1:{server.port}"
    with trio.fail_after(LIMIT_SECONDS):
        tls = tls_context(str(ca_file), str(mine), "")
        async with open_redis_store(url, prefix="mine", keep_seconds=3600, tls=tls) as store:
            await store.check()
        # TLS 1.3 says behind the handshake what it misses (RFC 8446, section 4.4.2.4); whether that or the end of the
        # connection is seen first is chance.
        with suppress(StoreRefusedError):
            bare = tls_context(str(ca_file), "", "")
            async with open_redis_store(url, prefix="mine", keep_seconds=3600, tls=bare) as store:
                with pytest.raises(StoreUnavailableError):
                    await store.check()
    with pytest.raises(SettingsError, match="redis_ca_file"):
        tls_context(str(tmp_path / "nowhere.pem"), "", "")
    with pytest.raises(SettingsError, match="redis_certificate_file"):
        tls_context(str(ca_file), str(ca_file), "")


@pytest.mark.parametrize("index", ["places", "expiry"])
async def test_a_prefix_that_another_program_uses_stops_the_start(server: Any, index: str) -> None:
    """What is in the way is not overwritten."""
    server.cli("SET", f"taken-{index}:{index}", "of another program")
    url = f"redis://someone:word@127.0.0.1:{server.port}"
    with trio.fail_after(LIMIT_SECONDS), pytest.raises(StoreRefusedError, match="another program"):
        async with open_redis_store(url, prefix=f"taken-{index}", keep_seconds=3600):
            pass
    assert "another program" in server.cli("GET", f"taken-{index}:{index}")


async def test_a_redis_that_is_away_does_not_stop_the_start(
    redis_servers: Any, make_record: MakeRecord, make_entry: MakeEntry
) -> None:
    """Alone, behind Sentinels and as a cluster: it opens, says so, and takes what is written once Redis is there."""
    server = redis_servers.make()
    port = server.port
    write = Write(session_id="s1", epoch=1, entries=(make_entry(1),), record=make_record())
    with trio.fail_after(LIMIT_SECONDS):
        for url in (f"redis+sentinel://127.0.0.1:{port}/calls", f"redis+cluster://127.0.0.1:{port}"):
            async with open_redis_store(url, keep_seconds=3600) as store:
                with pytest.raises(StoreUnavailableError):
                    await store.write([write])
        async with open_redis_store(server.url, keep_seconds=3600) as store:
            with pytest.raises(StoreUnavailableError, match="can't be reached"):
                await store.write([write])
            await trio.to_thread.run_sync(server.start)
            assert await patiently(store, write) == [Outcome.ACCEPTED]


async def patiently(store: RedisStore, write: Write) -> Any:
    while True:
        try:
            return await store.write([write])
        except StoreUnavailableError:
            await trio.sleep(0.05)
