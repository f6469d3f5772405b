"""Limits of a WebSocket call."""

import attrs

from voice_agent.core.units import KIB, MIB, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class WebSocketSettings:
    """Limits of one WebSocket call."""

    max_binary_bytes: int = setting(
        256 * KIB, "Largest audio message.", unit="bytes", minimum=KIB, maximum=16 * MIB, live=True
    )
    max_text_bytes: int = setting(
        64 * KIB, "Largest text message.", unit="bytes", minimum=256, maximum=MIB, live=True
    )
    start_timeout_seconds: float = setting(
        10 * SECONDS,
        "`start` or audio must come by then.",
        unit="seconds",
        minimum=0.1,
        maximum=600,
        live=True,
    )
    ping_interval_seconds: float = setting(
        20 * SECONDS, "How often the server pings.", unit="seconds", minimum=0.1, maximum=600, live=True
    )
    read_timeout_seconds: float = setting(
        60 * SECONDS,
        "A peer that sends nothing for so long, no pong either, is gone.",
        unit="seconds",
        minimum=0.2,
        maximum=3600,
        live=True,
    )
