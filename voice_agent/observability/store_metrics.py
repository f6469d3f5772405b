"""StoreMetrics: the instruments of where sessions are kept."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from voice_agent.core.errors import ResumeRefusedError
from voice_agent.core.transport import Wire

_COMMIT_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class StoreMetrics:
    """How the store fares, and what it takes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.state = Gauge(
            "voice_agent_store_state",
            "0 the store takes what is written; 1 it can't be reached, and writes wait; 2 no more can wait.",
            registry=registry,
        )
        self.sessions_resumed_total = Counter(
            "voice_agent_sessions_resumed_total",
            "Sessions that went on behind a lost connection, by the wire they went on over.",
            ["wire"],
            registry=registry,
        )
        self.resume_refusals_total = Counter(
            "voice_agent_resume_refusals_total",
            "Callers who wanted to go on with a session and could not, by code.",
            ["code"],
            registry=registry,
        )
        self.waiting_writes = Gauge(
            "voice_agent_store_waiting_writes", "Writes that the store has not taken yet.", registry=registry
        )
        self.commit_seconds = Histogram(
            "voice_agent_store_commit_seconds",
            "How long the store took for one commit.",
            buckets=_COMMIT_BUCKETS,
            registry=registry,
        )
        self.expired_total = Counter(
            "voice_agent_store_expired_total",
            "Sessions that retention deleted because their time was over, or ended because their server was lost.",
            ["what"],
            registry=registry,
        )
        for what in ("deleted", "ended"):
            self.expired_total.labels(what)
        self.commit_writes = Histogram(
            "voice_agent_store_commit_writes",
            "Writes that were committed together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        for wire in (Wire.WEBSOCKET, Wire.WEBRTC):
            self.sessions_resumed_total.labels(wire.value)
        for refusal in ResumeRefusedError.__subclasses__():
            self.resume_refusals_total.labels(refusal.code)
