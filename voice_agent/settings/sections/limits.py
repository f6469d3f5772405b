"""How much one key, one address and one call may ask for."""

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class LimitsSettings:
    """How much one caller may ask for; a change takes effect at once, for running calls too."""

    max_messages_per_second: int = setting(
        1000,
        "Messages of one call within a second, over either wire; more end the call.",
        unit="messages",
        minimum=10,
        maximum=100_000,
        live=True,
    )
    max_audio_rate: float = setting(
        2.0,
        "A caller may send audio so many times faster than it plays; more, beyond the burst, ends the call.",
        unit="times real time",
        minimum=1.1,
        maximum=1000,
        live=True,
    )
    audio_burst_seconds: float = setting(
        60 * SECONDS,
        "Audio that may come at once all the same, such as a minute's file, or what a connection held up that "
        "`websocket.read_timeout_seconds` lets live.",
        unit="seconds",
        minimum=1,
        maximum=86_400,
        live=True,
    )
    max_transcript_chars: int = setting(
        1_000_000,
        "Recognised and typed text of one call in all; a day of speech has so much.",
        unit="characters",
        minimum=1000,
        maximum=1_000_000_000,
        live=True,
    )
