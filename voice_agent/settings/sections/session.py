"""How long a call may last, and how much of it may wait."""

import attrs

from voice_agent.core.units import MINUTES, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class SessionSettings:
    """How long a call may last, and how much of it may wait."""

    idle_timeout_seconds: float = setting(
        60 * SECONDS,
        "A call without audio or messages ends then.",
        unit="seconds",
        minimum=0.1,
        maximum=86_400,
        live=True,
    )
    max_duration_seconds: float = setting(
        120 * MINUTES, "A call ends then in any case.", unit="seconds", minimum=0.1, maximum=86_400, live=True
    )
    max_waiting_audio_ms: int = setting(
        10_000,
        "Audio that may wait to be heard; beyond it the oldest is dropped and the caller told.",
        unit="milliseconds",
        minimum=100,
        maximum=600_000,
        live=True,
    )
    finish_timeout_seconds: float = setting(
        10 * SECONDS,
        "Recognising the last words at the end of a call may take so long.",
        unit="seconds",
        minimum=0.1,
        maximum=600,
        live=True,
    )
    close_timeout_seconds: float = setting(
        5 * SECONDS,
        "Telling the caller and closing may take so long.",
        unit="seconds",
        minimum=0.1,
        maximum=60,
        live=True,
    )
    slow_close_seconds: float = setting(
        1 * SECONDS,
        "A close that takes longer is logged, with what it waits for, and counted.",
        unit="seconds",
        minimum=0.05,
        maximum=600,
    )
    max_waiting_events: int = setting(
        1024, "Events that may wait for their reader.", unit="events", minimum=16, maximum=100_000, live=True
    )
    resume_window_seconds: float = setting(
        60 * SECONDS,
        "A session whose connection was lost can be resumed for so long, where sessions are kept; 0: never.",
        unit="seconds",
        minimum=0,
        maximum=86_400,
        live=True,
    )
