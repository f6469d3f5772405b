"""Every instrument, declared once; each is updated by the code that its help text speaks of."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SHORT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
_NETWORK_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.15, 0.3, 0.6, 1.2)
_CALL_BUCKETS = (1, 5, 15, 60, 180, 600, 1800, 3600, 7200)


class Metrics:
    """The instruments of one server, in a registry of its own, so that two servers in one process don't mix."""

    def __init__(self, *, with_process: bool = False) -> None:
        self.registry = CollectorRegistry()
        if with_process:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
            GCCollector(registry=self.registry)
        registry = self.registry
        self.calls_open = Gauge("voice_agent_calls_open", "Calls that are open now.", registry=registry)
        self.calls_total = Counter(
            "voice_agent_calls_total", "Calls that have ended, by reason.", ["reason"], registry=registry
        )
        self.calls_refused_total = Counter(
            "voice_agent_calls_refused_total",
            "Calls refused before they began, by cause.",
            ["cause"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "voice_agent_call_seconds", "How long calls lasted.", buckets=_CALL_BUCKETS, registry=registry
        )
        self.close_seconds = Histogram(
            "voice_agent_close_seconds",
            "From the decision to end a call to the end of its last task.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.close_overdue_total = Counter(
            "voice_agent_close_overdue_total",
            "Closes that outlasted their deadline, by the stage waited for.",
            ["stage"],
            registry=registry,
        )
        self.audio_seconds_total = Counter(
            "voice_agent_audio_seconds_total", "Callers' audio that was heard.", registry=registry
        )
        self.dropped_audio_seconds_total = Counter(
            "voice_agent_dropped_audio_seconds_total",
            "Callers' audio that was dropped because it came faster than it could be heard.",
            registry=registry,
        )
        self.transcripts_total = Counter(
            "voice_agent_transcripts_total",
            "Transcripts told: partial, final, or rejected as no words.",
            ["kind"],
            registry=registry,
        )
        self.final_latency_seconds = Histogram(
            "voice_agent_final_latency_seconds",
            "From the end of the caller's speech to the final transcript.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.recognition_queue_seconds = Histogram(
            "voice_agent_recognition_queue_seconds",
            "How long recognitions waited for a worker.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.recognition_seconds = Histogram(
            "voice_agent_recognition_seconds",
            "How long the speech model ran for one batch.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.recognition_batch_size = Histogram(
            "voice_agent_recognition_batch_size",
            "Utterances recognised together.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        self.webrtc_packets_total = Counter(
            "voice_agent_webrtc_packets_total",
            "Audio packets of WebRTC callers: received, lost on the way, or late and so of no use.",
            ["outcome"],
            registry=registry,
        )
        self.webrtc_concealed_seconds_total = Counter(
            "voice_agent_webrtc_concealed_seconds_total",
            "Audio that was made up in the place of lost packets.",
            registry=registry,
        )
        self.webrtc_jitter_seconds = Histogram(
            "voice_agent_webrtc_jitter_seconds",
            "Interarrival jitter (RFC 3550), looked at every few seconds of a call.",
            buckets=_NETWORK_BUCKETS,
            registry=registry,
        )
        self.webrtc_round_trip_seconds = Histogram(
            "voice_agent_webrtc_round_trip_seconds",
            "Round trip of the media path, looked at every few seconds of a call.",
            buckets=_NETWORK_BUCKETS,
            registry=registry,
        )
        self.webrtc_bits_per_second = Histogram(
            "voice_agent_webrtc_bits_per_second",
            "Received audio since the call's first packet, looked at every few seconds.",
            buckets=(8_000, 16_000, 24_000, 32_000, 48_000, 64_000, 96_000, 128_000, 256_000),
            registry=registry,
        )
        self.loop_lag_seconds = Histogram(
            "voice_agent_loop_lag_seconds",
            "How late the event loop woke a task that asked for a certain time.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.tasks = Gauge("voice_agent_tasks", "Trio tasks that are alive.", registry=registry)
        self.connections_open = Gauge(
            "voice_agent_connections_open", "TCP connections that are open now.", registry=registry
        )
        self.guard_interventions_total = Counter(
            "voice_agent_guard_interventions_total",
            "What the connection guard kept from the server, by kind.",
            ["kind"],
            registry=registry,
        )

    def render(self) -> bytes:
        """Return the text exposition format, version 0.0.4."""
        return generate_latest(self.registry)
