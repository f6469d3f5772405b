"""NetworkStatistics: how the network of a call fares that is carried by packets, WebRTC for one."""

from typing import Any, Protocol, runtime_checkable

import attrs


@attrs.frozen(kw_only=True)
class NetworkStatistics:
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


@runtime_checkable
class MeasuresNetwork(Protocol):
    """A transport that loses packets, and counts them; one over TCP has nothing of that kind to tell."""

    @property
    def network(self) -> NetworkStatistics:
        """The figures so far; after the close the last ones."""
        ...
