"""Whether a recognition is words at all: a speech model makes words of silence, noise and tones too."""

from typing import Final

import attrs

from voice_agent.speech.engine import Recognition

MAX_SECONDS_PER_WORD: Final = 2.0
"""Speech of one word is shorter than this; sounds that voice activity takes for speech are often longer."""


@attrs.frozen(kw_only=True)
class Evidence:
    """What was heard: seconds of windows that held speech, and their mean speech probability."""

    speech_seconds: float
    mean_probability: float


def is_plausible(recognition: Recognition, evidence: Evidence, *, min_confidence: float) -> bool:
    """Tell words from noise that became words."""
    words = recognition.text.split()
    if not any(character.isalnum() for character in recognition.text):
        return False
    if recognition.confidence < min_confidence:
        return False
    return evidence.speech_seconds <= MAX_SECONDS_PER_WORD * len(words)
