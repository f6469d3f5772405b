"""The administration's routes over real sessions, without a wire: who sees which calls, and what can be done to them."""

import io
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import attrs
import pytest
import trio
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.access.admitted import SCOPE_KEY, Admitted
from voice_agent.core.commands import Start, TypedText
from voice_agent.core.events import CloseReason, Notice
from voice_agent.core.identity import ANONYMOUS, EVERY_TENANT, Identity, Scope
from voice_agent.core.transport import Wire
from voice_agent.observability.audit import open_audit
from voice_agent.observability.metrics import Metrics
from voice_agent.server.administration import Administration
from voice_agent.server.stopping import Stopping
from voice_agent.session.open import open_session
from voice_agent.session.registry import CallRegistry
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.session.summary import SessionState
from voice_agent.session.tap import MAX_LISTENERS, WAITING_EVENTS
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.effective import effective_settings
from voice_agent.settings.layers import LayerKind, Source
from voice_agent.settings.schema import ServerSettings, Settings, WebRtcSettings
from voice_agent.transports.memory import MemoryCaller, open_memory_pair
from voice_agent.web.app import Readiness, create_app
from voice_agent.web.event_stream import EventStream
from voice_agent.web.operations_routes import create_operations_routes
from voice_agent.web.sender import Sender
from voice_agent.web.session_routes import SessionQuery, create_session_routes

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]

SETTINGS = Settings(server=ServerSettings(port=9000), webrtc=WebRtcSettings(turn_secret="s3cret" * 9))
SOURCES = {
    "server.port": Source(LayerKind.ENVIRONMENT, "VOICE_AGENT__SERVER__PORT"),
    "webrtc.turn_secret": Source(LayerKind.MOUNTED_FILE, "VOICE_AGENT__WEBRTC__TURN_SECRET_FILE"),
}


def somebody(key: str, tenant: str, *scopes: Scope) -> Identity:
    return Identity(key_id=key, tenant=tenant, scopes=frozenset(scopes or Scope))


ACME = somebody("acme-1", "acme")
OTHER = somebody("other-1", "other")
EVERYBODY = somebody("root", EVERY_TENANT)
WATCHER = somebody("watcher", "acme", Scope.OBSERVE)


@attrs.define
class Place:
    """A server's calls and its web application."""

    services: Services
    nursery: trio.Nursery
    registry: CallRegistry = attrs.field(factory=lambda: CallRegistry(100, node="n1"))
    stopping: Stopping = attrs.field(factory=lambda: Stopping(CurrentSettings(SETTINGS)))
    administration: Administration = attrs.field(init=False)
    app: QuartTrio = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.administration = Administration(
            registry=self.registry,
            stopping=self.stopping,
            settings=lambda: effective_settings(SETTINGS, SOURCES, version=3),
        )
        self.app = create_app(
            metrics=Metrics(),
            readiness=lambda: Readiness(is_ready=True, detail={}),
            routes=[
                create_session_routes(self.administration),
                create_operations_routes(self.administration),
            ],
        )

    async def call(self, identity: Identity, wire: Wire = Wire.WEBSOCKET) -> tuple[Session, MemoryCaller]:
        """Begin a call."""
        transport, caller = open_memory_pair()
        session = await self.nursery.start(self._hold, transport, identity, wire)
        await caller.send_command(Start())
        await wait_all_tasks_blocked()
        return session, caller

    async def _hold(
        self, transport: Any, identity: Identity, wire: Wire, task_status: trio.TaskStatus[Session]
    ) -> None:
        with self.registry.place() as place:
            async with open_session(self.services, transport, identity=identity, wire=wire) as session:
                place.hold(session)
                task_status.started(session)
                await session.heard_all.wait()

    def client(self, who: Identity) -> Any:
        client = self.app.test_client()
        client.open = partial(
            client.open, scope_base={SCOPE_KEY: Admitted(identity=who, address="192.0.2.7")}
        )
        return client

    async def get(self, path: str, who: Identity, status: int = 200) -> Any:
        answer = await self.client(who).get(path)
        assert answer.status_code == status, await answer.get_data()
        return json.loads(await answer.get_data())


