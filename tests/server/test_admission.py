"""Admission by health: each signal closes at its limit and opens at its lower one, never at once; under virtual time."""

import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from voice_agent.access.caller import Caller
from voice_agent.core.identity import ANONYMOUS
from voice_agent.observability.loop_lag import LoopLag
from voice_agent.observability.metrics import RECOGNISER
from voice_agent.server.admission import Admission, Health, HealthGate
from voice_agent.server.calls import CallDesk
from voice_agent.server.readiness import readiness
from voice_agent.session.registry import CallRegistry
from voice_agent.session.services import Services
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import AdmissionSettings, Settings
from voice_agent.speech.work_meter import WorkMeter

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]

WELL = Health(load=0.5, queue_seconds=0.0, lag_seconds=0.0)
RULES = AdmissionSettings(
    max_load=0.8,
    resume_load=0.7,
    max_queue_seconds=0.3,
    resume_queue_seconds=0.1,
    max_lag_seconds=0.1,
    resume_lag_seconds=0.05,
    min_refusing_seconds=2,
)


@pytest.mark.parametrize(
    ("signal", "over", "between", "recovered"),
    [
        ("load", {"load": 0.81}, {"load": 0.75}, {"load": 0.7}),
        ("queue", {"queue_seconds": 0.31}, {"queue_seconds": 0.2}, {"queue_seconds": 0.1}),
        ("lag", {"lag_seconds": 0.11}, {"lag_seconds": 0.07}, {"lag_seconds": 0.05}),
    ],
)
def test_each_signal_closes_above_its_limit_and_opens_below_its_lower_one(
    signal: str, over: dict[str, float], between: dict[str, float], recovered: dict[str, float]
) -> None:
    """Between the two it stays as it is; that is the hysteresis."""
    gate = HealthGate()
    assert gate.judge(attrs.evolve(WELL, **between), RULES, 0.0)
    assert not gate.judge(attrs.evolve(WELL, **over), RULES, 1.0)
    assert gate.closed_by == signal
    assert not gate.judge(attrs.evolve(WELL, **between), RULES, 100.0)
    assert gate.judge(attrs.evolve(WELL, **recovered), RULES, 101.0)
    assert gate.judge(attrs.evolve(WELL, **between), RULES, 102.0)


def test_refusing_lasts_for_a_while_at_least() -> None:
    """However well everything is a moment later."""
    gate = HealthGate()
    gate.judge(attrs.evolve(WELL, load=0.9), RULES, 10.0)
    assert not gate.judge(WELL, RULES, 11.9)
    assert gate.judge(WELL, RULES, 12.0)


def test_it_opens_only_when_every_signal_is_well() -> None:
    """Closed by the load; the lag that came meanwhile keeps it closed."""
    gate = HealthGate()
    gate.judge(attrs.evolve(WELL, load=0.9), RULES, 0.0)
    assert not gate.judge(attrs.evolve(WELL, lag_seconds=0.2), RULES, 10.0)
    assert gate.judge(WELL, RULES, 20.0)


def test_it_does_not_flicker_at_the_limit() -> None:
    """A load that trembles around the limit closes once."""
    gate = HealthGate()
    verdicts = [
        gate.judge(attrs.evolve(WELL, load=0.8 + (0.02 if n % 2 else -0.02)), RULES, n * 0.25)
        for n in range(400)
    ]
    assert verdicts == [True, *[False] * 399]


class PacedMeter(WorkMeter):
    """Workers on whom each open call costs the same."""

    def __init__(self, open_calls: Callable[[], int]) -> None:
        super().__init__(2)
        self.cost = 0.0
        self._open_calls = open_calls
        self._asked_at = trio.current_time()
        self._busy = 0.0

    def busy_seconds(self, now: float) -> float:
        self._busy += self.cost * self._open_calls() * (now - self._asked_at)
        self._asked_at = now
        return self._busy


