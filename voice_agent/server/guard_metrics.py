"""What the connection guard sees, as metrics."""

from voice_agent.observability.metrics import Metrics
from voice_agent.server.guard_limits import GuardHooks, Intervention


class GuardMetrics(GuardHooks):
    """Counts connections and interventions in a server's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        for kind in ("connection_refused", *(kind.value for kind in Intervention)):
            metrics.guard_interventions_total.labels(kind)

    def connection_opened(self) -> None:
        """Count an open connection."""
        self._metrics.connections_open.inc()

    def connection_closed(self) -> None:
        """Count it out again."""
        self._metrics.connections_open.dec()

    def connection_refused(self) -> None:
        """Count a connection closed for want of room."""
        self._metrics.guard_interventions_total.labels("connection_refused").inc()

    def intervened(self, kind: Intervention) -> None:
        """Count an intervention by its kind."""
        self._metrics.guard_interventions_total.labels(kind.value).inc()
