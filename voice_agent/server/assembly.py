"""Assembly: settings to wired objects; the only composition root."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import structlog
import trio

from voice_agent.core.events import CloseRecord
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.observability.metrics import RECOGNISER, VOICE_ACTIVITY, Metrics
from voice_agent.observability.tracing import Tracing
from voice_agent.server.speech_metrics import SpeechMetrics
from voice_agent.session.body_error import BodyError
from voice_agent.session.services import Services
from voice_agent.settings.schema import Settings
from voice_agent.speech.batching import open_batched_engine
from voice_agent.speech.models import SpeechModels, load_models
from voice_agent.speech.silero import WORKER_THREADS, open_silero
from voice_agent.speech.work_meter import WorkMeter

log = structlog.get_logger(__name__)


def _nowhere(record: CloseRecord, transcript: Sequence[TranscriptResult]) -> None:
    """Keep nothing of a call that has ended."""


async def _load(settings: Settings) -> SpeechModels:
    began_at = trio.current_time()
    log.info("models_loading")
    # Not abandoned when cancelled: onnxruntime aborts the process when that ends while a model is being loaded.
    models = await trio.to_thread.run_sync(load_models, settings)
    log.info("models_loaded", seconds=round(trio.current_time() - began_at, 3))
    return models


@asynccontextmanager
async def open_services(
    settings: Settings,
    *,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
    on_close: Callable[[CloseRecord, Sequence[TranscriptResult]], None] = _nowhere,
    models: SpeechModels | None = None,
) -> AsyncIterator[Services]:
    """Load the models and run their workers for as long as the block lasts; what the block raises comes out as it is.

    ``models`` are some that were loaded before.

    Raises:
        ModelFileError: a model file is missing or not what it should be; the message names the setting.
    """
    instruments = metrics or Metrics()
    if models is None:
        models = await _load(settings)

    measured = SpeechMetrics(instruments)
    recogniser = settings.recogniser
    meters = {RECOGNISER: WorkMeter(recogniser.worker_threads), VOICE_ACTIVITY: WorkMeter(WORKER_THREADS)}
    body = BodyError()
    with body.unwrapped():
        async with (
            open_silero(
                models.voice_activity, on_batch=measured.voice_activity_batch, meter=meters[VOICE_ACTIVITY]
            ) as voice_activity,
            open_batched_engine(
                models.recogniser,
                worker_threads=recogniser.worker_threads,
                max_batch=recogniser.max_batch,
                max_waiting=recogniser.max_waiting,
                on_batch=measured.recogniser_batch,
                meter=meters[RECOGNISER],
            ) as engine,
            trio.open_nursery() as supervisor,
        ):
            with body.noted():
                yield Services(
                    settings=settings,
                    engine=engine,
                    voice_activity=voice_activity,
                    metrics=instruments,
                    tracing=tracing or Tracing.of_program(),
                    supervisor=supervisor,
                    work_meters=meters,
                    on_close=on_close,
                )
            supervisor.cancel_scope.cancel()
