"""ClusterMetrics: the instruments of a node among others."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BEAT_OUTCOMES: Final = ("heard", "failed")
PASSED_ON_OUTCOMES: Final = ("answered", "away", "silent", "no_secret")

_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ClusterMetrics:
    """Who else is there, and what is passed on to them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.nodes = Gauge(
            "voice_agent_cluster_nodes",
            "Nodes that keep their sessions in the same place and are not gone, this one among them.",
            registry=registry,
        )
        self.beats_total = Counter(
            "voice_agent_cluster_beats_total",
            "Beats of this node: heard by the directory, or failed.",
            ["outcome"],
            registry=registry,
        )
        self.passed_on_total = Counter(
            "voice_agent_cluster_passed_on_total",
            "Requests about what another node has: answered by it, or not because it is away, silent, or there is no "
            "secret.",
            ["outcome"],
            registry=registry,
        )
        self.passed_on_seconds = Histogram(
            "voice_agent_cluster_passed_on_seconds",
            "How long the other node took until its answer was whole, or until it was given up; streams apart.",
            buckets=_SECONDS_BUCKETS,
            registry=registry,
        )
        for counter, outcomes in (
            (self.beats_total, BEAT_OUTCOMES),
            (self.passed_on_total, PASSED_ON_OUTCOMES),
        ):
            for outcome in outcomes:
                counter.labels(outcome)
