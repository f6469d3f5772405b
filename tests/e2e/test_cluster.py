"""Several server processes on one Redis work as one: whichever node is asked, the one that knows answers.

The nodes are real processes; they keep their sessions in a real Redis, and are shared by the tests of this file.
"""

import json
import runpy
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import httpx
import pytest
import trio
from trio_websocket import ConnectionRejected

from voice_agent.access.keys import new_key

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 30
SERVERS = runpy.run_path(str(Path(__file__).parents[1] / "redis_servers.py"))
SECRET = "a secret that all nodes have in common"  # noqa: S105 (made up)
BEAT_SECONDS = 0.2
BOSS, KIOSK = new_key("boss"), new_key("kiosk")
KEYS = f"""
boss = {{ sha256 = "{BOSS.sha256}", scopes = ["call", "observe", "admin"] }}
kiosk = {{ sha256 = "{KIOSK.sha256}", scopes = ["call"], quotas = {{ max_calls = 2 }} }}
"""
OFFER = "\r\n".join(
    [
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0", "a=sendonly",
        "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:abcd", "a=ice-pwd:0123456789012345678901",
        "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass", "",
    ]
)  # fmt: skip
HANDSHAKE = (
    "GET /v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {KIOSK.text}\r\n\r\n"
).encode()
FRAGMENT = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"


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
            "access__keys": KEYS,
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
    nodes = together(partial(start_node, redis, "a"), partial(start_node, redis, "b"))
    yield Cluster(redis, start_node, *nodes)
    for node in nodes:
        assert node.process.poll() is None, node.log()
        assert node.stop() == 0, node.log()
        assert "Traceback" not in node.log()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        timeout=PATIENCE_SECONDS, trust_env=False, headers=headers_of(BOSS)
    ) as client:
        yield client


def together(*starts: Callable[[], Any]) -> list[Any]:
    """Start servers at the same time; each takes seconds to load its models."""
    with ThreadPoolExecutor(len(starts)) as pool:
        return list(pool.map(lambda start: start(), starts))


def headers_of(key: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.text}"}


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
    async def opened(server: Any, key: Any = KIOSK) -> AsyncIterator[tuple[Any, str]]:
        headers = [(name.encode(), value.encode()) for name, value in headers_of(key).items()]
        async with AsyncExitStack() as opening:
            call = None
            while call is None:
                try:
                    call = await opening.enter_async_context(connect(server.url, headers=headers))
                except ConnectionRejected as refusal:
                    # Calls of an earlier test that ended elsewhere are counted until the next beat.
                    assert refusal.status_code == 429  # noqa: PT017 (it may also be let in)
                    await trio.sleep(BEAT_SECONDS)
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


async def test_events_are_followed_at_the_wrong_node(cluster: Cluster, open_call: Any, http: Any) -> None:
    """As they happen, to the stream's end; Last-Event-ID goes along, and so does who may read words."""
    async with open_call(cluster.a) as (call, session):
        path = f"{cluster.b.http}/v1/sessions/{session}/events"
        seen: list[str] = []
        with trio.fail_after(PATIENCE_SECONDS):
            async with http.stream("GET", path, headers={"Last-Event-ID": "1"}) as stream:
                assert stream.status_code == 200
                assert stream.headers["content-type"] == "text/event-stream"
                assert len(stream.headers.get_list("vary")) <= 1
                async for line in stream.aiter_lines():
                    if line == ": listening":
                        await call.send_message('{"type":"text","text":"and so it goes"}')
                    if line.startswith("data:"):
                        seen.append(json.loads(line.removeprefix("data:"))["type"])
                        if seen == ["final", "final"]:
                            assert "and so it goes" in line
                            await call.send_message('{"type":"stop"}')
        assert seen == ["final", "final", "closed"]
        over = await http.get(path)
        assert (over.status_code, over.json()["code"]) == (410, "session_closed")


async def test_who_follows_at_the_wrong_node_may_go_away(cluster: Cluster, open_call: Any, http: Any) -> None:
    """Then the owner has one listener less; nothing is left behind between the nodes."""
    async with open_call(cluster.a) as (_, session):
        async with http.stream("GET", f"{cluster.b.http}/v1/sessions/{session}/events") as stream:
            assert stream.status_code == 200
            assert (await http.get(f"{cluster.a.http}/v1/sessions/{session}")).json()["listeners"] == 1

        async def is_alone() -> bool:
            return (await http.get(f"{cluster.a.http}/v1/sessions/{session}")).json()["listeners"] == 0

        await until(is_alone)


