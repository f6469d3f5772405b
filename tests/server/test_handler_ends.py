"""How a handler ends, and what its peer, its inbox and the operator learn of it: under virtual time, without a wire."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, assert_checkpoints

from voice_agent.server.guard_limits import GuardHooks, GuardLimits, Intervention
from voice_agent.server.handler_tasks import (
    IGNORED,
    MAX_SENDS_AFTER_CLOSE,
    GuardedTaskGroup,
    HandlerEnd,
    HandlerInbox,
    HandlerStalledError,
)

WEBSOCKET = {"type": "websocket", "path": "/v1/ws" + "x" * 300}
HTTP = {"type": "http", "path": "/healthz"}
LIMITS = GuardLimits(handler_stall_seconds=3, body_timeout_seconds=7, max_waiting_messages=2)
MESSAGE = {"type": "websocket.receive", "text": "x"}

Handler = Callable[..., Awaitable[None]]


class Counting(GuardHooks):
    """Counts interventions."""

    def __init__(self) -> None:
        self.counts: Counter[Intervention] = Counter()

    def intervened(self, kind: Intervention) -> None:
        self.counts[kind] += 1


@attrs.define(eq=False)
class Peer:
    """Where a handler's messages go, and how it was told to have ended."""

    is_gone: bool = False
    sent: list[Any] = attrs.field(factory=list)

    async def send(self, message: Any) -> Any:
        self.sent.append(message)
        return IGNORED if self.is_gone else None


@attrs.define(eq=False)
class Outcome:
    """What came of one handler."""

    sent: list[Any]
    counts: Counter[Intervention]
    logs: list[Any]


async def outcome_of(
    app: Handler, scope: dict[str, Any] = WEBSOCKET, *, is_gone: bool = False, cancel_after: float = 60
) -> Outcome:
    """Run one handler to its end, as a connection does; what it raises must not come out."""
    hooks, peer = Counting(), Peer(is_gone=is_gone)
    with capture_logs() as logs:
        with trio.move_on_after(cancel_after):
            async with trio.open_nursery() as nursery:
                group = GuardedTaskGroup(nursery, LIMITS, hooks)
                await group.spawn_app(app, None, scope, peer.send)  # type: ignore[arg-type]
    return Outcome(peer.sent, hooks.counts, logs)


