"""Real speech through a real server process and a real client: what is understood, for every encoding and rate."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import pytest
import trio

from voice_agent.cli.call_client import CallResult, ClientOptions, call_server
from voice_agent.cli.call_files import FileSource
from voice_agent.core.formats import AudioFormat

pytestmark = pytest.mark.e2e

CLEAN_LIMIT = 0.06
TELEPHONE_LIMIT = 0.12


@pytest.fixture
def word_error_rate(two_cities_words: str, words: Callable[[str], str]) -> Callable[[CallResult], float]:
    """Return the share of wrong words in a call that read the first paragraph of A Tale of Two Cities."""
    return lambda result: float(jiwer.wer(two_cities_words, words(" ".join(f.text for f in result.finals))))


async def call(server: Any, path: Path, audio_format: AudioFormat, options: ClientOptions) -> CallResult:
    source = FileSource(path=path, audio_format=audio_format, chunk_ms=100)
    result = await call_server(server.url, source, options=options)
    assert result.failure_code is None, result.failure
    assert result.close_code == 1000
    assert result.closed is not None
    assert result.closed["dropped_audio_ms"] == 0
    return result


@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_f32le", "mulaw", "alaw", "opus"])
async def test_every_encoding_at_every_rate_is_understood(
    server: Any, assets: Path, encoding: str, word_error_rate: Callable[[CallResult], float]
) -> None:
    """At most 6 % of the words are wrong, 12 % over 8 kHz telephone codecs."""
    rates = (8_000, 16_000, 48_000)
    results: dict[int, CallResult] = {}
    options = ClientOptions(speed=0, partials=False)

    async def run(rate: int) -> None:
        audio_format = AudioFormat.parse(encoding, rate, 1)
        results[rate] = await call(server, assets / "two_cities.wav", audio_format, options)

    async with trio.open_nursery() as nursery:
        for rate in rates:
            nursery.start_soon(run, rate)
    for rate in rates:
        finals = results[rate].finals
        error_rate = word_error_rate(results[rate])
        print(f"{encoding} {rate} Hz: word error rate {error_rate:.1%}, {len(finals)} finals")
        is_telephone = rate == 8_000 and encoding in {"mulaw", "alaw"}
        assert error_rate <= (TELEPHONE_LIMIT if is_telephone else CLEAN_LIMIT), finals


async def test_stereo_is_understood(
    server: Any, assets: Path, word_error_rate: Callable[[CallResult], float]
) -> None:
    """Two channels are heard as their mean."""
    result = await call(
        server,
        assets / "two_cities.wav",
        AudioFormat.parse("pcm_s16le", 48_000, 2),
        ClientOptions(speed=0, partials=False),
    )
    assert word_error_rate(result) <= CLEAN_LIMIT


async def test_partials_come_live_and_their_stable_prefixes_hold(
    server: Any, assets: Path, word_error_rate: Callable[[CallResult], float]
) -> None:
    """At twice the speed of sound, with partials: as few errors, and no stable word is ever taken back."""
    messages: list[Any] = []
    result = await call_server(
        server.url,
        FileSource(path=assets / "two_cities.wav", audio_format=AudioFormat()),
        options=ClientOptions(speed=2),
        on_message=messages.append,
    )
    assert word_error_rate(result) <= CLEAN_LIMIT
    told = [m.transcript for m in messages if m.transcript is not None]
    partials = [t for t in told if not t.is_final]
    # A busy server leaves partials out, by design; a quiet one tells some forty.
    assert len(partials) > 10
    assert sum(bool(t.stable) for t in partials) > 3
    for utterance in {t.utterance for t in told}:
        results = [t for t in told if t.utterance == utterance]
        for earlier, later in itertools.pairwise(results):
            assert later.text.startswith(earlier.stable)


async def test_other_speech_is_understood(server: Any, assets: Path, words: Callable[[str], str]) -> None:
    """Another speaker, another recording."""
    result = await call(server, assets / "beckett.wav", AudioFormat(), ClientOptions(speed=0, partials=False))
    said = words(" ".join(f.text for f in result.finals))
    assert jiwer.wer("ever tried ever failed no matter try again fail again fail better", said) <= 0.1
