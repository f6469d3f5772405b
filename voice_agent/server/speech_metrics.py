"""What the workers of the speech models report, as metrics."""

from voice_agent.observability.metrics import RECOGNISER, VOICE_ACTIVITY, Metrics
from voice_agent.speech.batching import BatchReport
from voice_agent.speech.engine import HEARING_RATE, Urgency


class SpeechMetrics:
    """Takes the reports of both queues; each batch is one call."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._voice_activity_delay = metrics.queue_seconds.labels(VOICE_ACTIVITY)
        self._recogniser_delay = metrics.queue_seconds.labels(RECOGNISER)

    def voice_activity_batch(self, report: BatchReport) -> None:
        """Count one batch of the voice-activity model."""
        for seconds in report.queue_seconds:
            self._voice_activity_delay.observe(seconds)

    def recogniser_batch(self, report: BatchReport) -> None:
        """Count one batch of the speech model; probes are nobody's speech, and wait behind everything by design."""
        metrics = self._metrics
        waits = [
            seconds
            for request, seconds in zip(report.jobs, report.queue_seconds, strict=True)
            if request.urgency is not Urgency.PROBE
        ]
        if not waits:
            return
        metrics.recognition_batch_size.observe(report.size)
        metrics.recognition_seconds.observe(report.run_seconds)
        audio_seconds = sum(len(request.samples) for request in report.jobs) / HEARING_RATE
        if audio_seconds:
            metrics.recognition_real_time_factor.observe(report.run_seconds / audio_seconds)
        if report.has_failed:
            metrics.recognition_failures_total.inc()
        for seconds in waits:
            self._recogniser_delay.observe(seconds)
