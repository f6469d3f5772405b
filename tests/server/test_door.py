"""The door: one request or handshake at a time, with applications inside that only tell what they see."""

import json
from collections.abc import Mapping
from typing import Any

import attrs
import pytest
import trio

from voice_agent.access.admitted import Admitted, admitted
from voice_agent.access.anonymous import ANONYMOUS_CALLER
from voice_agent.access.authenticator import Credentials
from voice_agent.access.refusal import Refusal
from voice_agent.access.turnstile import PASS, Verdict
from voice_agent.core.errors import RateExceededError, UnauthenticatedError, VoiceAgentError
from voice_agent.core.identity import ANONYMOUS, Identity, Scope
from voice_agent.core.request_errors import TooManyFailuresError, UnavailableError
from voice_agent.server.door import Door
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import AccessSettings, Settings

CALLER = Identity(key_id="k1", tenant="t1", scopes=frozenset({Scope.CALL}))
GOOD = "good.key"
BAD = "bad.key"
OPEN_TO_ALL = {"anonymous": "loopback"}
CLOSED = {"anonymous": "never"}
WITH_KEYS = {"keys": "some"}


@attrs.frozen
class OneKey:
    """An authenticator that knows one key."""

    fault: VoiceAgentError = attrs.field(factory=lambda: UnauthenticatedError("no"))

    async def identify(self, credentials: Credentials, *, address: str) -> Identity:
        await trio.lowlevel.checkpoint()
        assert address == "192.0.2.7"
        if GOOD not in {credentials.bearer, credentials.api_key, credentials.ticket}:
            raise self.fault
        return CALLER


@attrs.define
class Inside:
    """What stands behind the door; it remembers what it is asked."""

    scopes: list[Mapping[str, Any]] = attrs.field(factory=list)
    headers: list[tuple[bytes, bytes]] = attrs.field(factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            protocol = "voice-agent.v1" if "voice-agent.v1" in scope["subprotocols"] else None
            await send({"type": "websocket.accept", "subprotocol": protocol})
            return
        headers = [(b"allow", b"GET, POST"), *self.headers]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"inside"})

    @property
    def who(self) -> Admitted:
        [scope] = self.scopes
        return admitted(scope)


@attrs.define
class House:
    """A door with what stands behind it."""

    door: Door
    inside: Inside
    sent: list[dict[str, Any]] = attrs.field(factory=list)

    async def ask(self, kind: str, *headers: tuple[str, str], method: str = "GET", **more: Any) -> Any:
        all_headers = [("Host", "voice.example"), *headers]
        scope = {
            "type": kind,
            "method": method,
            "scheme": {"http": "http", "websocket": "ws"}[kind],
            "path": "/v1/x",
            "query_string": b"",
            "client": ("192.0.2.7", 4711),
            "headers": [(name.lower().encode(), value.encode()) for name, value in all_headers],
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}},
        }
        self.sent.clear()
        self.inside.scopes.clear()
        await self.door({**scope, **more}, self._receive, self._send)
        return self.sent[0]

    @property
    def code(self) -> str:
        return str(json.loads(self.sent[1]["body"])["code"])

    async def _receive(self) -> Any:
        raise AssertionError("nothing is read before the inside reads it")

    async def _send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)


def house(rules: dict[str, str], *, fault: Any = None, turnstile: Any = None) -> House:
    inside = Inside()
    more: dict[str, Any] = {} if turnstile is None else {"turnstile": turnstile}
    door = Door(
        web=inside,
        desk=inside,
        settings=CurrentSettings(Settings(access=AccessSettings(**rules))),
        host="127.0.0.1",
        authenticator=OneKey() if fault is None else OneKey(fault),
        **more,
    )
    return House(door, inside)


def header(answer: Any, name: str) -> list[str]:
    return [value.decode() for key, value in answer["headers"] if key == name.encode()]


