"""Requests that are passed on: two nodes in one process, over real HTTP, with directories that may lie."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import attrs
import httpx
import pytest
import trio

from voice_agent.access.admitted import admitted
from voice_agent.cluster.beat import Beat, NodeState, Sighting
from voice_agent.cluster.handles import Handles
from voice_agent.cluster.names import tag_of
from voice_agent.cluster.passage import HEADER, Signer
from voice_agent.cluster.passing import MAX_ANSWER_BYTES, open_couriers
from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.journal import RecordState, SessionRecord
from voice_agent.observability.metrics import Metrics
from voice_agent.server.door import Door
from voice_agent.server.elsewhere import Elsewhere
from voice_agent.server.listening import open_http_server
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import ServerSettings, Settings

SECRET = "s" * 32
SETTINGS = Settings(server=ServerSettings(port=0))
SESSION = "/v1/sessions/s1"
FAR_FUTURE = 1e12


def beat(node: str, url: str = "") -> Beat:
    return Beat(
        node=node,
        state=NodeState.OPEN,
        version="1",
        capacity=1,
        calls=0,
        load=0,
        at=0,
        advertised_url=url,
    )


def record(node: str, **changes: Any) -> SessionRecord:
    fields: dict[str, Any] = {
        "session_id": "s1",
        "key_id": "k1",
        "tenant": "default",
        "wire": "websocket",
        "encoding": "pcm_s16le",
        "sample_rate": 16_000,
        "channels": 1,
        "language": "en",
        "agent": "none",
        "settings_version": 1,
        "node": node,
        "opened_at": 1_000.0,
        "updated_at": 1_000.0,
        "lease_until": FAR_FUTURE,
        "resumable_seconds": 60.0,
        "token_sha256": "t",
    }
    return SessionRecord(**{**fields, **changes})


@attrs.define
class Node:
    """One node: who it thinks owns ``s1``, and what its application is asked and answers."""

    name: str
    owner: SessionRecord | None = None
    known: list[Beat] = attrs.field(factory=list)
    secret: str = SECRET
    answer_seconds: float = 5.0
    asked: list[dict[str, Any]] = attrs.field(factory=list)
    answer: Callable[[Any], Awaitable[None]] | None = None
    is_asking: bool = False
    """Whether it asks others what the store does not say."""
    store_error: Exception | None = None
    metrics: Metrics = attrs.field(factory=Metrics)
    url: str = ""

    async def record(self, _session_id: str) -> SessionRecord | None:
        if self.store_error is not None:
            raise self.store_error
        return self.owner

    @property
    def node(self) -> str:
        return self.name

    @property
    def others(self) -> list[Sighting]:
        """Those that are asked for what the store does not say."""
        return [Sighting(beat=one, age_seconds=0) for one in self.known] if self.is_asking else []

    def find(self, node: str) -> Beat | None:
        return next((one for one in self.known if one.node == node), None)

    def find_by_tag(self, tag: str) -> Beat | None:
        return next((one for one in self.known if tag_of(one.node) == tag), None)

    async def web(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.asked.append({**scope, "body": body})
        if self.answer is not None:
            await self.answer(send)
            return
        headers = [(b"content-type", b"text/plain"), (b"x-node", self.name.encode()), (b"vary", b"Accept")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": self.name.encode()})

    def passed_on(self, outcome: str) -> float:
        return self.metrics.value("voice_agent_cluster_passed_on_total", outcome=outcome)


@asynccontextmanager
async def serving(*nodes: Node) -> AsyncIterator[None]:
    """Serve all of them."""
    async with AsyncExitStack() as stack:
        for node in nodes:
            couriers = await stack.enter_async_context(
                open_couriers(node.name, answer_seconds=node.answer_seconds)
            )
            clustering: Any = SimpleNamespace(
                membership=node,
                couriers=couriers,
                handles=Handles(tag_of(node.name), node.secret),
                signer=Signer(node.name, node.secret) if node.secret else None,
            )
            registry: Any = SimpleNamespace(find_summary=lambda _session_id: None)
            anything: Any = node
            door = Door(
                web=node.web,
                desk=node.web,
                settings=CurrentSettings(SETTINGS),
                host="127.0.0.1",
                authenticator=anything,
                elsewhere=Elsewhere(
                    web=node.web,
                    clustering=clustering,
                    tickets=anything,
                    registry=registry,
                    store=anything,
                    metrics=node.metrics.cluster,
                ),
            )
            server = await stack.enter_async_context(open_http_server(door, SETTINGS))
            node.url = f"http://127.0.0.1:{server.addresses[0][1]}"
        yield


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=20, trust_env=False) as client:
        with trio.fail_after(20):
            yield client


def know(one: Node, *others: Node) -> None:
    one.known = [beat(other.name, other.url) for other in others]


async def test_the_owner_answers_as_if_it_had_been_asked(http: httpx.AsyncClient) -> None:
    """Method, target, body, credentials and client arrive; fields for one connection don't; the answer comes back whole."""
    a, b = Node("a", owner=record("b")), Node("b", owner=record("b"))
    async with serving(a, b):
        know(a, b)
        answer = await http.get(
            f"{a.url}{SESSION}?x=%2F&y",
            headers={
                "Authorization": "Basic Zm9yIGEgcHJveHk=",
                "Connection": "keep-alive, X-Hop",
                "X-Hop": "for a alone",
                "TE": "trailers",
                "Last-Event-ID": "7",
            },
        )
    assert (answer.status_code, answer.text, answer.headers["x-node"]) == (404, "b", "b")
    assert answer.headers.get_list("vary") == ["Origin"]
    [asked] = b.asked
    headers = dict(asked["headers"])
    assert (asked["method"], asked["raw_path"], asked["query_string"]) == (
        "GET",
        SESSION.encode(),
        b"x=%2F&y",
    )
    assert headers[b"last-event-id"] == b"7"
    assert b"x-hop" not in headers
    assert b"te" not in headers
    assert admitted(asked).address == "127.0.0.1"
    assert a.asked == []
    assert a.passed_on("answered") == 1


