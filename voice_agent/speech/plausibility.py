"""Whether a recognition is words at all: a speech model makes words of silence, noise and tones too."""

from typing import Final

import attrs

from voice_agent.speech.engine import Recognition

MAX_SECONDS_PER_WORD: Final = 2.0
"""Speech of one word is shorter than this; sounds that voice activity takes for speech are often longer."""

WEAK_PROBABILITY: Final = 0.7
"""Mean voice-activity probability below which a sound is doubtful; real speech is mostly above 0.9."""

OFTEN_INVENTED: Final = frozenset(
    {"you", "thank you", "thank you for watching", "thanks for watching", "bye"}
)
"""What the model writes for noise, breath and tones, with confidences of up to 0.9 (``scripts/probe_noise.py``)."""


@attrs.frozen(kw_only=True)
class Evidence:
    """What was heard: seconds of windows that held speech, and their mean speech probability."""

    speech_seconds: float
    mean_probability: float


def is_plausible(recognition: Recognition, evidence: Evidence, *, min_confidence: float) -> bool:
    """Tell words from noise that became words."""
    words = [word for word in recognition.text.split() if any(map(str.isalnum, word))]
    if not words or recognition.confidence < min_confidence:
        return False
    if evidence.speech_seconds > MAX_SECONDS_PER_WORD * len(words):
        return False
    bare = " ".join(word.strip(".,;:!?").lower() for word in words)
    return not (bare in OFTEN_INVENTED and evidence.mean_probability < WEAK_PROBABILITY)
