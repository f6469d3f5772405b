"""Whether a recognition is words at all."""

from voice_agent.speech.engine import Recognition
from voice_agent.speech.plausibility import Evidence, is_plausible


def test_noise_is_not_words() -> None:
    """Too unsure, no letters, or one word over seconds of sound: each alone is enough to reject."""
    evidence = Evidence(speech_seconds=1.0, mean_probability=0.9)
    sure = Recognition(text="yes", confidence=0.8)
    assert is_plausible(sure, evidence, min_confidence=0.4)
    assert not is_plausible(Recognition(text="yes", confidence=0.3), evidence, min_confidence=0.4)
    assert not is_plausible(Recognition(text="...", confidence=0.9), evidence, min_confidence=0.4)
    assert not is_plausible(Recognition(text="", confidence=0.9), evidence, min_confidence=0.4)
    doubtful = Evidence(speech_seconds=0.3, mean_probability=0.6)
    assert not is_plausible(Recognition(text="You.", confidence=0.9), doubtful, min_confidence=0.4)
    assert is_plausible(Recognition(text="You.", confidence=0.9), evidence, min_confidence=0.4)
    assert is_plausible(sure, doubtful, min_confidence=0.4)
    long = Evidence(speech_seconds=2.5, mean_probability=0.9)
    assert not is_plausible(sure, long, min_confidence=0.4)