async def test_a_handler_that_returns_is_told_so(autojump_clock: MockClock) -> None:
    """A WebSocket stream gets the end by its name; HTTP, as Hypercorn has it, gets None behind the last message."""

    async def app(_scope: Any, _receive: Any, send: Any, *_threads: Any) -> None:
        await send({"type": "first"})

    assert (await outcome_of(app)).sent == [{"type": "first"}, HandlerEnd.RETURNED]
    outcome = await outcome_of(app, HTTP)
    assert outcome.sent == [{"type": "first"}, None]
    assert (outcome.counts, outcome.logs) == ({}, [])


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(3), ExceptionGroup("many", [KeyError("one")])], ids=repr
)
async def test_a_handler_that_raises_ends_its_own_request_only(
    error: BaseException, autojump_clock: MockClock
) -> None:
    """Counted and logged, the path cut to 200 characters; the peer gets its end."""

    async def app(*_anything: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    outcome = await outcome_of(app)
    assert outcome.sent == [HandlerEnd.CRASHED]
    assert outcome.counts == {Intervention.HANDLER_CRASHED: 1}
    [line] = outcome.logs
    assert (line["event"], line["scope"], len(line["path"])) == ("handler_crashed", "websocket", 200)
    assert not isinstance(line["exc_info"], BaseExceptionGroup)
    assert (await outcome_of(app, {"type": "lifespan"})).logs[0]["path"] == ""


async def test_a_cancelled_handler_is_no_crash(autojump_clock: MockClock) -> None:
    """The connection was cancelled: the peer is told that, and nothing is counted."""

    async def app(*_anything: Any) -> None:
        await trio.sleep_forever()

    outcome = await outcome_of(app, cancel_after=1)
    assert outcome.sent == [HandlerEnd.CANCELLED]
    assert (outcome.counts, outcome.logs) == ({}, [])
    assert trio.current_time() == 1


async def test_a_cancellation_that_nobody_asked_for_is_a_crash(autojump_clock: MockClock) -> None:
    """A handler that lets the Cancelled of a scope of its own out of that scope has a defect, and its peer is told."""

    async def app(*_anything: Any) -> None:
        stray: BaseException | None = None
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as cancelled:
                stray = cancelled
        assert stray is not None
        raise stray

    hooks, peer = Counting(), Peer()
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            group = GuardedTaskGroup(nursery, LIMITS, hooks)
            await group.spawn_app(app, None, WEBSOCKET, peer.send)  # type: ignore[arg-type]
            # The stray Cancelled must not cancel what else the connection does.
            await trio.sleep(1)
    assert trio.current_time() == 1
    assert peer.sent == [HandlerEnd.CRASHED]
    assert hooks.counts == {Intervention.HANDLER_CRASHED: 1}
    assert [line["event"] for line in logs] == ["handler_crashed"]


@pytest.mark.parametrize(("sends", "ends"), [(MAX_SENDS_AFTER_CLOSE, "by itself"), (10**9, "on the leash")])
async def test_a_handler_that_talks_on_to_nobody_is_ended(
    sends: int, ends: str, autojump_clock: MockClock
) -> None:
    """A thousand sends after the close are ignored, as ASGI wants; the next one cancels the handler, quietly."""
    done = 0

    async def app(_scope: Any, _receive: Any, send: Any, *_threads: Any) -> None:
        nonlocal done
        while done < sends:
            done += 1
            await send(MESSAGE)

    outcome = await outcome_of(app, is_gone=True)
    assert done == (MAX_SENDS_AFTER_CLOSE if ends == "by itself" else MAX_SENDS_AFTER_CLOSE + 1)
    assert outcome.sent[-1] is (HandlerEnd.RETURNED if ends == "by itself" else HandlerEnd.CANCELLED)
    assert outcome.counts == {}


async def test_a_send_to_a_peer_that_reads_is_never_counted_against_the_handler(
    autojump_clock: MockClock,
) -> None:
    """Only ignored sends are; and each of those lets other calls have their turn."""

    async def talk(_scope: Any, _receive: Any, send: Any, *_threads: Any) -> None:
        for _ in range(2 * MAX_SENDS_AFTER_CLOSE):
            await send(MESSAGE)

    assert (await outcome_of(talk)).sent[-1] is HandlerEnd.RETURNED

    async def once(_scope: Any, _receive: Any, send: Any, *_threads: Any) -> None:
        with assert_checkpoints():
            await send(MESSAGE)

    assert (await outcome_of(once, is_gone=True)).sent[-1] is HandlerEnd.RETURNED


@pytest.mark.parametrize(("scope", "seconds"), [(WEBSOCKET, 3), (HTTP, 7)])
async def test_a_handler_that_does_not_read_stalls_in_its_time(
    scope: dict[str, Any], seconds: float, autojump_clock: MockClock
) -> None:
    """A call in three seconds, a request (whose body may be left unread) in seven; two messages wait before that."""

    async def app(*_anything: Any) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        group = GuardedTaskGroup(nursery, LIMITS, Counting())
        put = await group.spawn_app(app, None, scope, Peer().send)  # type: ignore[arg-type]
        await put(MESSAGE)
        await put(MESSAGE)
        assert trio.current_time() == 0
        with pytest.raises(HandlerStalledError):
            await put(MESSAGE)
        assert trio.current_time() == seconds
        nursery.cancel_scope.cancel()


async def test_what_comes_after_the_handler_returned_is_dropped(autojump_clock: MockClock) -> None:
    """Nobody waits for a handler that is over; each dropped message is a checkpoint all the same."""

    async def app(*_anything: Any) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        group = GuardedTaskGroup(nursery, LIMITS, Counting())
        put = await group.spawn_app(app, None, WEBSOCKET, Peer().send)  # type: ignore[arg-type]
        await trio.sleep(1)
        for _ in range(10):
            with assert_checkpoints():
                await put(MESSAGE)
    assert trio.current_time() == 1


async def test_the_handler_is_told_of_the_disconnect_that_came(autojump_clock: MockClock) -> None:
    """Not of another one behind it, and never of a message: what comes after the disconnect is nothing."""
    inbox = HandlerInbox(2, stall_seconds=3)
    gone = {"type": "websocket.disconnect", "code": 1006}
    await inbox.put(gone)
    with assert_checkpoints():
        await inbox.put(MESSAGE)
    assert [await inbox.receive() for _ in range(3)] == [gone] * 3
