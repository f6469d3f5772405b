"""Silero voice activity: for each window of 32 ms, how likely it is that somebody speaks.

The model hears 64 samples of the past and 512 new ones, and carries a state from window to window (the wrapper of its
authors, ``utils_vad.py`` in snakers4/silero-vad). Past and state belong to one call; the model itself holds none, so
that windows of many calls can go through it together.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt

from voice_agent.speech.batching import BatchReport, WorkQueue, open_work_queue, report_to_nobody
from voice_agent.speech.engine import HEARING_RATE, VAD_WINDOW
from voice_agent.speech.onnx import Array, OnnxModel, Signature, TensorShape
from voice_agent.speech.work_meter import WorkMeter

CONTEXT_SAMPLES: Final = 64
STATE_SIZE: Final = 128
_STATE_PARTS: Final = 2
WORKER_THREADS: Final = 1
MAX_BATCH: Final = 32
"""Calls; a window costs 115 us alone, 58 us in a batch of 16, and no less in a larger one."""
MAX_WAITING: Final = 10_000
"""Each call has one request at a time, so this is the number of calls and never reached."""

SIGNATURE: Final = Signature(
    inputs={
        "input": TensorShape("float32", (None, None)),
        "state": TensorShape("float32", (_STATE_PARTS, None, STATE_SIZE)),
        "sr": TensorShape("int64", ()),
    },
    outputs={
        "output": TensorShape("float32", (None, 1)),
        "stateN": TensorShape("float32", (None, None, None)),
    },
)

Floats = npt.NDArray[np.float32]


@attrs.frozen(kw_only=True, eq=False)
class ListeningState:
    """What the model must know of a call's past: ``state`` float32 (2, 128), ``context`` float32 (64,)."""

    state: Floats = attrs.field(factory=lambda: np.zeros((_STATE_PARTS, STATE_SIZE), np.float32))
    context: Floats = attrs.field(factory=lambda: np.zeros(CONTEXT_SAMPLES, np.float32))


@attrs.frozen(eq=False)
class SileroJob:
    """Windows of one call, float32 (k, 512), k at least 1, and the state before them."""

    past: ListeningState
    windows: Floats


@attrs.frozen(eq=False)
class SileroResult:
    """A probability for each window, float32 (k,), and the state after them."""

    probabilities: Floats
    past: ListeningState


class SileroModel:
    """The model; synchronous, holds no state."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._rate = np.array(HEARING_RATE, np.int64)

    @classmethod
    def open(cls, path: Path, *, setting: str, remedy: str) -> "SileroModel":
        """Open the file; ``setting`` and ``remedy`` complete the error.

        Raises:
            ModelFileError: the file is damaged or another model.
        """
        return cls(OnnxModel.open(path, SIGNATURE, setting=setting, remedy=remedy))

    def warm_up(self) -> None:
        """Run once on a window of silence; blocks."""
        self.run_batch(
            [SileroJob(ListeningState(), np.zeros((1, VAD_WINDOW), np.float32))], lambda _place: False
        )

    def run_batch(
        self, jobs: Sequence[SileroJob], is_abandoned: Callable[[int], bool]
    ) -> list[SileroResult | None]:
        """Return the probabilities of each job's windows, or None for a job that was abandoned; blocks.

        Jobs go through side by side: all first windows together, then all second ones, and so on.
        """
        # The job with the most windows first, so that those that still have one are always a leading slice.
        places = sorted(range(len(jobs)), key=lambda place: -len(jobs[place].windows))
        lengths = [len(jobs[place].windows) for place in places]
        state = np.stack([jobs[place].past.state for place in places], axis=1)
        heard = np.empty((len(jobs), CONTEXT_SAMPLES + VAD_WINDOW), np.float32)
        for row, place in enumerate(places):
            heard[row, VAD_WINDOW:] = jobs[place].past.context
        probabilities = np.zeros((len(jobs), lengths[0]), np.float32)
        rows = len(jobs)
        for step in range(lengths[0]):
            while lengths[rows - 1] <= step:
                rows -= 1
            if all(is_abandoned(place) for place in places[:rows]):
                break
            # The end of the last window is the past of this one.
            heard[:rows, :CONTEXT_SAMPLES] = heard[:rows, VAD_WINDOW:]
            for row in range(rows):
                heard[row, CONTEXT_SAMPLES:] = jobs[places[row]].windows[step]
            output, state[:, :rows] = self._run(heard[:rows], state[:, :rows])
            probabilities[:rows, step] = output[:, 0]
        results: list[SileroResult | None] = [None] * len(jobs)
        for row, place in enumerate(places):
            if not is_abandoned(place):
                results[place] = SileroResult(
                    probabilities[row, : lengths[row]].copy(),
                    ListeningState(state=state[:, row].copy(), context=heard[row, VAD_WINDOW:].copy()),
                )
        return results

    def _run(self, heard: Array, state: Array) -> list[Array]:
        return self._model.run(
            ["output", "stateN"],
            {"input": heard, "state": np.ascontiguousarray(state), "sr": self._rate},
        )


class SileroStream:
    """Voice activity of one call; for use by one task."""

    def __init__(self, queue: WorkQueue[SileroJob, SileroResult]) -> None:
        self._queue = queue
        self._past = ListeningState()

    async def probabilities(self, windows: Floats) -> Floats:
        """Return the speech probability of each window: float32 (k, 512) gives float32 (k,).

        Raises:
            RecognitionFailedError: the model raised, or is closed.
        """
        if windows.ndim != 2 or windows.shape[1] != VAD_WINDOW:  # noqa: PLR2004 - rows and samples
            raise ValueError(f"windows have shape (k, {VAD_WINDOW}), not {windows.shape}")
        if not len(windows):
            return np.empty(0, np.float32)
        result = await self._queue.submit(SileroJob(self._past, windows))
        if result is None:
            raise AssertionError("only an abandoned job has no result, and nobody waits for that")
        self._past = result.past
        return result.probabilities

    def reset(self) -> None:
        """Forget what was heard: the audio is not continuous here."""
        self._past = ListeningState()


@attrs.frozen
class SileroVoiceActivity:
    """Voice activity of many calls, in one worker thread."""

    _queue: WorkQueue[SileroJob, SileroResult]

    def open_stream(self) -> SileroStream:
        """Return a new call's stream."""
        return SileroStream(self._queue)


@asynccontextmanager
async def open_silero(
    model: SileroModel,
    *,
    on_batch: Callable[[BatchReport], None] = report_to_nobody,
    meter: WorkMeter | None = None,
) -> AsyncIterator[SileroVoiceActivity]:
    """Open voice activity for many calls; :func:`~voice_agent.speech.batching.open_work_queue` says more."""
    async with open_work_queue(
        model.run_batch,
        worker_threads=WORKER_THREADS,
        max_batch=MAX_BATCH,
        max_waiting=MAX_WAITING,
        on_batch=on_batch,
        meter=meter,
    ) as queue:
        yield SileroVoiceActivity(queue)