async def test_directories_that_lie_make_no_loop(http: httpx.AsyncClient) -> None:
    """Each of two, and of three, believes that the next one owns it: after two hops somebody says that it is not there."""
    nodes = [Node(name, owner=record(owner)) for name, owner in (("a", "b"), ("b", "a"))]
    async with serving(*nodes):
        know(nodes[0], nodes[1])
        know(nodes[1], nodes[0])
        assert (await http.delete(f"{nodes[0].url}{SESSION}")).text == "b"
    assert [len(node.asked) for node in nodes] == [0, 1]
    three = [Node(name, owner=record(owner)) for name, owner in (("a", "b"), ("b", "c"), ("c", "a"))]
    async with serving(*three):
        for node, following in zip(three, [*three[1:], three[0]], strict=True):
            know(node, following)
        assert (await http.delete(f"{three[0].url}{SESSION}")).text == "c"
    assert [len(node.asked) for node in three] == [0, 0, 1]


async def test_an_address_that_is_one_s_own_makes_no_loop(http: httpx.AsyncClient) -> None:
    """The directory says that b is reached at a's address: a does not believe what is addressed to b."""
    a = Node("a", owner=record("b"))
    async with serving(a):
        a.known = [beat("b", a.url)]
        answer = await http.delete(f"{a.url}{SESSION}")
    assert (answer.status_code, answer.json()["code"]) == (502, "node_away")
    assert a.asked == []


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"owner": record("gone")}, 502, "node_away"),
        ({"owner": record("nowhere")}, 502, "node_away"),
        ({"owner": record("unreachable")}, 502, "node_away"),
        ({"owner": record("b"), "secret": ""}, 502, "not_passed_on"),
        ({"owner": record("b"), "secret": "t" * 32}, 502, "node_away"),
        ({"store_error": StoreUnavailableError("away")}, 503, "unavailable"),
        ({"owner": record("gone", lease_until=0.0)}, 404, ""),
        ({"owner": record("gone", state=RecordState.ENDED)}, 404, ""),
        ({"owner": record("b", state=RecordState.ENDED), "secret": ""}, 404, ""),
        ({"owner": record("b", tenant="acme"), "secret": ""}, 404, ""),
        ({"owner": None}, 404, ""),
    ],
)
async def test_who_can_t_be_asked_is_told_by_its_kind(
    http: httpx.AsyncClient, changes: dict[str, Any], status: int, code: str
) -> None:
    """Gone, without address, not there, without or with another secret; and 404 where nobody owns it any more."""
    a, b = Node("a", **changes), Node("b", owner=record("b"))
    async with serving(a, b):
        know(a, b)
        a.known += [beat("nowhere"), beat("unreachable", "http://127.0.0.1:1")]
        answer = await http.get(f"{a.url}{SESSION}")
    assert answer.status_code == status
    if code:
        assert answer.json()["code"] == code
    else:
        assert answer.text == "a"


