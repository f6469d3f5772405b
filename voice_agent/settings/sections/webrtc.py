"""WebRTC: who helps callers to connect, and limits."""

import attrs

from voice_agent.core.units import KIB, MINUTES, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class WebRtcSettings:
    """WebRTC calls: the servers that help them to connect, and their limits. Lists are separated by commas."""

    stun_servers: str = setting(
        "", "STUN servers, as `stun:stun.example.org:3478`; the server uses the first.", live=True
    )
    turn_servers: str = setting(
        "",
        "TURN servers, as `turn:turn.example.org:3478?transport=udp`; they need `turn_secret`. The server uses the "
        "first, callers are told all.",
        live=True,
    )
    turn_secret: str = setting(
        "",
        "What the TURN servers know as `static-auth-secret`; time-limited credentials are made from it.",
        secret=True,
        maximum=1024,
        live=True,
    )
    turn_credential_ttl_seconds: float = setting(
        24 * 60 * MINUTES,
        "How long TURN credentials hold.",
        unit="seconds",
        minimum=60,
        maximum=7 * 86_400,
        live=True,
    )
    relay_only: bool = setting(False, "Offer TURN addresses alone; needs `turn_servers`.", live=True)
    allowed_networks: str = setting(
        "",
        "Local networks whose addresses may be offered, as `10.0.0.0/8`; empty for all but loopback.",
        live=True,
    )
    allowed_interfaces: str = setting(
        "",
        "Network interfaces whose addresses may be offered, as `eth0`; empty for all but loopback.",
        live=True,
    )
    setup_timeout_seconds: float = setting(
        15 * SECONDS,
        "ICE and DTLS must be done by then.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
        live=True,
    )
    media_timeout_seconds: float = setting(
        10 * SECONDS,
        "A connected caller from whom nothing comes for so long is gone.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
        live=True,
    )
    max_offer_bytes: int = setting(
        32 * KIB,
        "Largest offer; a larger one gets 413.",
        unit="bytes",
        minimum=4 * KIB,
        maximum=64 * KIB,
        live=True,
    )
    max_candidates: int = setting(
        20,
        "ICE candidates of one caller; more get 422.",
        unit="candidates",
        minimum=1,
        maximum=1000,
        live=True,
    )
    allow_loopback_candidates: bool = setting(
        False, "Talk to callers at loopback addresses; for tests on one machine.", live=True
    )
