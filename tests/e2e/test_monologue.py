"""A caller who never pauses: cut at quiet places before the maximum, and no word is lost or heard twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import trio

from voice_agent import AudioFrame, Settings, Transcript, open_services, open_session
from voice_agent.audio.files import read_audio
from voice_agent.settings.schema import RecogniserSettings, VadSettings

pytestmark = pytest.mark.e2e

REPEATS = 3


def without_pauses(frame: AudioFrame) -> AudioFrame:
    """Take out every stretch of quiet longer than 160 ms, so that speech never pauses."""
    samples = frame.to_mono_float32()
    piece = frame.sample_rate // 50
    whole = samples[: len(samples) // piece * piece].reshape(-1, piece)
    is_loud = np.sqrt((whole**2).mean(axis=1)) > 0.003
    near = np.convolve(is_loud, np.ones(9), mode="same") > 0
    return AudioFrame(np.tile(whole[near].ravel(), REPEATS), frame.sample_rate)


async def test_unbroken_speech_is_cut_without_losing_or_doubling_a_word(
    assets: Path, two_cities_words: str, words: Callable[[str], str]
) -> None:
    """Three times the same paragraph without a pause; only the maximum length ends an utterance."""
    speech = without_pauses(read_audio(assets / "two_cities.wav"))
    settings = Settings(vad=VadSettings(hangover_ms=5000), recogniser=RecogniserSettings(partials=False))
    results: list[Any] = []
    async with (
        open_services(settings) as services,
        open_session(services) as session,
        trio.open_nursery() as nursery,
    ):

        async def feed() -> None:
            await session.send_audio(speech)
            await session.finish()

        nursery.start_soon(feed)
        async for event in session.events():
            if isinstance(event, Transcript):
                results.append(event.result)
    assert session.record is not None
    assert session.record.dropped_audio_ms == 0
    assert len(results) >= speech.duration_seconds / settings.vad.max_utterance_seconds
    for result in results:
        assert result.end - result.start <= settings.vad.max_utterance_seconds
    measures = jiwer.process_words(
        " ".join([two_cities_words] * REPEATS), words(" ".join(r.text for r in results))
    )
    print(
        f"\n{speech.duration_seconds:.0f} s of unbroken speech, {len(results)} utterances: {measures.wer:.1%} wrong, "
        f"{measures.insertions} added, {measures.deletions} lost, {measures.substitutions} misheard"
    )
    assert measures.insertions + measures.deletions <= REPEATS
    assert measures.wer <= 0.06
