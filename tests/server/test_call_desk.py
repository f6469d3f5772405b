"""The desk where calls come in: who is admitted, what the others are told, and where both are counted."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.access.admitted import SCOPE_KEY, Admitted
from voice_agent.access.limiter import Limiter
from voice_agent.core.errors import UnauthenticatedError
from voice_agent.core.events import CloseReason
from voice_agent.core.identity import ANONYMOUS, Identity, Scope
from voice_agent.core.limits import Limit
from voice_agent.server.calls import CallDesk
from voice_agent.server.readiness import readiness
from voice_agent.session.registry import CallRegistry
from voice_agent.session.services import Services
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import LimitsSettings, RecogniserSettings, Settings

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]

SCOPE = {
    "type": "websocket",
    "path": "/v1/ws",
    "query_string": b"",
    "subprotocols": [],
    "extensions": {"websocket.http.response": {}},
    SCOPE_KEY: Admitted(identity=ANONYMOUS, address="127.0.0.1"),
}


class Wire:
    """An ASGI server's side of one connection."""

    def __init__(self) -> None:
        self._to_app, self._from_caller = trio.open_memory_channel[dict[str, Any]](100)
        self.sent: list[dict[str, Any]] = []
        self._to_app.send_nowait({"type": "websocket.connect"})

    def say(self, message: dict[str, Any]) -> None:
        self._to_app.send_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def disconnect(self) -> None:
        self._to_app.send_nowait({"type": "websocket.disconnect", "code": 1006})

    async def receive(self) -> dict[str, Any]:
        return await self._from_caller.receive()

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(message["text"]) for message in self.sent if "text" in message]


def refused(services: Services, cause: str) -> float:
    return services.metrics.calls_refused_total.labels(cause)._value.get()


