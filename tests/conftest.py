"""What several rooms' tests share: audio that a scripted model can hear, and services without models."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import numpy as np
import pytest
import structlog
import trio

from voice_agent.core.events import CloseRecord
from voice_agent.core.frames import AudioFrame
from voice_agent.observability.metrics import Metrics
from voice_agent.session.services import Services
from voice_agent.settings.schema import Settings
from voice_agent.speech.engine import Engine, VoiceActivity
from voice_agent.speech.scripted import ScriptedEngine, ScriptedVoiceActivity

pytest_plugins = ["hangs"]

RATE = 16_000


@attrs.define
class Closings:
    """The close records of calls that have ended."""

    records: list[CloseRecord] = attrs.field(factory=list)
    texts: list[list[str]] = attrs.field(factory=list)


OpenServices = Callable[..., AbstractAsyncContextManager[Services]]


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    """Logging is the process's: leave structlog, the root logger and the audit stream as they were."""
    config = structlog.get_config()
    root, audit = logging.getLogger(), logging.getLogger("voice_agent.audit")
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)
    for handler in audit.handlers[:]:
        audit.removeHandler(handler)
        handler.close()
    audit.propagate = True


@pytest.fixture
def closings() -> Closings:
    """Collects what ``on_close`` is given."""
    return Closings()


@pytest.fixture
def open_scripted_services(closings: Closings) -> OpenServices:
    """Open services that need no models and no threads, so that they run under virtual time."""

    @asynccontextmanager
    async def opened(
        engine: Engine | None = None,
        voice_activity: VoiceActivity | None = None,
        settings: Settings | None = None,
    ) -> AsyncIterator[Services]:
        async with trio.open_nursery() as supervisor:
            yield Services(
                settings=settings or Settings(),
                engine=engine or ScriptedEngine(["hello there", "how are you", "goodbye"]),
                voice_activity=voice_activity or ScriptedVoiceActivity(),
                metrics=Metrics(),
                supervisor=supervisor,
                on_close=lambda record, finals: (
                    closings.records.append(record),
                    closings.texts.append([f.text for f in finals]),
                )[0],
            )
            supervisor.cancel_scope.cancel()

    return opened


def noise(seconds: float, level: float = 0.2, rate: int = RATE) -> np.ndarray:
    """Loud noise: what the scripted voice activity takes for speech."""
    return (np.random.default_rng(1).uniform(-level, level, int(seconds * rate))).astype(np.float32)


def silence(seconds: float, rate: int = RATE) -> np.ndarray:
    """Nothing."""
    return np.zeros(int(seconds * rate), np.float32)


@pytest.fixture
def spoken() -> Callable[..., list[AudioFrame]]:
    """Make 20 ms frames of alternating speech and silence: ``spoken(0.5, 1.0, 0.6)`` is silent, speaks, is silent."""

    def make(*seconds: float, starts_silent: bool = True, rate: int = RATE) -> list[AudioFrame]:
        parts = [
            silence(s, rate) if (i % 2 == 0) == starts_silent else noise(s, rate=rate)
            for i, s in enumerate(seconds)
        ]
        whole = np.concatenate(parts)
        step = rate // 50
        return [AudioFrame(whole[i : i + step], rate, i) for i in range(0, len(whole), step)]

    return make
