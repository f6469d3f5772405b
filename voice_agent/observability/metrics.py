"""Every instrument, declared once; each is updated by the code that its help text speaks of."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from voice_agent.core.events import CloseReason
from voice_agent.core.limits import Limit
from voice_agent.core.stages import STAGES
from voice_agent.observability.cluster_metrics import ClusterMetrics
from voice_agent.observability.process import build
from voice_agent.observability.store_metrics import StoreMetrics

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text"
OPENMETRICS_TYPE: Final = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"

NO_STAGE: Final = "none"
"""The close waited for nothing that can be named."""
VOICE_ACTIVITY: Final = "voice activity"
RECOGNISER: Final = "recogniser"
QUEUES: Final = ("inbox", VOICE_ACTIVITY, RECOGNISER, "outbox")
TRANSCRIPT_KINDS: Final = ("partial", "final", "rejected")
PACKET_OUTCOMES: Final = ("received", "lost", "late")
RELOAD_OUTCOMES: Final = ("applied", "unchanged", "refused")
FETCH_OUTCOMES: Final = ("ok", "failed")
SPAN_OUTCOMES: Final = ("exported", "failed", "dropped")
TLS_RELOAD_OUTCOMES: Final = ("done", "refused")

_SHORT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0)
_QUEUE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FACTOR_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0)
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
        self.build_info = Info("voice_agent_build", "What runs here.", registry=registry)
        self.build_info.info(build())
        self.active_sessions = Gauge(
            "voice_agent_active_sessions", "Calls that are open now.", registry=registry
        )
        self.calls_total = Counter(
            "voice_agent_calls_total", "Calls that have ended, by reason.", ["reason"], registry=registry
        )
        self.calls_refused_total = Counter(
            "voice_agent_calls_refused_total",
            "Calls refused before they began, by cause.",
            ["cause"],
            registry=registry,
        )
        self.limit_hits_total = Counter(
            "voice_agent_limit_hits_total",
            "Requests and calls that were refused or ended because a limit was reached, by limit.",
            ["limit"],
            registry=registry,
        )
        self.call_seconds = Histogram(
            "voice_agent_call_seconds", "How long calls lasted.", buckets=_CALL_BUCKETS, registry=registry
        )
        self.close_seconds = Histogram(
            "voice_agent_close_seconds",
            "From the decision to end a call to the end of its last task, by the stage that was waited for.",
            ["stage"],
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.slow_closes_total = Counter(
            "voice_agent_slow_closes_total",
            "Closes that took longer than session.slow_close_seconds, by the stage waited for then.",
            ["stage"],
            registry=registry,
        )
        self.close_overdue_total = Counter(
            "voice_agent_close_overdue_total",
            "Closes that outlasted their deadline and were forced, by the stage waited for.",
            ["stage"],
            registry=registry,
        )
        self.stuck_closes = Gauge(
            "voice_agent_stuck_closes",
            "Closes that go on now although they were forced.",
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
        self.stt_latency_seconds = Histogram(
            "voice_agent_stt_latency_seconds",
            "From the end of the caller's speech to the final transcript.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.e2e_latency_seconds = Histogram(
            "voice_agent_e2e_latency_seconds",
            "From the end of the caller's speech to the first answer that left for the caller: the final transcript.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "voice_agent_queue_seconds",
            "How long work waited for a stage: audio in the inbox, windows for voice activity, utterances for the "
            "recogniser, events in the outbox.",
            ["stage"],
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.frame_age_seconds = Histogram(
            "voice_agent_frame_age_seconds",
            "How old audio was when it had been heard: since it came, resampling and voice activity included.",
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.recognition_seconds = Histogram(
            "voice_agent_recognition_seconds",
            "How long the speech model ran for one batch.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.recognition_real_time_factor = Histogram(
            "voice_agent_recognition_real_time_factor",
            "The speech model's time for one batch, for each second of its audio; at 1 one worker just keeps up.",
            buckets=_FACTOR_BUCKETS,
            registry=registry,
        )
        self.recognition_failures_total = Counter(
            "voice_agent_recognition_failures_total",
            "Batches that the speech model failed on.",
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
        self.webrtc_bytes_per_second = Histogram(
            "voice_agent_webrtc_bytes_per_second",
            "Received audio since the call's first packet, looked at every few seconds.",
            buckets=(1_000, 2_000, 3_000, 4_000, 6_000, 8_000, 12_000, 16_000, 32_000),
            registry=registry,
        )
        self.loop_lag_seconds = Histogram(
            "voice_agent_loop_lag_seconds",
            "How late the event loop woke a task that asked for a certain time.",
            buckets=_SHORT_BUCKETS,
            registry=registry,
        )
        self.spans_total = Counter(
            "voice_agent_spans_total",
            "Spans of traces: exported, failed (the collector did not take them), or dropped (too many waited).",
            ["outcome"],
            registry=registry,
        )
        self.stage_load = Gauge(
            "voice_agent_stage_load",
            "The share of the time of a stage's workers that calls take, by stage; admission goes by it.",
            ["stage"],
            registry=registry,
        )
        self.ready = Gauge(
            "voice_agent_ready", "1 while a new call would be served, as /readyz says.", registry=registry
        )
        self.check_ok = Gauge(
            "voice_agent_check_ok",
            "Whether what the server needs works: 1 or 0, by check of /readyz.",
            ["check"],
            registry=registry,
        )
        self.store = StoreMetrics(registry)
        self.cluster = ClusterMetrics(registry)
        self.auth_failures_total = Counter(
            "voice_agent_auth_failures_total",
            "Requests whose credentials were refused, by what was wrong with them.",
            ["kind"],
            registry=registry,
        )
        self.key_set_fetches_total = Counter(
            "voice_agent_key_set_fetches_total",
            "Fetches of the key set that tokens are checked with, by outcome: ok or failed.",
            ["outcome"],
            registry=registry,
        )
        self.settings_version = Gauge(
            "voice_agent_settings_version",
            "The version of the settings in force; counts the changes since the start, from 1.",
            registry=registry,
        )
        self.settings_reloads_total = Counter(
            "voice_agent_settings_reloads_total",
            "Settings that were read again, by outcome: applied, unchanged or refused.",
            ["outcome"],
            registry=registry,
        )
        self.tls_reloads_total = Counter(
            "voice_agent_tls_reloads_total",
            "Changed certificate files that were taken (done) or not (refused).",
            ["outcome"],
            registry=registry,
        )
        self.tls_certificate_expiry_seconds = Gauge(
            "voice_agent_tls_certificate_expiry_seconds",
            "Unix time at which the certificate in use ends; 0 without TLS.",
            registry=registry,
        )
        self._watch_process(registry)
        self._begin_at_zero()

    def _watch_process(self, registry: CollectorRegistry) -> None:
        """What the process itself is made of."""
        self.tasks = Gauge("voice_agent_tasks", "Trio tasks that are alive.", registry=registry)
        self.media_tasks = Gauge(
            "voice_agent_media_tasks", "Asyncio tasks of the WebRTC media thread.", registry=registry
        )
        self.threads = Gauge(
            "voice_agent_threads", "Threads of the process, native ones too.", registry=registry
        )
        self.connections_open = Gauge(
            "voice_agent_connections_open", "TCP connections that are open now.", registry=registry
        )
        self.guard_interventions_total = Counter(
            "voice_agent_guard_interventions_total",
            "What the connection guard kept from the server, by kind.",
            ["kind"],
            registry=registry,
        )

    def _begin_at_zero(self) -> None:
        """Have every value of a closed set of labels from the start, so that a rate sees its first event too."""
        for reason in CloseReason:
            self.calls_total.labels(reason.value)
        for kind in TRANSCRIPT_KINDS:
            self.transcripts_total.labels(kind)
        for stage in QUEUES:
            self.queue_seconds.labels(stage)
        for stage in (VOICE_ACTIVITY, RECOGNISER):
            self.stage_load.labels(stage)
        for stage in (*STAGES, NO_STAGE):
            self.close_seconds.labels(stage)
            self.slow_closes_total.labels(stage)
            self.close_overdue_total.labels(stage)
        for limit in Limit:
            self.limit_hits_total.labels(limit.value)
        for counter, outcomes in (
            (self.webrtc_packets_total, PACKET_OUTCOMES),
            (self.settings_reloads_total, RELOAD_OUTCOMES),
            (self.key_set_fetches_total, FETCH_OUTCOMES),
            (self.spans_total, SPAN_OUTCOMES),
            (self.tls_reloads_total, TLS_RELOAD_OUTCOMES),
        ):
            for outcome in outcomes:
                counter.labels(outcome)

    def value(self, name: str, **labels: str) -> float:
        """Return the value of a sample; 0 for one that is not there."""
        return self.registry.get_sample_value(name, labels) or 0.0

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics 1.0 where ``accept`` (RFC 9110) names it.

        Else it is the text format 0.0.4, which everything reads.
        """
        if OPENMETRICS in accept.lower():
            body: bytes = generate_openmetrics(self.registry)  # type: ignore[no-untyped-call]  # it says bytes in words
            return body, OPENMETRICS_TYPE
        return generate_latest(self.registry), TEXT_TYPE