KINDS = pytest.mark.parametrize("kind", ["http", "websocket"])


@KINDS
async def test_calls_go_to_the_desk_and_everything_else_to_the_web_app(kind: str) -> None:
    """One port, two applications."""
    one = house(OPEN_TO_ALL)
    one.door.desk = desk = Inside()
    await one.ask(kind)
    assert [len(one.inside.scopes), len(desk.scopes)] == ([1, 0] if kind == "http" else [0, 1])


@KINDS
async def test_who_shows_nothing_is_what_strangers_are(kind: str) -> None:
    """Nobody, or somebody who may call, as the operator has it."""
    one = house(CLOSED)
    await one.ask(kind)
    assert one.inside.who == Admitted(identity=None, address="192.0.2.7")
    one = house(OPEN_TO_ALL)
    await one.ask(kind)
    assert one.inside.who == Admitted(identity=ANONYMOUS_CALLER, address="192.0.2.7")
    await one.ask(kind, client=("127.0.0.1", 1), headers=[(b"host", b"127.0.0.1:8080")])
    assert one.inside.who.identity == ANONYMOUS


SHOWN = {
    "bearer": {"header": ("Authorization", "Bearer {}")},
    "key": {"header": ("X-API-Key", "{}")},
    "query": {"query": "language=en&ticket={}"},
    "subprotocol": {"subprotocol": "voice-agent.ticket.{}"},
}


async def show(one: House, kind: str, place: str, secret: str) -> Any:
    where = SHOWN[place]
    headers = [(name, value.format(secret)) for name, value in [where["header"]]] if "header" in where else []
    offered = ["voice-agent.v1", where["subprotocol"].format(secret)] if "subprotocol" in where else []
    if offered:
        headers.append(("Sec-WebSocket-Protocol", ", ".join(offered)))
    query = where.get("query", "").format(secret).encode()
    return await one.ask(kind, *headers, query_string=query, subprotocols=offered)


@pytest.mark.parametrize(
    ("kind", "place"), [("http", "bearer"), ("http", "key"), *(("websocket", place) for place in SHOWN)]
)
@pytest.mark.parametrize("secret", [GOOD, BAD])
async def test_credentials_are_found_wherever_they_may_stand_and_go_no_further(
    kind: str, place: str, secret: str
) -> None:
    """Right ones make an identity, wrong ones nobody; neither is left in the scope, nor in the answer."""
    one = house(OPEN_TO_ALL | WITH_KEYS)
    answer = await show(one, kind, place, secret)
    expected = CALLER if secret == GOOD else None
    assert one.inside.who == Admitted(identity=expected, address="192.0.2.7")
    assert isinstance(one.inside.who.fault, UnauthenticatedError) == (secret == BAD)
    assert secret not in str(one.inside.scopes)
    assert secret not in str(answer)
    if place == "subprotocol":
        assert answer["subprotocol"] == "voice-agent.v1"


@KINDS
async def test_wrong_credentials_are_worse_than_none(kind: str) -> None:
    """Who shows a wrong key is not served as a stranger, though strangers may call: they meant to be somebody."""
    one = house(OPEN_TO_ALL | WITH_KEYS)
    await one.ask(kind, ("Authorization", f"Bearer {BAD}"))
    assert one.inside.who.identity is None


@KINDS
@pytest.mark.parametrize(
    "fault", [TooManyFailuresError("no", retry_after_seconds=1), UnavailableError("no")], ids=lambda f: f.code
)
async def test_credentials_that_can_t_be_judged_are_no_better_than_wrong_ones(kind: str, fault: Any) -> None:
    """They make nobody, and what is behind the door is told why."""
    one = house(OPEN_TO_ALL | WITH_KEYS, fault=fault)
    await one.ask(kind, ("Authorization", f"Bearer {BAD}"))
    assert one.inside.who.identity is None
    assert one.inside.who.fault is fault