@pytest.fixture
async def place(autojump_clock: MockClock, open_scripted_services: OpenServices) -> AsyncIterator[Place]:
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        yield Place(services, nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def audited() -> Iterator[io.StringIO]:
    """The audit stream's lines."""
    stream = io.StringIO()
    open_audit("", stream)
    yield stream
    open_audit("", io.StringIO())


async def ids(place: Place, query: str, who: Identity = EVERYBODY) -> list[str]:
    return [one["id"] for one in (await place.get(f"/v1/sessions{query}", who))["sessions"]]


async def test_a_session_is_shown_with_all_that_is_known(autojump_clock: MockClock, place: Place) -> None:
    """Who, since when, on which wire, how much was heard and said, and nothing of what was said."""
    session, caller = await place.call(ACME, Wire.WEBRTC)
    await caller.send_command(TypedText(text="my secret"))
    await trio.sleep(12.5)
    shown = await place.get(f"/v1/sessions/{session.id}", ACME)
    opened_at = datetime.fromisoformat(shown.pop("opened_at"))
    assert abs(datetime.now(UTC) - opened_at) < timedelta(minutes=1)
    assert shown == {
        "id": session.id,
        "node": "n1",
        "key": "acme-1",
        "tenant": "acme",
        "wire": "webrtc",
        "state": "live",
        "ended_at": None,
        "duration_seconds": 12.5,
        "audio_seconds": 0.0,
        "dropped_audio_ms": 0,
        "position_ms": 0,
        "transcripts": 1,
        "stages": shown["stages"],
        "listeners": 0,
        "settings_version": 1,
        "network": None,
        "close": None,
    }
    assert set(shown["stages"]) == {"send", "receive audio", "receive text", "listen", "transcribe"}
    listed = await place.get("/v1/sessions", ACME)
    assert listed["next"] is None
    assert [one["id"] for one in listed["sessions"]] == [session.id]
    assert "my secret" not in json.dumps(listed)


async def test_a_tenant_sees_its_own_calls_only(autojump_clock: MockClock, place: Place) -> None:
    """Another tenant's call is answered as one that never was, whatever is asked of it; `*` sees every tenant."""
    mine, _ = await place.call(ACME)
    foreign, _ = await place.call(OTHER)
    nobodys, _ = await place.call(ANONYMOUS)
    assert await ids(place, "", ACME) == [mine.id]
    assert await ids(place, "", ANONYMOUS) == [nobodys.id]
    assert await ids(place, "") == [nobodys.id, foreign.id, mine.id]
    client = place.client(ACME)
    unknown = "0" * 32
    answers = []
    for session_id in (foreign.id, unknown):
        for answer in (
            await client.get(f"/v1/sessions/{session_id}"),
            await client.delete(f"/v1/sessions/{session_id}"),
            await client.get(f"/v1/sessions/{session_id}/events"),
        ):
            assert answer.status_code == 404
            answers.append(await answer.get_data())
    assert len(set(answers)) == 1
    assert not foreign.is_ending


async def test_filters_choose(autojump_clock: MockClock, place: Place) -> None:
    """By key, wire, state and time, together and alone; without a state those that are not over."""
    first, caller = await place.call(ACME, Wire.WEBRTC)
    second, _ = await place.call(OTHER)
    caller.hang_up()
    await first.closed.wait()
    await wait_all_tasks_blocked()
    third, _ = await place.call(ACME)
    fourth, _ = await place.call(ACME)
    fourth.end(CloseReason.IDLE_TIMEOUT)
    ending = place.administration.page(Sender(EVERYBODY, ""), SessionQuery(state=SessionState.ENDING))
    assert [one.id for one in ending.sessions] == [fourth.id]
    assert fourth.id in {
        one.id for one in place.administration.page(Sender(EVERYBODY, ""), SessionQuery()).sessions
    }
    await fourth.closed.wait()
    await wait_all_tasks_blocked()
    assert await ids(place, "") == [third.id, second.id]
    assert await ids(place, "?state=live") == [third.id, second.id]
    assert await ids(place, "?state=ended") == [fourth.id, first.id]
    assert await ids(place, "?key=acme-1") == [third.id]
    assert await ids(place, "?key=acme-1&state=ended&wire=webrtc") == [first.id]
    assert await ids(place, "?wire=webrtc") == []
    future = (datetime.now(UTC) + timedelta(minutes=1)).isoformat().replace("+", "%2B")
    assert await ids(place, f"?opened_since={future}") == []
    assert await ids(place, "?opened_since=2026-01-01T00:00:00Z") == [third.id, second.id]


async def test_pages_hold_everything_once(autojump_clock: MockClock, place: Place) -> None:
    """Page by page every session comes once, though calls come and go in between; the last page says so."""
    sessions = [await place.call(ACME) for _ in range(7)]
    seen: list[str] = []
    places: list[tuple[str, str]] = []
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor is not None:
        query = "?limit=3" + (f"&cursor={cursor}" if cursor else "")
        page = await place.get(f"/v1/sessions{query}", ACME)
        assert len(page["sessions"]) <= 3
        seen += [one["id"] for one in page["sessions"]]
        places += [(one["opened_at"], one["id"]) for one in page["sessions"]]
        cursor = page["next"]
        pages += 1
        if pages == 1:
            await place.call(ACME)
            sessions[6][1].hang_up()
            await sessions[6][0].closed.wait()
    assert pages == 3
    assert places == sorted(places, reverse=True)
    assert sorted(seen) == sorted(session.id for session, _ in sessions)
    exact = await place.get("/v1/sessions?limit=7", ACME)
    assert (len(exact["sessions"]), exact["next"]) == (7, None)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=x",
        "state=open",
        "cursor=A",
        "cursor=",
        "cursor=zzzzzzzzzz-a",
        "cursor=1-",
        "tenant=acme",
        "key=",
        "wire=x",
    ],
)
async def test_what_can_t_be_asked_is_refused(autojump_clock: MockClock, place: Place, query: str) -> None:
    """400 with the parameter's name."""
    told = await place.get(f"/v1/sessions?{query}", ACME, 400)
    assert (told["code"], told["field"]) == ("invalid_field", query.partition("=")[0])


