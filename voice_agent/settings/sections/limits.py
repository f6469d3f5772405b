"""How much one key, one address and one call may ask for."""

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class LimitsSettings:
    """How much one caller may ask for; a change takes effect at once, for running calls too."""

    requests_per_second_per_address: float = setting(
        20.0,
        "HTTP requests and handshakes of one address (of one /64 in IPv6); more get 429.",
        unit="requests",
        minimum=0.01,
        maximum=100_000,
        live=True,
    )
    requests_burst_per_address: int = setting(
        100, "So many may come at once.", unit="requests", minimum=1, maximum=1_000_000, live=True
    )
    requests_per_second_per_key: float = setting(
        50.0,
        "The same of one key, from wherever; a key's own quota goes before it.",
        unit="requests",
        minimum=0.01,
        maximum=100_000,
        live=True,
    )
    requests_burst_per_key: int = setting(
        200, "So many may come at once.", unit="requests", minimum=1, maximum=1_000_000, live=True
    )
    calls_per_minute_per_address: float = setting(
        60.0,
        "New calls of one address; more get 429.",
        unit="calls",
        minimum=0.01,
        maximum=100_000,
        live=True,
    )
    calls_burst_per_address: int = setting(
        20, "So many may begin at once.", unit="calls", minimum=1, maximum=100_000, live=True
    )
    calls_per_minute_per_key: float = setting(
        120.0,
        "New calls of one key; a key's own quota goes before it.",
        unit="calls",
        minimum=0.01,
        maximum=100_000,
        live=True,
    )
    calls_burst_per_key: int = setting(
        40, "So many may begin at once.", unit="calls", minimum=1, maximum=100_000, live=True
    )
    max_calls_per_key: int = setting(
        32,
        "Calls at once of one key, or of one address where nobody is asked for a key, so that none takes every place; "
        "a key's own quota goes before it.",
        unit="calls",
        minimum=1,
        maximum=100_000,
        live=True,
    )
    auth_failures_per_minute: float = setting(
        10.0,
        "Wrong credentials of one address; after more, even right ones have to wait.",
        unit="failures",
        minimum=0.01,
        maximum=100_000,
        live=True,
    )
    auth_failures_burst: int = setting(
        20, "So many may come at once.", unit="failures", minimum=1, maximum=100_000, live=True
    )
    uncounted_networks: str = setting(
        "127.0.0.0/8, ::1/128",
        "Networks whose addresses stand for everybody and are not counted, such as that of a proxy on this machine; "
        "keys are counted all the same.",
        live=True,
    )
    max_counted: int = setting(
        32_768,
        "Addresses and keys that can be told apart while they owe something; the rest share. 16 bytes each, five times.",
        unit="addresses",
        minimum=16,
        maximum=10_000_000,
    )
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
