"""NetworkMeter: one call's packet counts, added to the instruments while it lasts and once more at its end."""

from typing import Final, NoReturn

import trio

from voice_agent.core.network import MeasuresNetwork, NetworkStatistics
from voice_agent.core.units import SECONDS
from voice_agent.observability.metrics import Metrics

MEASURE_SECONDS: Final = 5 * SECONDS
"""A long call's losses are seen while it loses; round trip and jitter are sampled as often."""


class NetworkMeter:
    """Adds what has come since the last look; a look costs as much as reading a few counters."""

    def __init__(self, transport: MeasuresNetwork, metrics: Metrics) -> None:
        self._transport = transport
        self._metrics = metrics
        self._counted = NetworkStatistics()

    @property
    def statistics(self) -> NetworkStatistics:
        """The call's figures so far."""
        return self._transport.network

    async def watch(self) -> NoReturn:
        """Look again and again; runs inside the call."""
        while True:
            await trio.sleep(MEASURE_SECONDS)
            self.look()

    def look(self) -> None:
        """Add what is new."""
        now, before = self._transport.network, self._counted
        self._counted = now
        metrics = self._metrics
        for outcome, count in (
            ("received", now.packets_received - before.packets_received),
            ("lost", now.packets_lost - before.packets_lost),
            ("late", now.packets_late - before.packets_late),
        ):
            metrics.webrtc_packets_total.labels(outcome).inc(max(0, count))
        metrics.webrtc_concealed_seconds_total.inc(max(0, now.concealed_ms - before.concealed_ms) / 1000)
        if now.packets_received > before.packets_received:
            metrics.webrtc_jitter_seconds.observe(now.jitter_ms / 1000)
            metrics.webrtc_bytes_per_second.observe(now.bitrate / 8)
        if now.round_trip_ms is not None:
            metrics.webrtc_round_trip_seconds.observe(now.round_trip_ms / 1000)
