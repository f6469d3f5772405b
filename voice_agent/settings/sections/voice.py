"""The agent's voice: which text-to-speech, and how it speaks."""

from typing import Literal

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class VoiceSettings:
    """Text-to-speech."""

    kind: Literal["none", "piper", "api"] = setting(
        "none",
        "`piper`: on this machine, with the extra `tts`; `api`: an OpenAI-compatible speech endpoint; `none`: text only.",
    )
    model_path: str = setting(
        "",
        "Piper voice file (`.onnx`, with its `.onnx.json` beside it); empty takes the installed package's.",
    )
    pace: float = setting(1.0, "How fast Piper speaks; 1 as the voice was recorded.", minimum=0.5, maximum=2)
    worker_threads: int = setting(
        1,
        "Threads that synthesise; each sentence takes one core for about a twentieth of its length.",
        unit="threads",
        minimum=1,
        maximum=64,
    )
    max_waiting: int = setting(
        64, "Sentences that may wait for a thread.", unit="sentences", minimum=1, maximum=10_000
    )
    cached_seconds: float = setting(
        120.0,
        "Sound of phrases that are kept, because they are said again and again; 4 bytes a sample.",
        unit="seconds",
        minimum=0,
        maximum=3600,
    )
    api_url: str = setting(
        "", "Base address of the speech endpoint, as `https://host/v1`; `/audio/speech` is added."
    )
    api_model: str = setting("", "The `model` that the endpoint is asked for.")
    api_voice: str = setting("", "The `voice` that the endpoint is asked for.")
    api_key: str = setting("", "Bearer token for the endpoint.", secret=True)
    api_sample_rate: int = setting(
        24_000, "Rate of the endpoint's `pcm`.", unit="Hz", minimum=8000, maximum=48_000
    )
    api_timeout_seconds: float = setting(
        5.0,
        "The endpoint's first sound, and each further piece, must come by then.",
        unit="seconds",
        minimum=0.1,
        maximum=60 * SECONDS,
    )
