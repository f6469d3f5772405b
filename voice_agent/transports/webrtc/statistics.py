"""PeerStatistics: how a WebRTC call's network fares."""

from typing import Any

import attrs


@attrs.frozen(kw_only=True)
class PeerStatistics:
    """A snapshot; counts are since the call began.

    ``round_trip_ms`` is measured by our own STUN checks on the path that carries the media, ``jitter_ms`` as RFC 3550
    section 6.4.1 says, ``bitrate`` is the received Opus in bits per second since the first packet.
    """

    round_trip_ms: float | None = None
    jitter_ms: float = 0.0
    packets_received: int = 0
    packets_lost: int = 0
    packets_late: int = 0
    packets_duplicate: int = 0
    packets_malformed: int = 0
    stream_restarts: int = 0
    concealed_ms: int = 0
    silent_ms: int = 0
    dropped_ms: int = 0
    """Received audio that its reader left lying until it was dropped."""
    bitrate: int = 0
    packets_sent: int = 0
    messages_dropped: int = 0
    """Data-channel text that had no channel to go to, or that its reader left lying."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, rounded as a log wants them."""
        return {
            name: round(value, 1) if isinstance(value, float) else value
            for name, value in attrs.asdict(self).items()
        }