@pytest.mark.parametrize("cause", ["draining", "full"])
async def test_who_cant_be_served_is_told_why_and_when_to_try_again(
    cause: str, autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """HTTP 503 with the cause as its code and Retry-After; counted, and no call was ever open."""
    async with open_scripted_services() as services:
        desk = CallDesk(services=services, registry=CallRegistry(1), is_open=cause != "draining")
        wire = Wire()
        if cause == "full":
            with desk.registry.place():
                await desk(SCOPE, wire.receive, wire.send)
        else:
            await desk(SCOPE, wire.receive, wire.send)
        assert refused(services, cause) == 1
    head, body = wire.sent
    assert head["status"] == 503
    assert (b"retry-after", b"5") in head["headers"]
    assert json.loads(body["body"])["code"] == cause
    assert closings.records == []


KEY = Identity(key_id="k1", tenant="t", scopes=frozenset({Scope.CALL}))


def scope_of(identity: Identity, address: str = "192.0.2.7") -> dict[str, Any]:
    return {**SCOPE, SCOPE_KEY: Admitted(identity=identity, address=address)}


async def test_one_key_has_no_more_calls_at_once_than_it_may(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """429 `too_many_calls` while both are open, from wherever; another key is served; and again when one has ended."""
    settings = CurrentSettings(Settings(limits=LimitsSettings(max_calls_per_key=2)))
    hits: list[Limit] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        desk = CallDesk(
            services=services,
            registry=CallRegistry(lambda: 10),
            settings=settings,
            limiter=Limiter(settings, on_hit=hits.append),
        )
        wires = [Wire() for _ in range(5)]
        for wire in wires[:2]:
            nursery.start_soon(desk, scope_of(KEY), wire.receive, wire.send)
        await wait_all_tasks_blocked()
        await desk(scope_of(KEY, "198.51.100.1"), wires[2].receive, wires[2].send)
        nursery.start_soon(desk, scope_of(attrs.evolve(KEY, key_id="k2")), wires[3].receive, wires[3].send)
        await wait_all_tasks_blocked()
        assert [wire.sent[0].get("status", "accepted") for wire in wires[:4]] == [
            "accepted", "accepted", 429, "accepted",
        ]  # fmt: skip
        assert json.loads(wires[2].sent[1]["body"])["code"] == "too_many_calls"
        assert (refused(services, "too_many_calls"), hits) == (1, [Limit.CALLS_AT_ONCE])
        wires[0].disconnect()
        await wait_all_tasks_blocked()
        nursery.start_soon(desk, scope_of(KEY), wires[4].receive, wires[4].send)
        await wait_all_tasks_blocked()
        assert wires[4].sent[0]["type"] == "websocket.accept"
        for wire in wires:
            wire.disconnect()
    assert desk.registry._held_by == {}


async def test_new_calls_come_no_faster_than_they_may(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """429 `rate_limited` with Retry-After and the RateLimit fields; who is refused for want of room pays nothing."""
    settings = CurrentSettings(Settings(limits=LimitsSettings(calls_burst_per_address=2)))
    hits: list[Limit] = []
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        desk = CallDesk(
            services=services,
            registry=CallRegistry(lambda: 10),
            settings=settings,
            limiter=Limiter(settings, on_hit=hits.append),
            is_open=False,
        )
        for _ in range(5):
            wire = Wire()
            await desk(scope_of(ANONYMOUS), wire.receive, wire.send)
            assert wire.sent[0]["status"] == 503
        desk.is_open = True
        wires = [Wire() for _ in range(3)]
        for wire in wires:
            nursery.start_soon(desk, scope_of(ANONYMOUS), wire.receive, wire.send)
            await wait_all_tasks_blocked()
        head, body = wires[2].sent
        assert [wire.sent[0]["type"] for wire in wires[:2]] == ["websocket.accept"] * 2
        assert head["status"] == 429
        assert json.loads(body["body"])["code"] == "rate_limited"
        headers = dict(head["headers"])
        assert headers[b"retry-after"] == b"1"
        assert headers[b"ratelimit-policy"] == b'"calls_per_address";q=2;w=2'
        assert headers[b"ratelimit"] == b'"calls_per_address";r=0;t=2'
        assert (refused(services, "rate_limited"), hits) == (1, [Limit.CALLS_PER_ADDRESS])
        for wire in wires:
            wire.disconnect()


async def test_a_call_holds_its_place_from_the_handshake_to_its_end(
    autojump_clock: MockClock, open_scripted_services: OpenServices, closings: Any
) -> None:
    """A caller who was accepted and says nothing counts already; when the call is over, the next is served."""
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(1))
        wire = Wire()
        nursery.start_soon(desk, SCOPE, wire.receive, wire.send)
        await wait_all_tasks_blocked()
        assert wire.sent[0]["type"] == "websocket.accept"
        assert readiness(desk).detail == {
            "draining": False,
            "calls": 1,
            "full": True,
            "overloaded": False,
        }
        assert not readiness(desk).is_ready
        wire.say({"type": "start"})
        wire.say({"type": "stop"})
        await wait_all_tasks_blocked()
        assert len(desk.registry) == 0
        assert readiness(desk).is_ready
        assert refused(services, "full") == 0
    assert wire.sent[-1] == {"type": "websocket.close", "code": 1000, "reason": "stopped"}
    assert [record.reason for record in closings.records] == [CloseReason.STOPPED]


async def test_an_open_call_is_reached_by_the_drain(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A call is enrolled while it lasts, and its connection is closed with 1012 when the drain ends it."""
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(1))
        wire = Wire()
        nursery.start_soon(desk, SCOPE, wire.receive, wire.send)
        wire.say({"type": "start"})
        await wait_all_tasks_blocked()
        desk.is_open = False
        assert readiness(desk).detail["draining"]
        assert not readiness(desk).is_ready
        desk.registry.end_all(CloseReason.DRAIN)
    assert wire.sent[-1] == {"type": "websocket.close", "code": 1012, "reason": "drain"}
    assert desk.registry._sessions == {}


@pytest.mark.parametrize("partials", [True, False])
async def test_the_operators_choice_of_partials_is_every_callers_default(
    partials: bool, autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """A caller who does not choose gets what `recogniser.partials` says."""
    settings = Settings(recogniser=RecogniserSettings(partials=partials))
    async with open_scripted_services(settings=settings) as services, trio.open_nursery() as nursery:
        desk = CallDesk(services=services, registry=CallRegistry(1))
        wire = Wire()
        nursery.start_soon(desk, SCOPE, wire.receive, wire.send)
        wire.say({"type": "start"})
        await wait_all_tasks_blocked()
        wire.disconnect()
    ready = wire.told[0]
    assert ready["type"] == "ready"
    assert ready["partials"] is partials


@pytest.mark.parametrize(
    ("who", "status", "challenge"),
    [
        (Admitted(identity=None, address="192.0.2.7"), 401, b'Bearer realm="voice_agent"'),
        (
            Admitted(identity=None, address="192.0.2.7", fault=UnauthenticatedError("no")),
            401,
            b'Bearer realm="voice_agent", error="invalid_token"',
        ),
        (
            Admitted(
                identity=attrs.evolve(ANONYMOUS, scopes=frozenset({Scope.OBSERVE})), address="192.0.2.7"
            ),
            403,
            b'Bearer realm="voice_agent", error="insufficient_scope", scope="call"',
        ),
    ],
)
async def test_who_may_not_call_is_refused_before_the_handshake(
    who: Admitted, status: int, challenge: bytes, open_scripted_services: OpenServices, closings: Any
) -> None:
    """An HTTP answer, never an accepted WebSocket; it tells how to come in (RFC 6750, section 3)."""
    async with open_scripted_services() as services:
        desk = CallDesk(services=services, registry=CallRegistry(1))
        wire = Wire()
        await desk({**SCOPE, SCOPE_KEY: who}, wire.receive, wire.send)
        head, body = wire.sent
        assert head["status"] == status
        assert (b"www-authenticate", challenge) in head["headers"]
        code = json.loads(body["body"])["code"]
        assert code == ("unauthenticated" if status == 401 else "forbidden")
        assert refused(services, code) == 1
    assert closings.records == []


async def test_a_handshake_that_passed_no_door_is_refused(open_scripted_services: OpenServices) -> None:
    """Nobody's word is nobody."""
    async with open_scripted_services() as services:
        wire = Wire()
        scope = {name: value for name, value in SCOPE.items() if name != SCOPE_KEY}
        await CallDesk(services=services, registry=CallRegistry(1))(scope, wire.receive, wire.send)
    assert wire.sent[0]["status"] == 401
