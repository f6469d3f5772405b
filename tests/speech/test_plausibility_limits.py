"""Words or noise, at the exact limits of each rule."""

import pytest

from voice_agent.speech.engine import Recognition
from voice_agent.speech.plausibility import Evidence, is_plausible


def verdict(text: str, *, confidence: float = 0.9, seconds: float = 1.0, probability: float = 0.9) -> bool:
    return is_plausible(
        Recognition(text=text, confidence=confidence),
        Evidence(speech_seconds=seconds, mean_probability=probability),
        min_confidence=0.5,
    )


def test_the_least_confidence_is_enough() -> None:
    """A result at `recogniser.min_confidence` is told; only one below is noise."""
    assert verdict("yes", confidence=0.5)
    assert not verdict("yes", confidence=0.4999)


@pytest.mark.parametrize(("text", "words"), [("yes", 1), ("yes I do", 3), ("- yes ...", 1)])
def test_each_word_may_take_two_seconds(text: str, words: int) -> None:
    """The time is that of all words together; punctuation is no word."""
    assert verdict(text, seconds=2.0 * words)
    assert not verdict(text, seconds=2.0 * words + 0.01)


@pytest.mark.parametrize("text", ["You.", "Thank you", "bye!", "Thanks for watching!"])
def test_what_is_often_invented_needs_sure_speech(text: str) -> None:
    """At a mean probability of 0.7 it counts as said, below as noise; longer sentences with these words always do."""
    assert verdict(text, probability=0.7)
    assert not verdict(text, probability=0.699)
    assert verdict(f"{text} all", probability=0.3)