@KINDS
async def test_the_first_key_ends_the_time_of_strangers(kind: str) -> None:
    """Keys that are configured while the server runs count from the next request on."""
    one = house({})
    await one.ask(kind)
    assert one.inside.who.identity == ANONYMOUS_CALLER
    one.door.settings.replace(Settings(access=AccessSettings(**WITH_KEYS)))
    await one.ask(kind)
    assert one.inside.who.identity is None
    await one.ask(kind, ("X-API-Key", GOOD))
    assert one.inside.who.identity == CALLER


@KINDS
async def test_without_keys_what_is_shown_is_meant_for_somebody_else(kind: str) -> None:
    """A proxy before a server that asks nobody may pass its own tokens on; they are taken away all the same."""
    one = house(OPEN_TO_ALL)
    await one.ask(kind, ("Authorization", f"Bearer {BAD}"))
    assert one.inside.who.identity == ANONYMOUS_CALLER
    assert BAD not in str(one.inside.scopes)


@KINDS
async def test_two_credentials_at_once_are_refused(kind: str) -> None:
    """400, before either is looked at, and with the challenge that says why (RFC 6750, section 3.1)."""
    one = house(CLOSED | WITH_KEYS)
    answer = await one.ask(kind, ("Authorization", f"Bearer {GOOD}"), ("X-API-Key", GOOD))
    assert answer["status"] == 400
    assert one.code == "ambiguous_credentials"
    assert header(answer, "www-authenticate") == ['Bearer realm="voice_agent", error="invalid_request"']
    assert one.inside.scopes == []


# Pages


@KINDS
@pytest.mark.parametrize(
    ("origin", "is_served"),
    [
        ("http://voice.example", True),
        ("HTTP://VOICE.EXAMPLE:80", True),
        ("https://app.example", True),
        ("https://app.example:443", True),
        ("https://voice.example", False),
        ("http://voice.example:8080", False),
        ("http://app.example", False),
        ("https://app.example.evil", False),
        ("https://evil.example", False),
        ("null", False),
        ("", False),
        ("https://app.example, https://evil.example", False),
        ("https://app.example/", False),
        ("\xe4", False),
    ],
)
async def test_pages_of_strangers_are_refused_on_both_wires(kind: str, origin: str, is_served: bool) -> None:
    """Its own pages and those that are listed may use the server, exactly; nobody inside sees another one's request."""
    one = house(OPEN_TO_ALL | WITH_KEYS | {"allowed_origins": "https://app.example"})
    answer = await one.ask(kind, ("Origin", origin), ("Authorization", f"Bearer {GOOD}"), method="POST")
    assert len(one.inside.scopes) == is_served
    if not is_served:
        assert answer["status"] == 403
        assert one.code == "forbidden_origin"
        assert header(answer, "access-control-allow-origin") == []


@KINDS
async def test_two_origins_are_none(kind: str) -> None:
    """A request that says it comes from two pages is refused."""
    one = house(OPEN_TO_ALL | {"allowed_origins": "https://app.example"})
    origin = ("Origin", "https://app.example")
    assert (await one.ask(kind, origin, origin))["status"] == 403


async def test_by_default_no_other_site_is_let_in() -> None:
    """Without the setting: same origin only, and no CORS header on anything."""
    one = house(OPEN_TO_ALL)
    assert (await one.ask("http", ("Origin", "https://app.example")))["status"] == 403
    answer = await one.ask("http", ("Origin", "http://voice.example"))
    assert answer["status"] == 200
    assert not [name for name, _ in answer["headers"] if name.startswith(b"access-control")]


async def test_an_allowed_page_may_read_the_answer() -> None:
    """The origin is echoed, never a star; no cookies; the headers that a client needs are exposed."""
    one = house(OPEN_TO_ALL | {"allowed_origins": "https://app.example"})
    answer = await one.ask("http", ("Origin", "https://app.example"))
    assert header(answer, "access-control-allow-origin") == ["https://app.example"]
    assert header(answer, "access-control-allow-credentials") == []
    exposed = header(answer, "access-control-expose-headers")[0].split(", ")
    assert {"Location", "ETag", "Link", "Retry-After", "RateLimit", "RateLimit-Policy"} <= set(exposed)