async def test_an_owner_that_is_silent_costs_a_bounded_time(http: httpx.AsyncClient) -> None:
    """Before it begins its answer, and in the middle of one that is no stream."""

    async def in_the_middle(send: Any) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"9")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await trio.sleep(1)

    async def never(_send: Any) -> None:
        await trio.sleep(1)

    for answer in (never, in_the_middle):
        a = Node("a", owner=record("b"), answer_seconds=0.2)
        b = Node("b", owner=record("b"), answer=answer)
        async with serving(a, b):
            know(a, b)
            told = await http.get(f"{a.url}{SESSION}")
        assert (told.status_code, told.json()["code"]) == (504, "node_silent")
        assert a.passed_on("silent") == 1


async def test_answers_have_a_size(http: httpx.AsyncClient) -> None:
    """One that is no stream and larger than anything of ours is not passed on."""

    async def flood(send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(20):
            await send(
                {"type": "http.response.body", "body": bytes(MAX_ANSWER_BYTES // 10), "more_body": True}
            )
        await send({"type": "http.response.body", "body": b""})

    a, b = Node("a", owner=record("b")), Node("b", owner=record("b"), answer=flood)
    async with serving(a, b):
        know(a, b)
        told = await http.get(f"{a.url}{SESSION}")
    assert (told.status_code, told.json()["code"]) == (502, "node_away")


async def test_a_stream_that_breaks_off_is_not_taken_for_whole(http: httpx.AsyncClient) -> None:
    """What has come is passed on; then the connection breaks, as it would have at the owner."""

    async def crash(send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})

    a, b = Node("a", owner=record("b")), Node("b", owner=record("b"), answer=crash)
    seen = bytearray()

    async def follow() -> None:
        async with http.stream("GET", f"{a.url}{SESSION}/events") as stream:
            async for piece in stream.aiter_raw():
                seen.extend(piece)

    async with serving(a, b):
        know(a, b)
        with pytest.raises(httpx.TransportError):
            await follow()
    assert seen == b"data: 1\n\n"


async def test_nobody_passes_for_a_node(http: httpx.AsyncClient) -> None:
    """A passage that is made up is refused; without a secret it is a field like any other, and what nodes ask is not there."""
    a, mute = Node("a"), Node("mute", secret="")
    async with serving(a, mute):
        for value in ("e30=.00", "x"):
            refused = await http.get(f"{a.url}{SESSION}", headers={HEADER: value})
            assert (refused.status_code, refused.json()["code"]) == (403, "passage_refused")
            assert (await http.get(f"{mute.url}{SESSION}", headers={HEADER: value})).text == "mute"
        assert (await http.post(f"{a.url}/inside/tickets", content=b"x")).text == "a"


async def test_a_call_s_address_leads_to_its_node(http: httpx.AsyncClient) -> None:
    """With its body; a made-up address is answered at home, one of a node that is gone by saying so."""
    a, b = Node("a"), Node("b")
    async with serving(a, b):
        know(a, b)
        key = Handles(tag_of("b"), SECRET).new()
        answer = await http.patch(f"{a.url}/v1/webrtc/{key}", content=b"candidates")
        assert answer.text == "b"
        assert b.asked[0]["body"] == b"candidates"
        assert (await http.patch(f"{a.url}/v1/webrtc/{key}x", content=b"")).text == "a"
        too_large = await http.patch(f"{a.url}/v1/webrtc/{key}", content=bytes(70_000))
        assert (too_large.status_code, too_large.json()["code"]) == (413, "body_too_large")
        gone = await http.delete(f"{a.url}/v1/webrtc/{Handles(tag_of('gone'), SECRET).new()}")
        assert (gone.status_code, gone.json()["code"]) == (502, "node_away")


@pytest.mark.parametrize("store_error", [None, StoreUnavailableError("away")])
async def test_where_the_store_says_nothing_the_others_are_asked(
    http: httpx.AsyncClient, store_error: Exception | None
) -> None:
    """The one that has the session gets the request, once; who is asked asks nobody; those that are not there cost nothing."""

    async def have(send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    a = Node("a", store_error=store_error, is_asking=True)
    b, c = Node("b", is_asking=True), Node("c", is_asking=True, answer=have)
    async with serving(a, b, c):
        know(a, b, c)
        know(b, a, c)
        know(c, a, b)
        a.known.append(beat("unreachable", "http://127.0.0.1:1"))
        answer = await http.delete(f"{a.url}{SESSION}?x=1")
        assert answer.status_code == 200, answer.text
        assert [asked["method"] for asked in b.asked] == ["GET"]
        assert [(asked["method"], asked["query_string"]) for asked in c.asked] == [
            ("GET", b""),
            ("DELETE", b"x=1"),
        ]
        c.answer = None
        nobody = await http.delete(f"{a.url}{SESSION}")
        assert nobody.status_code == (404 if store_error is None else 503)