async def test_a_session_is_ended_in_order(
    autojump_clock: MockClock, place: Place, audited: io.StringIO
) -> None:
    """202 at once; the caller reads `ended_by_operator`; afterwards the close record is there, and 204 is the answer."""
    session, caller = await place.call(ACME)
    answer = await place.client(ACME).delete(f"/v1/sessions/{session.id}")
    assert answer.status_code == 202
    assert (await answer.get_json())["state"] == "ending"
    [line] = map(json.loads, audited.getvalue().splitlines())
    assert [line[name] for name in ("action", "actor", "target", "outcome", "address")] == [
        "session_end",
        "acme-1",
        session.id,
        "done",
        "192.0.2.7",
    ]
    told = [event async for event in caller.events()]
    assert told[-1].record.reason is CloseReason.ENDED_BY_OPERATOR
    await place.registry.wait_empty()
    shown = await place.get(f"/v1/sessions/{session.id}", ACME)
    assert (shown["state"], shown["close"]["reason"]) == ("ended", "ended_by_operator")
    again = await place.client(ACME).delete(f"/v1/sessions/{session.id}")
    assert (again.status_code, await again.get_data()) == (204, b"")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/sessions", Scope.OBSERVE),
        ("GET", "/v1/sessions/x", Scope.OBSERVE),
        ("DELETE", "/v1/sessions/x", Scope.ADMIN),
        ("GET", "/v1/sessions/x/events", Scope.OBSERVE),
        ("POST", "/v1/drain", Scope.ADMIN),
        ("GET", "/v1/settings", Scope.OBSERVE),
    ],
)
async def test_each_needs_its_scope(
    autojump_clock: MockClock,
    place: Place,
    audited: io.StringIO,
    method: str,
    path: str,
    scope: Scope,
) -> None:
    """Every other scope together is refused with 403, which is audited, and nothing happens."""
    rest = somebody("k", EVERY_TENANT, *(other for other in Scope if other is not scope))
    answer = await place.client(rest).open(path, method=method)
    assert answer.status_code == 403
    [line] = map(json.loads, audited.getvalue().splitlines())
    assert (line["actor"], line["action"], line["outcome"]) == ("k", scope.value, "refused")
    assert line["target"] == f"{method} {path}"
    assert not place.stopping.begun.is_set()
    right = await place.client(somebody("k", EVERY_TENANT, scope)).open(path, method=method)
    assert right.status_code in {200, 202, 404}


# -- the event stream -----------------------------------------------------------------------------------------------


def parse(stream: bytes) -> list[dict[str, str]]:
    """Read a stream as the HTML Standard, section 9.2.6, says; comments stand under ``comment``."""
    blocks = []
    for block in stream.decode().split("\n\n")[:-1]:
        fields = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            fields[name or "comment"] = value.removeprefix(" ")
        blocks.append(fields)
    return blocks


