"""Several server processes on one Redis work as one: whichever node is asked, the one that knows answers.

The nodes are real processes; they keep their sessions in a real Redis, and are shared by the tests of this file.
"""

import json
import runpy
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 30
SERVERS = runpy.run_path(str(Path(__file__).parents[1] / "redis_servers.py"))
SECRET = "a secret that all nodes have in common"  # noqa: S105 (made up)
BEAT_SECONDS = 0.2


@attrs.frozen
class Cluster:
    """Two nodes, and how to start more."""

    redis: Any
    start: Callable[..., Any]
    a: Any
    b: Any


@pytest.fixture(scope="module")
def start_node(
    start_shared_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Any]]:
    """Start a node; ``start_node(redis, "a")`` is called so, and ``more`` are settings."""

    def start(redis: Any, name: str, **more: Any) -> Any:
        port = SERVERS["port_of_its_own"]()
        settings = {
            "store__kind": "redis",
            "store__redis_url": redis.url,
            "cluster__node_name": name,
            "cluster__advertised_url": f"http://127.0.0.1:{port}",
            "cluster__secret": SECRET,
            "cluster__beat_seconds": BEAT_SECONDS,
            "cluster__gone_seconds": 5 * BEAT_SECONDS,
            "webrtc__allow_loopback_candidates": True,
        }
        return start_shared_server(port=port, **{**settings, **more})

    return start


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The nodes' Redis."""
    with SERVERS["redis_servers"](tmp_path_factory.mktemp("redis")) as servers:
        yield servers.start()


@pytest.fixture(scope="module")
def cluster(redis: Any, start_node: Callable[..., Any]) -> Iterator[Cluster]:
    """Two nodes that know of each other; they end cleanly after the tests."""
    nodes = [start_node(redis, name) for name in ("a", "b")]
    yield Cluster(redis, start_node, *nodes)
    for node in nodes:
        assert node.process.poll() is None, node.log()
        assert node.stop() == 0, node.log()
        assert "Traceback" not in node.log()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as client:
        yield client


async def until(is_so: Callable[[], Any]) -> Any:
    """Ask until the answer is one; return it."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not (found := await is_so()):  # noqa: ASYNC110 (another process answers)
            await trio.sleep(BEAT_SECONDS / 2)
        return found


@pytest.fixture
def open_call(connect: Any) -> Any:
    """Open a WebSocket call of which one final is kept; gives the connection and the session's id."""

    @asynccontextmanager
    async def opened(server: Any, headers: Any = ()) -> AsyncIterator[tuple[Any, str]]:
        async with connect(server.url, headers=headers) as call:
            await call.send_message('{"type":"start"}')
            session = json.loads(await call.get_message())["session"]
            await call.send_message('{"type":"text","text":"hello"}')
            assert json.loads(await call.get_message())["type"] == "final"
            yield call, session

    return opened


async def message_of(call: Any, kind: str) -> Any:
    with trio.fail_after(PATIENCE_SECONDS):
        while (message := json.loads(await call.get_message()))["type"] != kind:
            pass
        return message


async def test_a_call_is_ended_at_the_wrong_node(cluster: Cluster, open_call: Any, http: Any) -> None:
    """DELETE where the call is not ends it where it is; asked again, either node says that it has ended."""
    async with open_call(cluster.a) as (call, session):
        shown = await http.get(f"{cluster.b.http}/v1/sessions/{session}")
        assert (shown.status_code, shown.json()["id"]) == (200, session), shown.text
        ended = await http.delete(f"{cluster.b.http}/v1/sessions/{session}")
        assert (ended.status_code, ended.json()["state"]) == (202, "ending")
        assert (await message_of(call, "closed"))["reason"] == "ended_by_operator"

    async def has_ended() -> bool:
        answers = [await http.delete(f"{node.http}/v1/sessions/{session}") for node in (cluster.a, cluster.b)]
        return [answer.status_code for answer in answers] == [204, 204]

    await until(has_ended)
    nobody = await http.delete(f"{cluster.b.http}/v1/sessions/{'0' * 32}")
    assert (nobody.status_code, nobody.json()["code"]) == (404, "not_found")