@KINDS
async def test_an_allowed_page_may_read_a_refusal_too(kind: str) -> None:
    """A script that can't read the 400 can't tell it from a network that is down."""
    one = house(CLOSED | {"allowed_origins": "https://app.example"})
    answer = await one.ask(kind, ("Origin", "https://app.example"), ("X-API-Key", "a"), ("X-API-Key", "b"))
    assert answer["status"] == 400
    assert header(answer, "access-control-allow-origin") == ["https://app.example"]


async def test_a_preflight_is_told_what_the_route_itself_allows() -> None:
    """Methods come from the route's own Allow; the headers are those that clients of ours send (Fetch, CORS)."""
    one = house(CLOSED | {"allowed_origins": "https://app.example"})
    answer = await one.ask(
        "http",
        ("Origin", "https://app.example"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization"),
        method="OPTIONS",
    )
    assert header(answer, "access-control-allow-origin") == ["https://app.example"]
    assert header(answer, "access-control-allow-methods") == ["GET, POST"]
    assert "Authorization" in header(answer, "access-control-allow-headers")[0]
    assert header(answer, "access-control-max-age") == ["600"]


@pytest.mark.parametrize(
    "headers", [[], [("Origin", "https://app.example")], [("Origin", "https://evil.example")]]
)
async def test_every_answer_says_that_it_depends_on_the_page(headers: list[tuple[str, str]]) -> None:
    """A cache between must not give one page's answer to another (Vary)."""
    one = house(OPEN_TO_ALL | {"allowed_origins": "https://app.example"})
    assert "Origin" in header(await one.ask("http", *headers), "vary")


@KINDS
async def test_who_is_no_browser_names_no_page(kind: str) -> None:
    """Without Origin there is nothing to judge."""
    one = house(OPEN_TO_ALL)
    await one.ask(kind)
    assert len(one.inside.scopes) == 1


@pytest.mark.parametrize(
    ("site", "mode", "is_served"),
    [
        ("cross-site", "no-cors", False),
        ("same-site", "no-cors", False),
        ("cross-site", "navigate", True),
        ("same-origin", "no-cors", True),
        ("none", "navigate", True),
    ],
)
async def test_what_a_stranger_s_page_embeds_is_not_served(site: str, mode: str, is_served: bool) -> None:
    """An image or a script has no Origin, but browsers say where it is wanted (Fetch Metadata); links are followed."""
    one = house(OPEN_TO_ALL)
    await one.ask("http", ("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode))
    assert len(one.inside.scopes) == is_served


@pytest.mark.parametrize(
    ("scheme", "host", "is_told"),
    [("https", "voice.example", True), ("http", "voice.example", False), ("https", "localhost:8443", False)],
)
async def test_browsers_are_told_to_stay_with_tls(scheme: str, host: str, is_told: bool) -> None:
    """Over TLS only (RFC 6797, section 7.2), and not on the name that every developer's machine has."""
    one = house(OPEN_TO_ALL)
    answer = await one.ask("http", scheme=scheme, headers=[(b"host", host.encode())])
    assert header(answer, "strict-transport-security") == (["max-age=2592000"] if is_told else [])


@KINDS
async def test_the_own_origin_is_the_one_that_the_browser_sees(kind: str) -> None:
    """Behind a trusted proxy that ends TLS the page is https; without that trust it is a stranger's."""
    headers = [
        ("Origin", "https://voice.example"),
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
    ]
    one = house(OPEN_TO_ALL)
    assert (await one.ask(kind, *headers))["status"] == 403
    one = house(OPEN_TO_ALL | {"trusted_proxies": "192.0.2.0/24"})
    await one.ask(kind, *headers)
    [scope] = one.inside.scopes
    assert one.inside.who.address == "203.0.113.9"
    assert scope["client"] == ("203.0.113.9", 0)
    assert scope["scheme"] == {"http": "https", "websocket": "wss"}[kind]


async def test_a_change_of_the_settings_reaches_the_door() -> None:
    """Origins and proxies are read from the settings in force, not from those of the start."""
    one = house(OPEN_TO_ALL)
    origin = ("Origin", "https://app.example")
    assert (await one.ask("http", origin))["status"] == 403
    one.door.settings.replace(
        Settings(access=AccessSettings(anonymous="loopback", allowed_origins="https://app.example"))
    )
    assert (await one.ask("http", origin))["status"] == 200
    one.door.settings.replace(Settings())
    assert (await one.ask("http", origin))["status"] == 403


# The turnstile


@attrs.define
class Counting:
    """A turnstile that remembers, and says what it is told to say."""

    at_arrival: Verdict = PASS
    at_entry: Verdict = PASS
    seen: list[Any] = attrs.field(factory=list)

    def arrives(self, address: str) -> Verdict:
        self.seen.append(("arrives", address))
        return self.at_arrival

    def enters(self, address: str, identity: Identity) -> Verdict:
        self.seen.append(("enters", address, identity.key_id))
        return self.at_entry


TOO_MUCH = Verdict(
    refusal=Refusal(error=RateExceededError("too much"), headers=((b"retry-after", b"7"),)),
    headers=((b"ratelimit", b'"a";r=0;t=7'),),
)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_are_not_counted(path: str) -> None:
    """A busy server is not taken for a dead one because callers share the prober's address."""
    one = house(CLOSED | WITH_KEYS, turnstile=Counting(at_arrival=TOO_MUCH))
    assert (await one.ask("http", ("X-API-Key", GOOD), path=path))["status"] == 200
    assert (await one.ask("http", path=f"{path}/x"))["status"] == 429


@KINDS
async def test_the_turnstile_counts_arrivals_and_entries(kind: str) -> None:
    """By the address behind the proxies, and by identity once it is known."""
    counting = Counting()
    one = house(CLOSED | WITH_KEYS, turnstile=counting)
    await one.ask(kind, ("X-API-Key", GOOD))
    await one.ask(kind, ("X-API-Key", BAD))
    await one.ask(kind)
    assert counting.seen == [
        ("arrives", "192.0.2.7"),
        ("enters", "192.0.2.7", "k1"),
        ("arrives", "192.0.2.7"),
        ("arrives", "192.0.2.7"),
    ]


@KINDS
@pytest.mark.parametrize("point", ["at_arrival", "at_entry"])
async def test_the_turnstile_s_refusal_is_the_answer(kind: str, point: str) -> None:
    """429 with its headers; at arrival the credentials are not even looked at."""
    counting = Counting(**{point: TOO_MUCH})
    one = house(CLOSED | WITH_KEYS, turnstile=counting)
    answer = await one.ask(kind, ("X-API-Key", GOOD))
    assert answer["status"] == 429
    assert one.code == "rate_exceeded"
    assert header(answer, "retry-after") == ["7"]
    assert header(answer, "ratelimit") == ['"a";r=0;t=7']
    assert one.inside.scopes == []
    assert len(counting.seen) == (1 if point == "at_arrival" else 2)


@KINDS
async def test_what_is_left_is_told_with_every_answer(kind: str) -> None:
    """RateLimit fields stand on answers from inside as well, on an accepted handshake too."""
    counting = Counting(at_entry=Verdict(headers=((b"ratelimit", b'"a";r=5;t=7'),)))
    one = house(CLOSED | WITH_KEYS, turnstile=counting)
    assert header(await one.ask(kind, ("X-API-Key", GOOD)), "ratelimit") == ['"a";r=5;t=7']