async def follow(
    place: Place, session: Session, who: Identity, *, after: str | None = None
) -> tuple[int, list[dict[str, str]]]:
    """Follow to the end of the stream."""
    headers = {} if after is None else {"Last-Event-ID": after}
    answer = await place.client(who).get(f"/v1/sessions/{session.id}/events", headers=headers)
    return answer.status_code, parse(await answer.get_data())


async def test_a_session_is_followed_to_its_end(autojump_clock: MockClock, place: Place) -> None:
    """Each event with its number, its type and the protocol's JSON; the stream ends behind `closed`."""
    session, caller = await place.call(ACME)
    found: list[dict[str, str]] = []

    async def listen() -> None:
        found.extend((await follow(place, session, ACME))[1])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        assert (await place.get(f"/v1/sessions/{session.id}", ACME))["listeners"] == 1
        await caller.send_command(TypedText(text="line one\r\nline two \u2028 é"))
        session.end(CloseReason.STOPPED)
    assert found[0] == {"comment": "listening"}
    [final, closed] = [block for block in found if "id" in block]
    assert (final["id"], final["event"]) == ("2", "final")
    told = json.loads(final["data"])
    assert (told["type"], told["seq"], told["text"]) == ("final", 2, "line one\r\nline two \u2028 é")
    assert (closed["id"], closed["event"]) == ("3", "closed")
    assert json.loads(closed["data"])["reason"] == "stopped"
    assert session.tap.listener_count == 0


async def test_words_need_the_scope_admin(autojump_clock: MockClock, place: Place) -> None:
    """Who may only observe learns that something was said and when, and not what."""
    session, caller = await place.call(ACME)
    await caller.send_command(TypedText(text="my secret"))
    await wait_all_tasks_blocked()
    session.end(CloseReason.STOPPED)
    found: dict[str, list[dict[str, str]]] = {}

    async def listen(name: str, who: Identity) -> None:
        found[name] = (await follow(place, session, who, after="0"))[1]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen, "watcher", WATCHER)
        nursery.start_soon(listen, "admin", ACME)
    assert "my secret" in json.dumps(found["admin"])
    assert "my secret" not in json.dumps(found["watcher"])
    [final] = [json.loads(block["data"]) for block in found["watcher"] if block.get("event") == "final"]
    assert {"utterance", "start", "end", "confidence"} <= final.keys()
    assert not {"text", "stable", "words"} & final.keys()


async def test_a_silent_stream_is_kept_alive(autojump_clock: MockClock, place: Place) -> None:
    """A comment each quarter of a minute, so that no proxy takes the stream for dead."""
    session, _ = await place.call(ACME)
    place.nursery.start_soon(_end_after, session, 50.0)
    _, found = await follow(place, session, ACME)
    assert [block for block in found if block == {"comment": "still here"}] == [{"comment": "still here"}] * 3


async def _end_after(session: Session, seconds: float) -> None:
    await trio.sleep(seconds)
    session.end(CloseReason.STOPPED)


async def test_who_comes_back_goes_on_where_it_was(autojump_clock: MockClock, place: Place) -> None:
    """`Last-Event-ID` brings what was missed; what is gone is refused and not skipped."""
    session, caller = await place.call(ACME)
    for number in range(200):
        await caller.send_command(TypedText(text=f"{number}"))
        await wait_all_tasks_blocked()
    status, told = await follow(place, session, ACME, after="3")
    assert status == 410
    place.nursery.start_soon(_end_after, session, 1.0)
    status, told = await follow(place, session, ACME, after="199")
    assert status == 200
    assert [block["id"] for block in told if "id" in block] == ["200", "201", "202"]


@pytest.mark.parametrize(
    ("after", "status", "code"),
    [
        ("x", 400, "invalid_field"),
        ("-1", 400, "invalid_field"),
        ("9" * 40, 400, "invalid_field"),
        ("999", 410, "events_gone"),
    ],
)
async def test_a_bad_last_event_id_is_refused(
    autojump_clock: MockClock, place: Place, after: str, status: int, code: str
) -> None:
    """Nothing is guessed."""
    session, _ = await place.call(ACME)
    answer = await place.client(ACME).get(
        f"/v1/sessions/{session.id}/events", headers={"Last-Event-ID": after}
    )
    assert answer.status_code == status
    assert (await answer.get_json(force=True))["code"] == code


async def test_what_has_ended_can_t_be_followed(autojump_clock: MockClock, place: Place) -> None:
    """410, which also keeps a browser's EventSource from coming back for ever."""
    session, caller = await place.call(ACME)
    caller.hang_up()
    await place.registry.wait_empty()
    answer = await place.client(ACME).get(f"/v1/sessions/{session.id}/events")
    assert answer.status_code == 410
    assert (await answer.get_json(force=True))["code"] == "session_closed"


