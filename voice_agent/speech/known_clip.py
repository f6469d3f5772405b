"""KnownClip: a second of speech whose words are known, to find out whether the models still hear."""

from typing import Final

import attrs
import numpy as np
import soundfile

from voice_agent.core.units import SECONDS
from voice_agent.settings.schema import Settings
from voice_agent.speech.engine import HEARING_RATE, MonoAudio
from voice_agent.speech.models import find_models

CLIP: Final = "beckett.wav"
"""Ships beside the models; 16 kHz, mono."""
CLIP_BEGIN_SECONDS: Final = 0.2 * SECONDS
CLIP_END_SECONDS: Final = 1.6 * SECONDS
CLIP_WORD: Final = "tried"
""""Ever tried.": heard with a confidence of 0.87, far from a toss-up."""


@attrs.frozen(eq=False)
class KnownClip:
    """16 kHz mono float32, and a word that is heard in it; silence has none."""

    samples: MonoAudio
    word: str = ""


def load_known_clip(settings: Settings) -> KnownClip:
    """Return the clip that ships beside the models in use, or a second of silence where there is none; reads files."""
    path = find_models(settings)[0].path.parent.parent / CLIP
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except (OSError, soundfile.LibsndfileError):
        samples, rate = np.zeros(0, np.float32), HEARING_RATE
    clip = samples[int(CLIP_BEGIN_SECONDS * HEARING_RATE) : int(CLIP_END_SECONDS * HEARING_RATE)]
    if rate != HEARING_RATE or samples.ndim != 1 or not len(clip):
        return KnownClip(np.zeros(HEARING_RATE, np.float32))
    return KnownClip(clip, CLIP_WORD)