@attrs.define
class Bench:
    """An admission whose signals are the test's."""

    admission: Admission
    meter: PacedMeter
    lag: LoopLag
    settings: CurrentSettings
    calls: int = 0
    loads: list[tuple[str, float]] = attrs.field(factory=list)

    async def run(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self.admission.watch()

    def arrive(self, callers: int) -> int:
        """Let callers arrive in one instant; return how many were let in."""
        before = self.calls
        for _ in range(callers):
            if not self.admission.is_refusing:
                self.admission.let_in()
                self.calls += 1
        return self.calls - before


def bench(**admission: Any) -> Bench:
    settings = CurrentSettings(Settings(admission=attrs.evolve(RULES, **admission)))
    meter, lag = PacedMeter(lambda: one.calls), LoopLag()
    one: Bench = Bench(
        Admission(
            settings,
            meters={RECOGNISER: meter},
            lag=lag,
            open_calls=lambda: one.calls,
            on_sample=lambda stage, load: one.loads.append((stage, load)),
        ),
        meter=meter,
        lag=lag,
        settings=settings,
    )
    return one


async def test_a_burst_ends_where_the_expected_load_does(autojump_clock: MockClock) -> None:
    """Twenty in one instant, of whom nothing shows yet: six fit two workers at a quarter each."""
    one = bench(expected_call_load=0.25)
    assert one.arrive(20) == 6


async def test_who_ended_without_showing_makes_room_at_once(autojump_clock: MockClock) -> None:
    """Callers who hang up in the same second don't count against the next, once refusing has lasted its time."""
    one = bench(expected_call_load=0.25)
    assert one.arrive(20) == 6
    one.calls = 1
    await one.run(2.5)
    assert one.arrive(20) in {5, 6}  # silence has made them a little cheaper meanwhile


async def test_calls_that_cost_less_than_expected_make_room_for_more(autojump_clock: MockClock) -> None:
    """Real calls take half of what was expected: after half a minute twice as many are served, and no more."""
    one = bench(expected_call_load=0.25)
    one.meter.cost = 0.12
    for _ in range(60):
        one.arrive(1)
        await one.run(1.0)
    assert 11 <= one.calls <= 13
    stage, load = one.loads[-1]
    assert stage == RECOGNISER
    assert load == pytest.approx(one.calls * 0.06, abs=0.05)


async def test_a_slow_queue_and_a_late_loop_refuse(autojump_clock: MockClock) -> None:
    """Before any load shows; and they let in again when they are well, for some time."""
    one = bench()
    one.calls = 1
    one.meter.attach(lambda: trio.current_time() - 1)
    assert one.admission.is_refusing
    one.meter.attach(lambda: None)
    await one.run(3)
    assert not one.admission.is_refusing
    for _ in range(20):
        one.lag.note(0.3)
    assert one.admission.is_refusing


async def test_an_empty_server_takes_a_call_whatever_the_signals_say(autojump_clock: MockClock) -> None:
    """There is nobody to be spoilt; the second is refused."""
    one = bench()
    for _ in range(20):
        one.lag.note(3.0)
    with capture_logs() as logs:
        assert one.arrive(5) == 1
        one.calls = 0
        assert one.arrive(1) == 1
    assert [(line["event"], line.get("signal")) for line in logs] == [
        ("admission_refusing", "lag"),
        ("admission_resumed", None),
    ]


async def test_it_can_be_switched_off_while_it_refuses(autojump_clock: MockClock) -> None:
    """The setting is live."""
    one = bench()
    assert one.arrive(20) < 20
    one.settings.replace(Settings(admission=attrs.evolve(RULES, enabled=False)))
    assert one.arrive(20) == 20


async def test_the_desk_tells_who_comes_to_a_loaded_server(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """503 `overloaded` with Retry-After, counted; and readiness says so too."""
    one = bench()
    one.calls = 1
    async with open_scripted_services() as services:
        desk = CallDesk(services=services, registry=CallRegistry(lambda: 10), admission=one.admission)
        caller = Caller(ANONYMOUS, "127.0.0.1")
        assert desk.admit(caller) is None
        assert readiness(desk).is_ready
        for _ in range(20):
            one.lag.note(3.0)
        refusal = desk.admit(caller)
        assert refusal is not None
        assert (refusal.error.status, refusal.error.code) == (503, "overloaded")
        assert dict(refusal.headers) == {b"retry-after": b"5"}
        assert services.metrics.calls_refused_total.labels("overloaded")._value.get() == 1
        state = readiness(desk)
        assert (state.is_ready, state.detail["overloaded"]) == (False, True)
        # Who was let in a moment ago and reads an offer meanwhile is not refused for load any more.
        assert desk.room_for(caller) is None
        assert json.dumps(state.detail)
