"""What a caller says first decides whether a session begins or goes on; and who comes back finds its place."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.access.admitted import SCOPE_KEY, Admitted
from voice_agent.access.limiter import Limiter
from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.events import CloseReason, Notice
from voice_agent.core.identity import Identity, Quotas, Scope
from voice_agent.server.calls import CallDesk
from voice_agent.server.reception import RESUME_PROTOCOL, resumed_session
from voice_agent.session.keeping import Storage
from voice_agent.session.registry import CallRegistry
from voice_agent.session.services import Services
from voice_agent.session.store.memory import MemoryStore
from voice_agent.session.store.protocol import Claim, Claimed
from voice_agent.session.store.writer import open_journal_writer
from voice_agent.settings.current import CurrentSettings

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
CALLER = Identity(key_id="k7", tenant="t7", scopes=frozenset(Scope), quotas=Quotas(max_calls=1))
OTHER = Identity(key_id="k8", tenant="t7", scopes=frozenset(Scope))


class AwayStore(MemoryStore):
    """Takes no claims while it is away."""

    is_away = False

    async def claim(self, claim: Claim) -> Claimed:
        if self.is_away:
            raise StoreUnavailableError("away")
        return await super().claim(claim)


@attrs.define
class Wire:
    """An ASGI server's side of one connection."""

    sent: list[dict[str, Any]] = attrs.field(factory=list)
    over: trio.Event = attrs.field(factory=trio.Event)
    _channel: Any = attrs.field(factory=lambda: trio.open_memory_channel[dict[str, Any]](100))

    def say(self, **message: Any) -> None:
        self._channel[0].send_nowait({"type": "websocket.receive", "text": json.dumps(message)})

    def vanish(self) -> None:
        self._channel[0].send_nowait({"type": "websocket.disconnect", "code": 1006})

    async def receive(self) -> dict[str, Any]:
        return await self._channel[1].receive()

    async def send(self, message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        self.sent.append(message)

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(message["text"]) for message in self.sent if "text" in message]

    @property
    def close_code(self) -> int | None:
        return next((m["code"] for m in self.sent if m["type"] == "websocket.close"), None)

    @property
    def status(self) -> int | None:
        return next((m["status"] for m in self.sent if m["type"] == "websocket.http.response.start"), None)


@attrs.define
class House:
    """A desk, and who comes to it."""

    desk: CallDesk
    store: AwayStore
    nursery: trio.Nursery

    async def come(self, *protocols: str, identity: Identity = CALLER) -> Wire:
        wire = Wire()
        wire._channel[0].send_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": "/v1/ws",
            "query_string": b"",
            "subprotocols": list(protocols),
            "extensions": {"websocket.http.response": {}},
            SCOPE_KEY: Admitted(identity=identity, address="192.0.2.1"),
        }
        self.nursery.start_soon(self._serve, wire, scope)
        await wait_all_tasks_blocked()
        return wire

    async def _serve(self, wire: Wire, scope: dict[str, Any]) -> None:
        await self.desk(scope, wire.receive, wire.send)
        wire.over.set()

    async def begin(self) -> tuple[Wire, dict[str, Any]]:
        """Let somebody begin a session; return also what resumes it."""
        wire = await self.come()
        wire.say(type="start")
        await trio.sleep(0.1)
        [ready] = wire.told
        return wire, {"session": ready["session"], "token": ready["resume"]["token"], "last_seq": 1}

    def refusals(self, code: str) -> float:
        return self.desk.services.metrics.store.resume_refusals_total.labels(code)._value.get()


@pytest.fixture
def open_house(open_scripted_services: OpenServices) -> Callable[..., AbstractAsyncContextManager[House]]:
    @asynccontextmanager
    async def opened(max_calls: int = 8, *, keeps: bool = True) -> AsyncIterator[House]:
        store = AwayStore()
        async with (
            open_journal_writer(store, max_waiting_bytes=1 << 20, drain_seconds=5) as writer,
            open_scripted_services() as plain,
            trio.open_nursery() as nursery,
        ):
            storage = Storage(writer=writer, node="n1", budget_seconds=0.25, now=trio.current_time)
            services = attrs.evolve(plain, storage=storage if keeps else None)
            current = CurrentSettings(services.settings)
            limiter = Limiter(current, on_hit=lambda _limit: None)
            desk = CallDesk(
                services=services, registry=CallRegistry(max_calls), settings=current, limiter=limiter
            )
            yield House(desk, store, nursery)
            nursery.cancel_scope.cancel()

    return opened


async def test_whatever_comes_first_is_not_lost(autojump_clock: MockClock, open_house: Any) -> None:
    """A ping, text without a start, and an error reach the session that begins with them."""
    async with open_house() as house:
        for first, kinds in (
            ({"type": "ping", "id": "1"}, ["pong"]),
            ({"type": "text", "text": "hello"}, ["ready", "final"]),
            ({"type": "dance"}, ["error"]),
        ):
            wire = await house.come()
            assert wire.told == []
            wire.say(**first)
            await trio.sleep(0.1)
            assert [message["type"] for message in wire.told] == kinds
            wire.vanish()
            await wire.over.wait()


