"""The close watch: what is said, counted and done about a call that does not end."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from voice_agent.core.commands import CallOptions, Start
from voice_agent.core.events import CloseReason
from voice_agent.core.frames import AudioFrame
from voice_agent.core.identity import ANONYMOUS
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.settings.schema import SessionSettings, Settings
from voice_agent.speech.engine import Engine, Recognition, RecognitionRequest
from voice_agent.transports.memory import MemoryCaller, open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]

SETTINGS = Settings(
    session=SessionSettings(finish_timeout_seconds=4, close_timeout_seconds=1, slow_close_seconds=1)
)
ALLOWED_SECONDS = 4 + 2 * 1
LOOK = 0.1
"""A line comes a moment after its time: the tasks are looked at twice."""


class Hanging:
    """Never answers, but lets itself be cancelled."""

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        await trio.sleep_forever()
        raise AssertionError


class Deaf:
    """Can't be cancelled until it is released."""

    def __init__(self) -> None:
        self.released = trio.Event()

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        with trio.CancelScope(shield=True):
            await self.released.wait()
        return Recognition(text="")


class Burning:
    """Swallows every cancellation and begins anew, as a careless library does; burns a core until it is released."""

    is_released = False

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        while not self.is_released:
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:  # noqa: TRY203, RUF100 (it is the defect that is tested)
                continue
        return Recognition(text="")


def samples(services: Services, name: str) -> dict[str, float]:
    """The values of an instrument by stage, without those that are zero."""
    return {
        sample.labels.get("stage", ""): sample.value
        for family in services.metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"voice_agent_{name}" and sample.value
    }


@asynccontextmanager
async def hung_up(
    open_services: OpenServices, engine: Engine, frames: list[AudioFrame], release: Callable[[], None]
) -> AsyncIterator[tuple[Services, list[Session], MemoryCaller]]:
    """A caller who spoke and hung up; the call is on its way to its end."""
    sessions: list[Session] = []

    async def serve(services: Services, transport: Any) -> None:
        async with open_session(services, transport, session_id="stuck", identity=ANONYMOUS) as session:
            sessions.append(session)
            await session.heard_all.wait()

    async with open_services(engine=engine, settings=SETTINGS) as services, trio.open_nursery() as nursery:
        try:
            transport, caller = open_memory_pair(max_frames=1000)
            nursery.start_soon(serve, services, transport, name="serve")
            await caller.send_command(Start(options=CallOptions(partials=False)))
            for frame in frames:
                await caller.send_audio(frame)
            caller.hang_up()
            yield services, sessions, caller
        finally:
            release()


def events(logs: list[Any]) -> list[str]:
    return [line["event"] for line in logs if line["event"].startswith("close_")]


