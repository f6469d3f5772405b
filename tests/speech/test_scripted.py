"""The shipped fakes behave as the real models do towards a session, in virtual time."""

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.speech.engine import HEARING_RATE, RecognitionRequest, Urgency
from voice_agent.speech.scripted import ScriptedEngine, ScriptedVoiceActivity


def request(seconds: float, urgency: Urgency = Urgency.FINAL, utterance: int = 1) -> RecognitionRequest:
    """Ask for ``seconds`` of audio."""
    samples = np.zeros(round(seconds * HEARING_RATE), np.float32)
    return RecognitionRequest(samples=samples, urgency=urgency, utterance_key=("call", utterance))


async def test_each_utterance_has_its_text() -> None:
    """Utterances count from 1; beyond the script nothing is recognised."""
    engine = ScriptedEngine(["hello  there", "good bye"], confidence=0.8)
    first = await engine.recognise(request(1))
    assert (first.text, first.word_ends, first.confidence) == ("hello there", (1, 2), 0.8)
    assert first.token_probabilities == (0.8, 0.8)
    assert (await engine.recognise(request(1, utterance=2))).text == "good bye"
    beyond = await engine.recognise(request(1, utterance=3))
    assert (beyond.text, beyond.tokens, beyond.confidence) == ("", (), 0.0)
    assert len(engine.requests) == 3


async def test_partials_grow_with_the_audio() -> None:
    """Each partial is a prefix of the next, in words and in tokens, up to the whole text."""
    engine = ScriptedEngine(["a b a c"], seconds_per_word=0.5)
    texts = []
    tokens: tuple[int, ...] = ()
    for seconds in (0.4, 0.5, 1.2, 1.6, 9.0):
        found = await engine.recognise(request(seconds, Urgency.PARTIAL))
        assert found.tokens[: len(tokens)] == tokens
        tokens = found.tokens
        texts.append(found.text)
    assert texts == ["", "a", "a b", "a b a", "a b a c"]
    assert tokens[0] == tokens[2]


async def test_the_answer_takes_its_latency(autojump_clock: MockClock) -> None:
    """Latency passes in virtual time, for any number of requests at once."""
    engine = ScriptedEngine(["yes"], latency_seconds=0.25)
    started_at = autojump_clock.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(engine.recognise, request(1))
    assert autojump_clock.current_time() - started_at == pytest.approx(0.25)


async def test_a_cancelled_request_is_noted(autojump_clock: MockClock) -> None:
    """Cancelling ends the wait at once, and the test can see that it did."""
    engine = ScriptedEngine(["yes"], latency_seconds=60)
    with trio.move_on_after(1):
        await engine.recognise(request(1))
    assert engine.abandoned == engine.requests
    assert autojump_clock.current_time() == pytest.approx(1, abs=1e-6)


async def test_a_script_may_be_asked_and_may_fail() -> None:
    """A callable sees the request; what it raises comes out."""

    def script(asked: RecognitionRequest) -> str:
        if asked.utterance_key[1] == 2:
            raise RecognitionFailedError("as told")
        return f"{len(asked.samples)} samples"

    engine = ScriptedEngine(script)
    assert (await engine.recognise(request(1))).text == "16000 samples"
    with pytest.raises(RecognitionFailedError, match="as told"):
        await engine.recognise(request(1, utterance=2))


async def test_loud_windows_are_speech() -> None:
    """Root mean square over the threshold is speech, under it silence; one probability for each window."""
    windows = np.stack([np.full(512, 0.02), np.zeros(512), np.full(512, -0.3)]).astype(np.float32)
    stream = ScriptedVoiceActivity(threshold_rms=0.05).open_stream()
    found = await stream.probabilities(windows)
    stream.reset()
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([0.02, 0.02, 0.95])
    assert (await stream.probabilities(np.empty((0, 512), np.float32))).shape == (0,)
