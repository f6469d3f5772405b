"""Admission: whether a new call would spoil the running ones, judged by the server's health.

Three signals, the earliest first: the share of the speech workers' time that would be taken with one call more; how long
finals wait for a worker; how late the event loop is. Each has a limit at which refusing begins and a lower one at which it
ends, and refusing lasts for a while at least. An empty server takes a call whatever the signals say: there is nobody
to be spoilt, and a noisy neighbour must not close it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

import attrs
import structlog
import trio

from voice_agent.core.units import MS, SECONDS
from voice_agent.observability.loop_lag import LoopLag
from voice_agent.observability.metrics import RECOGNISER, VOICE_ACTIVITY
from voice_agent.server.call_load import CallLoad
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import AdmissionSettings
from voice_agent.speech.work_meter import WorkMeter

SAMPLE_SECONDS: Final = 250 * MS
UNSEEN_SECONDS: Final = 5 * SECONDS
"""Until a call shows in the load: its caller says something, and the average has followed."""

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Health:
    """The signals, as a new call would find them."""

    load: float
    """The share of the busiest stage's time that would be taken."""
    queue_seconds: float
    lag_seconds: float


class HealthGate:
    """Open or closed, with hysteresis. Pure."""

    def __init__(self) -> None:
        self.closed_by = ""
        """Which signal keeps it closed: ``load``, ``queue`` or ``lag``; empty while it is open."""
        self._closed_at = 0.0

    def judge(self, health: Health, settings: AdmissionSettings, now: float) -> bool:
        """Take the signals; return whether a call may come in."""
        if not self.closed_by:
            self._close_if_over(health, settings, now)
        elif now - self._closed_at >= settings.min_refusing_seconds and _has_recovered(health, settings):
            self.closed_by = ""
        return not self.closed_by

    def open(self) -> None:
        """Open it, whatever the signals say."""
        self.closed_by = ""

    def _close_if_over(self, health: Health, settings: AdmissionSettings, now: float) -> None:
        for signal, value, limit in (
            ("load", health.load, settings.max_load),
            ("queue", health.queue_seconds, settings.max_queue_seconds),
            ("lag", health.lag_seconds, settings.max_lag_seconds),
        ):
            if value > limit:
                self.closed_by = signal
                self._closed_at = now
                return


def _has_recovered(health: Health, settings: AdmissionSettings) -> bool:
    return (
        health.load <= settings.resume_load
        and health.queue_seconds <= settings.resume_queue_seconds
        and health.lag_seconds <= settings.resume_lag_seconds
    )


EXPECTED_SHARES: Final[Mapping[str, float]] = {RECOGNISER: 1.0, VOICE_ACTIVITY: 0.05}
"""What a call costs at each stage, against what it is expected to cost at the recogniser."""


@attrs.define(eq=False)
class _Stage:
    name: str
    meter: WorkMeter
    load: CallLoad
    busy_seconds: float = 0.0


class Admission:
    """Measures the stages and says whether calls may come in; :meth:`watch` must run.

    ``meters`` are those of the stages in :data:`EXPECTED_SHARES`. ``on_sample`` is told each stage's load.
    """

    def __init__(
        self,
        settings: CurrentSettings,
        *,
        meters: Mapping[str, WorkMeter],
        lag: LoopLag,
        open_calls: Callable[[], int],
        on_sample: Callable[[str, float], None],
    ) -> None:
        self._settings = settings
        self._stages = [_Stage(name, meter, CallLoad(meter.workers)) for name, meter in meters.items()]
        self._lag = lag
        self._open_calls = open_calls
        self._on_sample = on_sample
        self._gate = HealthGate()
        self._let_in: deque[float] = deque()
        self._sampled_at = trio.current_time()

    @property
    def is_refusing(self) -> bool:
        """Whether a call that comes now is refused."""
        return not self._judge(trio.current_time())

    @property
    def load(self) -> float:
        """The share of the busiest stage's workers' time that is taken now."""
        return max((stage.load.load for stage in self._stages), default=0.0)

    def let_in(self) -> None:
        """Say that a call was admitted."""
        self._let_in.append(trio.current_time())

    async def watch(self) -> NoReturn:
        """Measure until cancelled."""
        while True:
            await trio.sleep(SAMPLE_SECONDS)
            self._sample(trio.current_time())

    def _sample(self, now: float) -> None:
        seconds = now - self._sampled_at
        self._sampled_at = now
        calls = self._open_calls()
        for stage in self._stages:
            busy_seconds = stage.meter.busy_seconds(now)
            stage.load.note(busy_seconds=busy_seconds - stage.busy_seconds, calls=calls, seconds=seconds)
            stage.busy_seconds = busy_seconds
            self._on_sample(stage.name, stage.load.load)
        self._judge(now)

    def _judge(self, now: float) -> bool:
        settings = self._settings.now.admission
        was_closed_by = self._gate.closed_by
        if not settings.enabled or not self._open_calls():
            self._gate.open()
        else:
            self._gate.judge(self._health(settings, now), settings, now)
        if self._gate.closed_by and not was_closed_by:
            log.warning("admission_refusing", signal=self._gate.closed_by, calls=self._open_calls())
        elif was_closed_by and not self._gate.closed_by:
            log.info("admission_resumed", calls=self._open_calls())
        return not self._gate.closed_by

    def _health(self, settings: AdmissionSettings, now: float) -> Health:
        while self._let_in and self._let_in[0] <= now - UNSEEN_SECONDS:
            self._let_in.popleft()
        # Of those that have ended since nothing will show.
        unseen = min(len(self._let_in), self._open_calls())
        return Health(
            load=max(
                (
                    stage.load.with_one_more(
                        unseen=unseen, expected=settings.expected_call_load * EXPECTED_SHARES[stage.name]
                    )
                    for stage in self._stages
                ),
                default=0.0,
            ),
            queue_seconds=max((stage.meter.wait_seconds(now) for stage in self._stages), default=0.0),
            lag_seconds=self._lag.typical_seconds,
        )