async def test_listeners_of_one_session_are_bounded(autojump_clock: MockClock, place: Place) -> None:
    """The ninth is refused with 429."""
    session, _ = await place.call(ACME)
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_LISTENERS):
            nursery.start_soon(follow, place, session, ACME)
        await wait_all_tasks_blocked()
        answer = await place.client(ACME).get(f"/v1/sessions/{session.id}/events")
        assert answer.status_code == 429
        assert (await answer.get_json(force=True))["code"] == "too_many_listeners"
        nursery.cancel_scope.cancel()


async def test_head_begins_no_stream(autojump_clock: MockClock, place: Place) -> None:
    """HEAD is answered at once, and nobody listens."""
    session, _ = await place.call(ACME)
    answer = await place.client(ACME).head(f"/v1/sessions/{session.id}/events")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert session.tap.listener_count == 0


async def test_a_listener_that_does_not_read_is_told_that_it_is_cut_off(
    autojump_clock: MockClock, place: Place
) -> None:
    """The caller's call goes on at its own pace; the listener gets what waited for it, and one last event."""
    session, caller = await place.call(ACME)
    told = 0

    async def read_events() -> None:
        nonlocal told
        async for _ in caller.events():
            told += 1

    place.nursery.start_soon(read_events)
    async with EventStream(
        place.administration.listen(Sender(ACME, ""), session.id, None), with_words=True
    ) as stream:
        for _ in range(WAITING_EVENTS + 10):
            await session.publish(Notice(code="draining", message=""))
            await wait_all_tasks_blocked()
        assert told == WAITING_EVENTS + 11
        found = parse(b"".join([part async for part in stream]))
    assert [block.get("event") for block in found] == [None, *["notice"] * WAITING_EVENTS, "cut_off"]
    assert "id" not in found[-1]


# -- the process ----------------------------------------------------------------------------------------------------


async def test_a_drain_is_begun_as_by_a_signal(
    autojump_clock: MockClock, place: Place, audited: io.StringIO
) -> None:
    """202 with the open calls and the deadline; a second request changes nothing; both are audited."""
    await place.call(ACME)
    first = await place.client(EVERYBODY).post("/v1/drain")
    assert place.stopping.begun.is_set()
    deadline = place.stopping.deadline
    await trio.sleep(5)
    second = await place.client(ANONYMOUS).post("/v1/drain")
    assert (first.status_code, second.status_code) == (202, 202)
    told = json.loads(await first.get_data())
    assert told["calls"] == 1
    assert datetime.fromisoformat(told["deadline"]) > datetime.now(UTC)
    assert json.loads(await second.get_data()) == told
    assert place.stopping.deadline == deadline
    assert place.stopping.cause == "request"
    lines = map(json.loads, audited.getvalue().splitlines())
    assert [(line["action"], line["actor"]) for line in lines] == [("drain", "root"), ("drain", "anonymous")]


async def test_settings_are_shown_with_their_sources_and_without_secrets(
    autojump_clock: MockClock, place: Place
) -> None:
    """Each setting with its value, its source and whether it is live; the version; a given secret is asterisks."""
    answer = await place.client(EVERYBODY).get("/v1/settings")
    text = (await answer.get_data()).decode()
    assert "s3cret" not in text
    shown = json.loads(text)
    assert shown["version"] == 3
    assert shown["settings"]["server.port"] == {
        "value": 9000,
        "source": "environment VOICE_AGENT__SERVER__PORT",
        "live": False,
    }
    assert shown["settings"]["webrtc.turn_secret"]["value"] == "********"
    assert shown["settings"]["vad.threshold"]["source"] == "default"


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/drain"), ("GET", "/v1/settings")])
async def test_a_tenant_does_not_run_the_server(
    autojump_clock: MockClock, place: Place, audited: io.StringIO, method: str, path: str
) -> None:
    """An administrator of one tenant reaches that tenant's calls, and not the process that others share."""
    answer = await place.client(ACME).open(path, method=method)
    assert answer.status_code == 403
    [line] = map(json.loads, audited.getvalue().splitlines())
    assert (line["actor"], line["outcome"]) == ("acme-1", "refused")
    assert (await answer.get_json(force=True))["code"] == "forbidden"
    assert not place.stopping.begun.is_set()
