"""Where the server listens, and what one connection may take."""

import attrs

from voice_agent.core.units import SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class ServerSettings:
    """Where the server listens and what one connection may take."""

    host: str = setting(
        "127.0.0.1",
        "Address to listen on; beyond loopback only with keys or tokens, or where access.anonymous says so.",
    )
    port: int = setting(8080, "TCP port; 0 takes a free one and prints it.", minimum=0, maximum=65_535)
    workers: int = setting(
        1,
        "Processes that serve the port together, to use all cores; more than one need a store that they share.",
        unit="processes",
        minimum=1,
        maximum=256,
    )
    max_calls: int = setting(
        64,
        "Calls at once, in each worker; the next one gets 503.",
        unit="calls",
        minimum=1,
        maximum=10_000,
        live=True,
    )
    max_connections: int = setting(
        512,
        "TCP connections at once, in each worker; the next one is closed.",
        unit="connections",
        minimum=1,
        maximum=100_000,
        live=True,
    )
    grace_seconds: float = setting(
        30 * SECONDS,
        "How long calls may go on after SIGTERM.",
        unit="seconds",
        minimum=0,
        maximum=3600,
        live=True,
    )
    lame_duck_seconds: float = setting(
        5 * SECONDS,
        "How long the listener stays open after SIGTERM, answering 503, so that load balancers notice; at most "
        "`grace_seconds`.",
        unit="seconds",
        minimum=0,
        maximum=600,
        live=True,
    )
    tls_certificate_file: str = setting(
        "",
        "Certificate chain (PEM) to serve https and wss with; read again when it changes. Empty for plain HTTP.",
    )
    tls_key_file: str = setting(
        "", "Its private key (PEM, not encrypted); a file that every user can read is refused."
    )
    hsts_seconds: int = setting(
        30 * 86_400,
        "How long browsers that came by TLS must come back by TLS (Strict-Transport-Security); 0 tells them nothing.",
        unit="seconds",
        minimum=0,
        maximum=730 * 86_400,
        live=True,
    )
    header_timeout_seconds: float = setting(
        5 * SECONDS,
        "A request's headers must be complete by then.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
        live=True,
    )
    keep_alive_seconds: float = setting(
        30 * SECONDS,
        "An idle HTTP connection is closed then.",
        unit="seconds",
        minimum=0.1,
        maximum=600,
        live=True,
    )
    send_timeout_seconds: float = setting(
        5 * SECONDS,
        "A client that does not read for so long is disconnected.",
        unit="seconds",
        minimum=0.1,
        maximum=120,
        live=True,
    )