async def test_a_quick_close_is_not_spoken_of(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Under the threshold nothing is logged and nothing counted."""
    with capture_logs() as logs:
        async with open_scripted_services(settings=SETTINGS) as services, open_session(services) as session:
            for frame in spoken(0.3, 1.0):
                await session.send_audio(frame)
        await trio.sleep(60)
    assert events(logs) == []
    assert samples(services, "slow_closes_total") == {}


async def test_a_stage_that_hangs_is_named_with_its_place_and_ended_at_its_deadline(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """After a second: which stage, which tasks, and the line of code where each waits. At the deadline it ends."""
    with capture_logs() as logs:
        async with hung_up(open_scripted_services, Hanging(), spoken(0.3, 1.0), lambda: None) as (
            services,
            sessions,
            _,
        ):
            await wait_all_tasks_blocked()
            await trio.sleep(0.99)
            assert events(logs) == []
            await trio.sleep(0.01 + LOOK)
            assert events(logs) == ["close_slow"]
            await sessions[0].closed.wait()
            await trio.sleep(60)
    [line] = [line for line in logs if line["event"] == "close_slow"]
    assert line["session"] == "stuck"
    assert line["log_level"] == "warning"
    assert line["stage"] == "transcribe"
    assert line["seconds"] == pytest.approx(1)
    tree = "\n".join(line["tasks"])
    host, *children = line["tasks"]
    assert host.startswith("serve: test_close_watch.py:")
    assert all(child.startswith("  ") for child in children)
    assert "    transcribe: test_close_watch.py:" in tree
    assert "recognise, in sleep_forever" in tree
    assert "\n  send: outbox.py:" in tree
    assert "MemoryReceiveChannel.receive" in tree
    assert "busy" not in tree
    assert closings.records[0].reason is CloseReason.HANGUP
    assert closings.records[0].close_seconds == pytest.approx(4)
    assert samples(services, "slow_closes_total") == {"transcribe": 1}
    assert samples(services, "close_overdue_total") == {}


async def test_a_stage_that_ignores_cancellation_for_a_while_is_forced_and_named_until_it_ends(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken, closings: Any
) -> None:
    """Slow, overdue and forced, stuck each close timeout; the caller's connection is closed; then it ends as any."""
    engine = Deaf()
    with capture_logs() as logs:
        async with hung_up(open_scripted_services, engine, spoken(0.3, 1.0), engine.released.set) as (
            services,
            sessions,
            _,
        ):
            await wait_all_tasks_blocked()
            await trio.sleep(ALLOWED_SECONDS - 0.01)
            assert events(logs) == ["close_slow"]
            assert samples(services, "stuck_closes") == {}
            await trio.sleep(0.01 + LOOK)
            assert events(logs) == ["close_slow", "close_overdue"]
            assert samples(services, "stuck_closes") == {"": 1}
            assert samples(services, "active_sessions") == {"": 1}
            await trio.sleep(3.5)
            assert events(logs)[2:] == ["close_stuck"] * 3
            engine.released.set()
            await sessions[0].closed.wait()
            await trio.sleep(60)
            assert events(logs)[2:] == ["close_stuck"] * 3
            assert samples(services, "stuck_closes") == {}
            assert samples(services, "active_sessions") == {}
    for line in logs:
        if line["event"] in {"close_overdue", "close_stuck"}:
            assert (line["session"], line["stage"], line["log_level"]) == ("stuck", "transcribe", "error")
            assert "recognise, in Event.wait" in "\n".join(line["tasks"])
            # What could be ended was: only what can't be is left.
            if line["event"] == "close_stuck":
                assert line["stages"] == ["transcribe"]
    assert samples(services, "close_overdue_total") == {"transcribe": 1}
    assert len(closings.records) == 1


async def test_a_forced_call_lets_its_caller_go(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A caller who waits for an end that doesn't come is released by the deadline, whatever goes on inside."""
    engine = Deaf()
    async with open_scripted_services(engine=engine, settings=SETTINGS) as services:
        transport, caller = open_memory_pair(max_frames=1000)
        async with trio.open_nursery() as nursery:
            sessions: list[Session] = []

            async def serve() -> None:
                async with open_session(services, transport) as session:
                    sessions.append(session)
                    await session.heard_all.wait()

            nursery.start_soon(serve)
            await caller.send_command(Start(options=CallOptions(partials=False)))
            for frame in spoken(0.3, 1.0):
                await caller.send_audio(frame)
            await wait_all_tasks_blocked()
            sessions[0].end(CloseReason.MAX_DURATION)
            began = trio.current_time()
            with trio.fail_after(3600):
                async for _ in caller.events():
                    pass
            assert trio.current_time() - began <= ALLOWED_SECONDS + LOOK
            assert not sessions[0].closed.is_set()
            engine.released.set()


async def test_a_stage_that_burns_is_called_busy(
    mock_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """It swallows its cancellation in a loop: the tree says so, and the rest of the process goes on."""
    engine = Burning()

    def release() -> None:
        engine.is_released = True

    async def turn(times: int = 200) -> None:
        for _ in range(times):
            await trio.lowlevel.checkpoint()

    with capture_logs() as logs:
        async with hung_up(open_scripted_services, engine, spoken(0.3, 1.0), release) as (
            services,
            sessions,
            _,
        ):
            await turn()
            # A burning task leaves no moment at which the clock could jump by itself.
            for _ in range(ALLOWED_SECONDS * 10 + 30):
                mock_clock.jump(0.1)
                await turn(60)
            assert samples(services, "stuck_closes") == {"": 1}
            release()
            await turn()
            assert sessions[0].closed.is_set()
    assert {"close_slow", "close_overdue", "close_stuck"} <= set(events(logs))
    [line] = [line for line in logs if line["event"] == "close_overdue"]
    [busy] = [task for task in line["tasks"] if "busy" in task]
    assert busy.strip().startswith("transcribe: test_close_watch.py:")
    assert "recognise" in busy


async def test_an_embedding_programs_own_block_is_named_and_not_cancelled(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The block around an embedded session is its program's: it is shown, and never forced."""
    engine = Deaf()
    with capture_logs() as logs:
        async with (
            open_scripted_services(engine=engine, settings=SETTINGS) as services,
            open_session(services) as session,
        ):
            for frame in spoken(0.3, 1.0):
                await session.send_audio(frame)
            session.end(CloseReason.STOPPED)
            await trio.sleep(20)
            finished = True
            engine.released.set()
    assert finished
    line = next(line for line in logs if line["event"] == "close_overdue")
    assert "test_an_embedding_programs_own_block" in line["tasks"][0]
    assert session.record is not None
