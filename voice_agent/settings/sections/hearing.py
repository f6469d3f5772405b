"""How audio becomes words: resampling, voice activity, recognition."""

from typing import Literal

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class AudioSettings:
    """How audio is prepared for the models."""

    resampler: Literal["soxr", "samplerate"] = setting(
        "samplerate", "Which library resamples; the decision record has the comparison.", live=True
    )
    resampler_quality: Literal["fast", "medium", "best"] = setting(
        "fast", "Filter length against CPU.", live=True
    )


@attrs.frozen(kw_only=True)
class VadSettings:
    """Voice activity, and where an utterance begins and ends."""

    model_path: str = setting("", "Silero ONNX file; empty takes the installed package's.")
    model_sha256: str = setting(
        "", "Expected checksum of `model_path`; empty accepts any when a path is set."
    )
    threshold: float = setting(
        0.5, "Speech begins at this probability.", minimum=0.05, maximum=0.95, live=True
    )
    release_threshold: float = setting(
        0.35, "Speech goes on above this probability.", minimum=0.01, maximum=0.95, live=True
    )
    min_speech_ms: int = setting(
        96, "Shorter sounds are no speech.", unit="milliseconds", minimum=32, maximum=2000, live=True
    )
    hangover_ms: int = setting(
        300, "Silence that ends an utterance.", unit="milliseconds", minimum=64, maximum=5000, live=True
    )
    pre_roll_ms: int = setting(
        256,
        "Audio kept from before speech was noticed.",
        unit="milliseconds",
        minimum=0,
        maximum=2000,
        live=True,
    )
    max_utterance_seconds: float = setting(
        14 * SECONDS,
        "A longer utterance is cut at a quiet point before this.",
        unit="seconds",
        minimum=2,
        maximum=30,
        live=True,
    )
    cut_search_seconds: float = setting(
        5 * SECONDS, "How far back a quiet point may be.", unit="seconds", minimum=0.5, maximum=15, live=True
    )


@attrs.frozen(kw_only=True)
class RecogniserSettings:
    """Speech to text."""

    model_dir: str = setting("", "Folder of the Moonshine files; empty takes the installed package's.")
    verify_checksums: bool = setting(True, "Compare the installed models with their known sha256 at start.")
    worker_threads: int = setting(
        2, "Recognitions at once, one thread each.", unit="threads", minimum=1, maximum=64
    )
    max_batch: int = setting(1, "Utterances recognised together.", unit="utterances", minimum=1, maximum=64)
    max_waiting: int = setting(
        256, "Recognitions that may wait.", unit="utterances", minimum=1, maximum=100_000
    )
    partials: bool = setting(True, "Whether callers get partials unless they decline.", live=True)
    partial_interval_ms: int = setting(
        400, "New speech between two partials.", unit="milliseconds", minimum=100, maximum=10_000, live=True
    )
    context_seconds: float = setting(
        8 * SECONDS,
        "Earlier speech that is heard again before a short utterance, to understand it better; 0 for none.",
        unit="seconds",
        minimum=0,
        maximum=15,
        live=True,
    )
    min_confidence: float = setting(
        0.35, "Results below this are noise, not words.", minimum=0.0, maximum=1.0, live=True
    )
