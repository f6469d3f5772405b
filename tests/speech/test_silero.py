"""The real voice-activity model: per call, together with other calls, and behind its queue."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trio

from voice_agent.settings.schema import Settings
from voice_agent.speech.engine import VAD_WINDOW
from voice_agent.speech.models import load_models
from voice_agent.speech.silero import ListeningState, SileroJob, SileroModel, open_silero


@pytest.fixture(scope="module")
def model() -> SileroModel:
    """The installed model."""
    return load_models(Settings()).voice_activity


@pytest.fixture(scope="module")
def windows() -> np.ndarray:
    """Four seconds of speech with pauses, 16 kHz, as windows."""
    folder = Path(importlib.util.find_spec("moonshine_voice").submodule_search_locations[0]) / "assets"
    samples, rate = soundfile.read(folder / "beckett.wav", dtype="float32", frames=4 * 16_000)
    assert rate == 16_000
    return samples[: len(samples) // VAD_WINDOW * VAD_WINDOW].reshape(-1, VAD_WINDOW)


def wanted(_place: int) -> bool:
    """Everybody still waits."""
    return False


def run_alone(model: SileroModel, windows: np.ndarray) -> np.ndarray:
    """Return the probabilities of one call from its beginning."""
    [result] = model.run_batch([SileroJob(ListeningState(), windows)], wanted)
    return result.probabilities


def test_speech_is_told_from_silence(model: SileroModel, windows: np.ndarray) -> None:
    """Speech is near one, pauses and noise near zero."""
    probabilities = run_alone(model, windows)
    assert probabilities.shape == (len(windows),)
    assert probabilities.max() > 0.95
    assert probabilities.min() < 0.05
    noise = np.random.default_rng(5).normal(0, 0.05, (60, VAD_WINDOW)).astype(np.float32)
    assert run_alone(model, noise).max() < 0.3
    assert run_alone(model, np.zeros_like(noise)).max() < 0.05


def test_where_the_audio_is_cut_makes_no_difference(model: SileroModel, windows: np.ndarray) -> None:
    """State and context carry over: window by window gives what all at once gives."""
    past, one_by_one = ListeningState(), []
    for start in range(0, len(windows), 3):
        [result] = model.run_batch([SileroJob(past, windows[start : start + 3])], wanted)
        one_by_one.append(result.probabilities)
        past = result.past
    assert np.concatenate(one_by_one) == pytest.approx(run_alone(model, windows), abs=1e-5)


def test_calls_in_a_batch_do_not_hear_each_other(model: SileroModel, windows: np.ndarray) -> None:
    """Jobs of different lengths and pasts go together; probabilities and states are those of each alone."""
    parts = [windows[:2], windows[10:40], windows[5:6], windows[20:50]]
    [before] = model.run_batch([SileroJob(ListeningState(), windows[:20])], wanted)
    jobs = [
        SileroJob(before.past if place == 3 else ListeningState(), part) for place, part in enumerate(parts)
    ]
    together = model.run_batch(jobs, wanted)
    for job, found in zip(jobs, together, strict=True):
        [alone] = model.run_batch([job], wanted)
        assert found.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert found.past.state == pytest.approx(alone.past.state, abs=1e-4)
        assert (found.past.context == job.windows[-1][-64:]).all()


def test_what_nobody_waits_for_is_given_up(model: SileroModel, windows: np.ndarray) -> None:
    """An abandoned call has no result; when all are, the model stops."""
    jobs = [SileroJob(ListeningState(), windows[:4]), SileroJob(ListeningState(), windows[:8])]
    first, second = model.run_batch(jobs, lambda place: place == 1)
    assert first is not None
    assert second is None
    asked = []

    def after_two(place: int) -> bool:
        asked.append(place)
        return len(asked) > 2

    assert model.run_batch(jobs[1:], after_two) == [None]
    assert len(asked) == 4


async def test_each_stream_has_its_own_state(model: SileroModel, windows: np.ndarray) -> None:
    """Calls that interleave through the queue get what they get alone; batches form by themselves."""
    sizes: list[int] = []
    expected = run_alone(model, windows)
    heard: dict[int, list[np.ndarray]] = {}
    async with (
        open_silero(model, on_batch=lambda report: sizes.append(report.size)) as voice_activity,
        trio.open_nursery() as nursery,
    ):

        async def call(number: int) -> None:
            stream = voice_activity.open_stream()
            heard[number] = [
                await stream.probabilities(windows[start : start + number])
                for start in range(0, len(windows), number)
            ]

        for number in range(1, 6):
            nursery.start_soon(call, number)
    for parts in heard.values():
        assert np.concatenate(parts) == pytest.approx(expected, abs=1e-5)
    assert max(sizes) > 1


async def test_reset_forgets(model: SileroModel, windows: np.ndarray) -> None:
    """After a reset a stream hears as a new one."""
    async with open_silero(model) as voice_activity:
        stream = voice_activity.open_stream()
        first = await stream.probabilities(windows[10:20])
        assert not np.allclose(await stream.probabilities(windows[10:20]), first, atol=1e-4)
        stream.reset()
        assert await stream.probabilities(windows[10:20]) == pytest.approx(first, abs=1e-6)


async def test_nothing_to_hear_and_wrong_shapes(model: SileroModel) -> None:
    """No windows, no probabilities; anything but whole windows is a defect of the caller."""
    async with open_silero(model) as voice_activity:
        stream = voice_activity.open_stream()
        assert (await stream.probabilities(np.empty((0, VAD_WINDOW), np.float32))).shape == (0,)
        for shape in ((VAD_WINDOW,), (2, 511)):
            with pytest.raises(ValueError, match="windows have shape"):
                await stream.probabilities(np.zeros(shape, np.float32))