async def test_who_says_nothing_is_told_of_the_drain_and_closed_by_it(
    autojump_clock: MockClock, open_house: Any
) -> None:
    """Before the first message there is no session; a drain makes one, so that nobody is left out."""
    async with open_house() as house:
        wire = await house.come()
        assert len(house.desk.registry) == 1
        await house.desk.registry.tell_all(lambda: Notice(code="draining", message="soon"))
        await trio.sleep(0.1)
        assert [message["code"] for message in wire.told] == ["draining"]
        house.desk.registry.end_all(CloseReason.DRAIN)
        await wire.over.wait()
        assert (wire.told[-1]["reason"], wire.close_code) == ("drain", 1012)


async def test_who_says_nothing_for_too_long_is_told_so(autojump_clock: MockClock, open_house: Any) -> None:
    """The time to start is over: an error, and the connection is closed."""
    async with open_house() as house:
        wire = await house.come()
        await wire.over.wait()
        assert [message.get("code") for message in wire.told] == ["start_timeout", None]
        assert wire.close_code == 4408


@pytest.mark.parametrize(
    ("changes", "identity", "code"),
    [
        ({"token": "guessed"}, CALLER, "resume_token_wrong"),
        ({"session": "unknown"}, CALLER, "resume_unknown"),
        ({}, OTHER, "resume_foreign"),
    ],
)
async def test_why_a_session_does_not_go_on_is_told_and_counted(
    autojump_clock: MockClock, open_house: Any, changes: dict[str, str], identity: Identity, code: str
) -> None:
    """Its own code, 4404, and nothing becomes of the session that is there."""
    async with open_house() as house:
        former, resume = await house.begin()
        former.vanish()
        await former.over.wait()
        wire = await house.come(identity=identity)
        wire.say(type="start", resume={**resume, **changes})
        await wire.over.wait()
        assert [message["type"] for message in wire.told] == ["error", "closed"]
        assert (wire.told[0]["code"], wire.close_code) == (code, 4404)
        assert house.refusals(code) == 1
        wire = await house.come()
        wire.say(type="start", resume=resume)
        await trio.sleep(0.1)
        assert wire.told[0]["resumed"] is True


async def test_a_store_that_is_away_is_told_as_such(autojump_clock: MockClock, open_house: Any) -> None:
    """`resume_unavailable` and 1013, try again later; and later it works."""
    async with open_house() as house:
        former, resume = await house.begin()
        former.vanish()
        await former.over.wait()
        house.store.is_away = True
        wire = await house.come()
        wire.say(type="start", resume=resume)
        await wire.over.wait()
        assert (wire.told[0]["code"], wire.close_code) == ("resume_unavailable", 1013)
        house.store.is_away = False
        wire = await house.come()
        wire.say(type="start", resume=resume)
        await trio.sleep(0.1)
        assert wire.told[0]["resumed"] is True


async def test_where_nothing_is_kept_nothing_goes_on(autojump_clock: MockClock, open_house: Any) -> None:
    """`ready` offers nothing, and who wants to resume is told that there is no such session."""
    async with open_house(keeps=False) as house:
        wire = await house.come()
        wire.say(type="start")
        await trio.sleep(0.1)
        assert "resume" not in wire.told[0]
        wire.vanish()
        await wire.over.wait()
        wire = await house.come()
        wire.say(type="start", resume={"session": "s1", "token": "t1"})
        await wire.over.wait()
        assert (wire.told[0]["code"], wire.close_code) == ("resume_unknown", 4404)


@pytest.mark.parametrize("max_calls", [1, 8])
async def test_who_comes_back_takes_the_place_of_the_former_connection(
    autojump_clock: MockClock, open_house: Any, max_calls: int
) -> None:
    """One call is allowed, and its lost connection is still there: named in the handshake, the session goes on all the same."""
    async with open_house(max_calls) as house:
        former, resume = await house.begin()
        refused = await house.come()
        assert refused.status == (503 if max_calls == 1 else 429)
        wire = await house.come("voice-agent.v1", f"{RESUME_PROTOCOL}{resume['session']}")
        second = await house.come("voice-agent.v1", f"{RESUME_PROTOCOL}{resume['session']}")
        assert second.status == refused.status
        wire.say(type="start", resume=resume)
        with trio.fail_after(1):  # at once, and not when its lease is due
            await former.over.wait()
        assert (former.told[-1]["reason"], former.close_code) == ("taken_over", 4409)
        assert wire.told[0]["resumed"] is True
        assert len(house.desk.registry) == 1
        assert house.desk.registry.find(resume["session"]).is_resumed


async def test_that_place_is_for_the_session_alone(autojump_clock: MockClock, open_house: Any) -> None:
    """Somebody else's session gives no place, and who begins a new one in it is refused."""
    async with open_house() as house:
        _, resume = await house.begin()
        named = f"{RESUME_PROTOCOL}{resume['session']}"
        greedy = attrs.evolve(OTHER, quotas=Quotas(max_calls=0))
        assert (await house.come(named, identity=greedy)).status == 429
        for first in ({"type": "start"}, {"type": "start", "resume": {**resume, "session": "another"}}):
            wire = await house.come(named)
            wire.say(**first)
            await wire.over.wait()
            assert (wire.told[0]["code"], wire.close_code) == ("resume_refused", 4404)
        wire = await house.come(named)
        wire.vanish()
        await wire.over.wait()
        assert len(house.desk.registry) == 1


def test_the_session_is_read_from_the_subprotocols() -> None:
    """The first that is named; None for who names none."""
    assert resumed_session({"subprotocols": ["voice-agent.v1", "voice-agent.resume.a"]}) == "a"
    assert resumed_session({"subprotocols": ["voice-agent.v1"]}) is None
    assert resumed_session({}) is None