async def test_a_webrtc_call_is_signalled_at_the_wrong_node(cluster: Cluster, http: Any) -> None:
    """PATCH and DELETE reach the call by its address; to another key it is nothing at either node, made up or not."""
    begun = await http.post(
        f"{cluster.a.http}/v1/webrtc", content=OFFER, headers={"Content-Type": "application/sdp"}
    )
    assert begun.status_code == 201, begun.text
    address = f"{cluster.b.http}{begun.headers['Location']}"
    trickle = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": begun.headers["ETag"]}
    assert (await http.get(address)).status_code == 204
    assert (await http.get(address, headers=headers_of(KIOSK))).status_code == 404
    assert (await http.get(f"{address[:-1]}A")).status_code == 404
    assert (await http.patch(address, content=FRAGMENT, headers=trickle)).status_code == 204
    stale = await http.patch(address, content=FRAGMENT, headers={**trickle, "If-Match": '"old"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "etag_mismatch")
    assert (await http.delete(address)).status_code == 200

    async def is_gone() -> bool:
        return (await http.get(address)).status_code == 404

    await until(is_gone)


async def test_every_node_lists_the_sessions_of_all(cluster: Cluster, open_call: Any, http: Any) -> None:
    """Newest first, page by page, each once, whichever node tells which page."""
    async with open_call(cluster.a) as (_, first), open_call(cluster.b) as (_, second):  # noqa: SIM117 (the order is the point)
        async with open_call(cluster.a, BOSS) as (_, third):
            nodes = [cluster.a, cluster.b]
            for node in nodes:
                page = (await http.get(f"{node.http}/v1/sessions")).json()
                assert [one["id"] for one in page["sessions"]] == [third, second, first]
                assert [one["node"] for one in page["sessions"]] == ["a", "b", "a"]
                assert (page["next"], page["silent_nodes"]) == (None, [])
            found, cursor = [], ""
            while cursor is not None:
                query = {"limit": "1", **({"cursor": cursor} if cursor else {})}
                nodes.reverse()
                page = (await http.get(f"{nodes[0].http}/v1/sessions", params=query)).json()
                found += [one["id"] for one in page["sessions"]]
                cursor = page["next"]
            assert found == [third, second, first]
            wrong = await http.get(f"{cluster.a.http}/v1/sessions?limit=x")
            assert wrong.status_code == 400


async def test_nodes_are_seen(cluster: Cluster, http: Any) -> None:
    """Name, state, calls, capacity, load, version and age of each, and which of them answers; to who runs the server."""
    found = (await http.get(f"{cluster.b.http}/v1/nodes")).json()
    assert not found["is_directory_away"]
    assert [(one["node"], one["is_self"], one["state"]) for one in found["nodes"]] == [
        ("a", False, "open"),
        ("b", True, "open"),
    ]
    assert all(one["capacity"] > 0 and one["version"] for one in found["nodes"])
    assert (await http.get(f"{cluster.b.http}/v1/nodes", headers=headers_of(KIOSK))).status_code == 403


async def test_a_ticket_opens_one_call_anywhere(cluster: Cluster, connect: Any, http: Any) -> None:
    """It is used up where it was given, so it works once, at whichever node, and at none a second time."""

    async def opens(node: Any, ticket: str) -> bool:
        try:
            async with connect(f"{node.url}?ticket={ticket}"):
                return True
        except ConnectionRejected as refusal:
            assert refusal.status_code == 401  # noqa: PT017 (it may also be let in)
            return False

    async def new() -> str:
        given = await http.post(f"{cluster.a.http}/v1/tickets", headers=headers_of(KIOSK))
        return str(given.json()["ticket"])

    ticket = await new()
    assert await opens(cluster.b, ticket)
    assert not await opens(cluster.a, ticket)
    assert not await opens(cluster.b, ticket)
    ticket = await new()
    assert await opens(cluster.a, ticket)
    assert not await opens(cluster.b, ticket)
    assert not await opens(cluster.b, f"{ticket[:-1]}A")
    outside = await http.post(f"{cluster.a.http}/inside/tickets", content=await new())
    assert outside.status_code == 404


async def test_calls_at_once_of_a_key_are_counted_over_all_nodes(
    cluster: Cluster, open_call: Any, connect: Any
) -> None:
    """Two are allowed, and two are open at one node: the other node refuses the third once it has heard of them."""
    headers = [(name.encode(), value.encode()) for name, value in headers_of(KIOSK).items()]

    async def is_refused() -> bool:
        try:
            async with connect(cluster.b.url, headers=headers):
                return False
        except ConnectionRejected as refusal:
            assert refusal.status_code == 429  # noqa: PT017 (it may also be let in)
            return True

    async with open_call(cluster.a), open_call(cluster.a):
        await until(is_refused)


async def test_a_node_that_is_killed_is_missed_and_gone(
    cluster: Cluster, start_node: Any, open_call: Any, http: Any
) -> None:
    """Until it is gone the list names it as silent, and a request about its calls is answered 502 or 504; then it is gone."""
    victim = start_node(cluster.redis, "victim", cluster__answer_seconds=1)
    async with open_call(victim) as (_, session):
        given = await http.post(f"{victim.http}/v1/tickets", headers=headers_of(KIOSK))
        ticket = given.json()["ticket"]
        path = f"{cluster.a.http}/v1/sessions/{session}"

        async def is_found() -> bool:
            return (await http.get(path)).status_code == 200

        await until(is_found)
        victim.process.kill()
        await trio.to_thread.run_sync(victim.process.wait)
    missed = await http.get(path)
    assert (missed.status_code, missed.json()["code"]) == (502, "node_away")
    page = (await http.get(f"{cluster.a.http}/v1/sessions")).json()
    assert page["silent_nodes"] == ["victim"]

    async def is_gone() -> bool:
        nodes = (await http.get(f"{cluster.a.http}/v1/nodes")).json()["nodes"]
        return [node["node"] for node in nodes] == ["a", "b"]

    await until(is_gone)
    assert (await http.get(f"{cluster.a.http}/v1/sessions")).json()["silent_nodes"] == []
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False) as nobody:
        refused = await nobody.get(f"{cluster.a.http}/v1/ws?ticket={ticket}", headers=handshake)
    assert (refused.status_code, refused.json()["code"]) == (502, "node_away")


async def test_nodes_without_a_secret_say_so(
    cluster: Cluster, start_node: Any, open_call: Any, http: Any
) -> None:
    """What another node has is answered with why it is not passed on; a node with another secret is not believed."""
    mute, stranger = together(
        partial(start_node, cluster.redis, "mute", cluster__secret=""),
        partial(start_node, cluster.redis, "stranger", cluster__secret=SECRET[::-1]),
    )
    async with open_call(cluster.a) as (_, session):
        told = await http.get(f"{mute.http}/v1/sessions/{session}")
        assert (told.status_code, told.json()["code"]) == (502, "not_passed_on")
        told = await http.get(f"{stranger.http}/v1/sessions/{session}")
        assert (told.status_code, told.json()["code"]) == (502, "node_away")
        assert "secret" in told.json()["detail"]
    for node in (mute, stranger):
        assert await trio.to_thread.run_sync(node.stop) == 0


async def test_redis_is_away(tmp_path: Path, start_node: Any, http: Any) -> None:
    """New calls go on with a node's own counts, or none is taken, as its operator chose; all is well when it is back."""
    with SERVERS["redis_servers"](tmp_path) as servers:
        redis = servers.start()
        nodes = together(
            *(partial(start_node, redis, choice, cluster__when_away=choice) for choice in ("open", "closed"))
        )

        async def shake(node: Any) -> int:
            async with await trio.open_tcp_stream("127.0.0.1", node.port) as stream:
                await stream.send_all(HANDSHAKE)
                return int((await stream.receive_some(64)).split()[1])

        async def are_away() -> list[bool]:
            answers = [await http.get(f"{node.http}/v1/nodes") for node in nodes]
            return [answer.json()["is_directory_away"] for answer in answers]

        async def nobody_is_there() -> bool:
            return await are_away() == [True, True]

        async def everybody_is_there() -> bool:
            return await are_away() == [False, False]

        assert [await shake(node) for node in nodes] == [101, 101]
        redis.kill()
        await until(nobody_is_there)
        assert [await shake(node) for node in nodes] == [101, 503]
        redis.start()
        await until(everybody_is_there)
        assert [await shake(node) for node in nodes] == [101, 101]
        for node in nodes:
            assert await trio.to_thread.run_sync(node.stop) == 0


async def test_workers_of_one_server_work_as_one(start_server: Any, open_call: Any, http: Any) -> None:
    """Two workers, a file, no setting of the cluster: whichever worker takes a request, the one that has the call answers."""
    server = start_server(server__workers=2, access__keys=KEYS, cluster__beat_seconds=BEAT_SECONDS)

    async def both_are_there() -> bool:
        nodes = (await http.get(f"{server.http}/v1/nodes")).json()["nodes"]
        return [node["node"].partition("/")[2] for node in nodes] == ["worker-1", "worker-2"]

    await until(both_are_there)
    limits = httpx.Limits(max_keepalive_connections=0)
    async with (
        httpx.AsyncClient(timeout=PATIENCE_SECONDS, limits=limits, headers=headers_of(BOSS)) as anew,
        open_call(server) as (first, one),
        open_call(server) as (second, other),
    ):
        answered_by: set[str] = set()
        owners: set[str] = set()

        async def all_is_seen_by_both() -> bool:
            page = (await anew.get(f"{server.http}/v1/sessions")).json()
            if [session["id"] for session in page["sessions"]] != [other, one]:
                return False  # that worker has not heard of the other one yet
            owners.update(session["node"] for session in page["sessions"])
            nodes = (await anew.get(f"{server.http}/v1/nodes")).json()["nodes"]
            answered_by.update(node["node"] for node in nodes if node["is_self"])
            for session in (one, other):
                shown = await anew.get(f"{server.http}/v1/sessions/{session}")
                assert shown.status_code == 200, shown.text
            return len(answered_by) == 2

        await until(all_is_seen_by_both)
        assert len(owners) == 2
        for call, session in ((first, one), (second, other)):
            assert (await anew.delete(f"{server.http}/v1/sessions/{session}")).status_code in {202, 204}
            assert (await message_of(call, "closed"))["reason"] == "ended_by_operator"
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert "Traceback" not in server.log()
