"""Every setting: its default, its unit, its range and one line of why.

This is the single source. ``settings.toml`` is written from it and a test holds the two together; a setting that no
code reads fails a test too.
"""

from typing import Any, Literal

import attrs

from voice_agent.core.units import KIB, MIB, MINUTES, SECONDS


def setting(
    default: Any,
    why: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    secret: bool = False,
) -> Any:
    """Declare one setting; range and unit are checked and shown by the loader."""
    return attrs.field(
        default=default,
        repr=not secret,
        metadata={"why": why, "unit": unit, "minimum": minimum, "maximum": maximum, "secret": secret},
    )


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Where the server listens and what one connection may take."""

    host: str = setting("127.0.0.1", "Address to listen on; beyond loopback only with authentication.")
    port: int = setting(8080, "TCP port; 0 takes a free one and prints it.", minimum=0, maximum=65_535)
    max_calls: int = setting(
        64, "Calls at once; the next one gets 503.", unit="calls", minimum=1, maximum=10_000
    )
    max_connections: int = setting(
        512,
        "TCP connections at once; the next one is closed.",
        unit="connections",
        minimum=1,
        maximum=100_000,
    )
    grace_seconds: float = setting(
        30 * SECONDS, "How long calls may go on after SIGTERM.", unit="seconds", minimum=0, maximum=3600
    )
    header_timeout_seconds: float = setting(
        5 * SECONDS, "A request's headers must be complete by then.", unit="seconds", minimum=0.1, maximum=120
    )
    keep_alive_seconds: float = setting(
        30 * SECONDS, "An idle HTTP connection is closed then.", unit="seconds", minimum=0.1, maximum=600
    )
    send_timeout_seconds: float = setting(
        5 * SECONDS,
        "A client that does not read for so long is disconnected.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
    )


@attrs.frozen(kw_only=True)
class WebSocketSettings:
    """Limits of one WebSocket call."""

    max_binary_bytes: int = setting(
        256 * KIB, "Largest audio message.", unit="bytes", minimum=KIB, maximum=16 * MIB
    )
    max_text_bytes: int = setting(64 * KIB, "Largest text message.", unit="bytes", minimum=256, maximum=MIB)
    max_messages_per_second: int = setting(
        1000, "More than this, over a second, ends the call.", unit="messages", minimum=10, maximum=100_000
    )
    start_timeout_seconds: float = setting(
        10 * SECONDS, "`start` or audio must come by then.", unit="seconds", minimum=0.1, maximum=600
    )
    ping_interval_seconds: float = setting(
        20 * SECONDS, "How often the server pings.", unit="seconds", minimum=0.1, maximum=600
    )
    read_timeout_seconds: float = setting(
        60 * SECONDS,
        "A peer that sends nothing for so long, no pong either, is gone.",
        unit="seconds",
        minimum=0.2,
        maximum=3600,
    )


@attrs.frozen(kw_only=True)
class WebRtcSettings:
    """WebRTC calls: the servers that help them to connect, and their limits. Lists are separated by commas."""

    stun_servers: str = setting(
        "", "STUN servers, as `stun:stun.example.org:3478`; the server uses the first."
    )
    turn_servers: str = setting(
        "",
        "TURN servers, as `turn:turn.example.org:3478?transport=udp`; they need `turn_secret`. The server uses the "
        "first, callers are told all.",
    )
    turn_secret: str = setting(
        "",
        "What the TURN servers know as `static-auth-secret`; time-limited credentials are made from it.",
        secret=True,
        maximum=1024,
    )
    turn_credential_ttl_seconds: float = setting(
        24 * 60 * MINUTES, "How long TURN credentials hold.", unit="seconds", minimum=60, maximum=7 * 86_400
    )
    relay_only: bool = setting(False, "Offer TURN addresses alone; needs `turn_servers`.")
    allowed_networks: str = setting(
        "", "Local networks whose addresses may be offered, as `10.0.0.0/8`; empty for all but loopback."
    )
    allowed_interfaces: str = setting(
        "", "Network interfaces whose addresses may be offered, as `eth0`; empty for all but loopback."
    )
    setup_timeout_seconds: float = setting(
        15 * SECONDS, "ICE and DTLS must be done by then.", unit="seconds", minimum=0.1, maximum=120
    )
    media_timeout_seconds: float = setting(
        10 * SECONDS,
        "A connected caller from whom nothing comes for so long is gone.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
    )
    max_offer_bytes: int = setting(
        32 * KIB, "Largest offer; a larger one gets 413.", unit="bytes", minimum=4 * KIB, maximum=64 * KIB
    )
    max_candidates: int = setting(
        20, "ICE candidates of one caller; more get 422.", unit="candidates", minimum=1, maximum=1000
    )
    allow_loopback_candidates: bool = setting(
        False, "Talk to callers at loopback addresses; for tests on one machine."
    )


@attrs.frozen(kw_only=True)
class SessionSettings:
    """How long a call may last, and how much of it may wait."""

    idle_timeout_seconds: float = setting(
        60 * SECONDS,
        "A call without audio or messages ends then.",
        unit="seconds",
        minimum=0.1,
        maximum=86_400,
    )
    max_duration_seconds: float = setting(
        120 * MINUTES, "A call ends then in any case.", unit="seconds", minimum=0.1, maximum=86_400
    )
    max_waiting_audio_ms: int = setting(
        10_000,
        "Audio that may wait to be heard; beyond it the oldest is dropped and the caller told.",
        unit="milliseconds",
        minimum=100,
        maximum=600_000,
    )
    finish_timeout_seconds: float = setting(
        10 * SECONDS,
        "Recognising the last words at the end of a call may take so long.",
        unit="seconds",
        minimum=0.1,
        maximum=600,
    )
    close_timeout_seconds: float = setting(
        5 * SECONDS,
        "Telling the caller and closing may take so long.",
        unit="seconds",
        minimum=0.1,
        maximum=60,
    )
    max_waiting_events: int = setting(
        1024, "Events that may wait for their reader.", unit="events", minimum=16, maximum=100_000
    )


@attrs.frozen(kw_only=True)
class AudioSettings:
    """How audio is prepared for the models."""

    resampler: Literal["soxr", "samplerate"] = setting(
        "samplerate", "Which library resamples; the decision record has the comparison."
    )
    resampler_quality: Literal["fast", "medium", "best"] = setting("fast", "Filter length against CPU.")


@attrs.frozen(kw_only=True)
class VadSettings:
    """Voice activity, and where an utterance begins and ends."""

    model_path: str = setting("", "Silero ONNX file; empty takes the installed package's.")
    model_sha256: str = setting(
        "", "Expected checksum of `model_path`; empty accepts any when a path is set."
    )
    threshold: float = setting(0.5, "Speech begins at this probability.", minimum=0.05, maximum=0.95)
    release_threshold: float = setting(
        0.35, "Speech goes on above this probability.", minimum=0.01, maximum=0.95
    )
    min_speech_ms: int = setting(
        96, "Shorter sounds are no speech.", unit="milliseconds", minimum=32, maximum=2000
    )
    hangover_ms: int = setting(
        300, "Silence that ends an utterance.", unit="milliseconds", minimum=64, maximum=5000
    )
    pre_roll_ms: int = setting(
        256, "Audio kept from before speech was noticed.", unit="milliseconds", minimum=0, maximum=2000
    )
    max_utterance_seconds: float = setting(
        14 * SECONDS,
        "A longer utterance is cut at a quiet point before this.",
        unit="seconds",
        minimum=2,
        maximum=30,
    )
    cut_search_seconds: float = setting(
        5 * SECONDS, "How far back a quiet point may be.", unit="seconds", minimum=0.5, maximum=15
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
    partials: bool = setting(True, "Whether callers get partials unless they decline.")
    partial_interval_ms: int = setting(
        400, "New speech between two partials.", unit="milliseconds", minimum=100, maximum=10_000
    )
    context_seconds: float = setting(
        8 * SECONDS,
        "Earlier speech that is heard again before a short utterance, to understand it better; 0 for none.",
        unit="seconds",
        minimum=0,
        maximum=15,
    )
    min_confidence: float = setting(
        0.35, "Results below this are noise, not words.", minimum=0.0, maximum=1.0
    )


@attrs.frozen(kw_only=True)
class LoggingSettings:
    """What is logged and how."""

    level: Literal["debug", "info", "warning", "error"] = setting("info", "The least severe level written.")
    format: Literal["auto", "json", "console"] = setting("auto", "`auto`: console on a terminal, else JSON.")


@attrs.frozen(kw_only=True)
class Settings:
    """Everything an operator can choose."""

    server: ServerSettings = attrs.field(factory=ServerSettings)
    websocket: WebSocketSettings = attrs.field(factory=WebSocketSettings)
    webrtc: WebRtcSettings = attrs.field(factory=WebRtcSettings)
    session: SessionSettings = attrs.field(factory=SessionSettings)
    audio: AudioSettings = attrs.field(factory=AudioSettings)
    vad: VadSettings = attrs.field(factory=VadSettings)
    recogniser: RecogniserSettings = attrs.field(factory=RecogniserSettings)
    logging: LoggingSettings = attrs.field(factory=LoggingSettings)
