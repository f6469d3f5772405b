"""What is done to the caller's sound before it is heard."""

from typing import Literal

import attrs

from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class EarsSettings:
    """The WebRTC audio processing module, per call; docs/ears.md explains it and has the figures.

    `auto` asks the caller: `microphone` in `start` says whether it is `processed` already, as a browser's is, or `raw`.
    """

    echo_cancellation: Literal["auto", "on", "off"] = setting(
        "auto",
        "Takes our own voice out of what comes back. `auto`: for callers whose microphone is `raw`; `on`: for all; `off`: "
        "for none.",
        live=True,
    )
    noise_suppression: Literal["auto", "on", "off"] = setting(
        "auto", "Makes steady noise quieter. `auto`: for raw microphones.", live=True
    )
    noise_suppression_level: Literal["low", "moderate", "high", "highest"] = setting(
        "low",
        "By how much: 6, 12, 18 or 21 dB. What a suppressor leaves of quiet consonants is harder to understand.",
        live=True,
    )
    high_pass: Literal["auto", "on", "off"] = setting(
        "auto", "Takes away what lies below speech: hum, wind, steps. `auto`: for raw microphones.", live=True
    )
    gain_control: Literal["auto", "on", "off"] = setting(
        "auto", "Brings quiet and loud voices to one level. `auto`: for raw microphones.", live=True
    )
    max_gain_db: float = setting(
        12.0,
        "Gain control makes nothing louder than by this; so it does with what is left of an echo.",
        unit="dB",
        minimum=0,
        maximum=90,
        live=True,
    )
    echo_delay_ms: int = setting(
        0,
        "How much later than it was sent our voice comes back at the earliest, where that is known; half a second more "
        "is found by itself.",
        unit="milliseconds",
        minimum=0,
        maximum=2000,
        live=True,
    )
