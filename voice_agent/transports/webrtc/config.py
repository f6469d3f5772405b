"""PeerConfig: what a WebRTC call is allowed and how long its parts may take."""

from typing import Final

import attrs

from voice_agent.core.units import SECONDS

MAX_MESSAGE_BYTES: Final = 64 * 1024
"""What one data-channel message may hold; RFC 8831, section 6.6, names 16 KiB as what everybody can take."""


@attrs.frozen(kw_only=True)
class IceServer:
    """A STUN or TURN server that the operator chose; credentials are for TURN only."""

    urls: tuple[str, ...]
    username: str | None = None
    credential: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True)
class PeerConfig:
    """Limits and choices of one call.

    Without ``ice_servers`` no server is asked: the library's own default, a public one, is never used.
    ``allowed_networks`` (``"10.0.0.0/8"``) and ``allowed_interfaces`` (``"eth0"``) bound the local addresses that are
    bound and offered; where both are empty, all but loopback are. ``is_relay_only`` offers TURN candidates alone.
    """

    ice_servers: tuple[IceServer, ...] = ()
    allowed_networks: tuple[str, ...] = ()
    allowed_interfaces: tuple[str, ...] = ()
    is_relay_only: bool = False
    gather_timeout_seconds: float = 3 * SECONDS
    """How long the answer waits for STUN and TURN servers; one that doesn't answer holds up every call for so long."""
    setup_timeout_seconds: float = 15 * SECONDS
    """From the answer to connected ICE and DTLS."""
    media_timeout_seconds: float = 10 * SECONDS
    """How long nothing at all, not even an answer to our own probe, may come from a connected caller."""
    close_timeout_seconds: float = 5 * SECONDS
    max_candidates: int = 64
    max_message_bytes: int = MAX_MESSAGE_BYTES
    max_buffered_bytes: int = 1024 * 1024
    """Data-channel text that may wait for the network before senders are made to wait."""
    send_timeout_seconds: float = 10 * SECONDS
    """How long a full data channel may stay full before the caller counts as gone."""
    max_waiting_audio_ms: int = 2_000
    """Received audio that may wait for its reader; beyond it the oldest goes, counted."""
    max_waiting_messages: int = 256
    max_outbound_audio_ms: int = 30_000
    """Audio that may wait to be played; beyond it a sender waits."""
