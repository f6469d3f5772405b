"""OTLP: spans leave for a collector over HTTP, from a thread of the OpenTelemetry SDK; imported only where one is set.

A collector that is slow, dead or a black hole costs spans and nothing else: ending a span appends to a bounded queue,
what doesn't fit is counted and dropped, each request has a timeout, and the end of the process waits for the last
ones no longer than :data:`FLUSH_SECONDS`.

The SDK would take its settings from ``OTEL_*`` variables, and ``requests`` a proxy and credentials from the
environment and ``.netrc``. Here none of that counts: what is not in our settings can't change where spans go.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import requests
import trio
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

from voice_agent.core.units import SECONDS
from voice_agent.observability.metrics import Metrics
from voice_agent.observability.process import build
from voice_agent.observability.tracing import NAME, Tracing

MAX_WAITING_SPANS: Final = 4096
"""About a kilobyte each."""
MAX_BATCH: Final = 512
BATCH_SECONDS: Final = 1 * SECONDS
FLUSH_SECONDS: Final = 0.3 * SECONDS
"""A collector that is well takes some milliseconds."""
MAX_ATTRIBUTE_CHARS: Final = 256
MAX_ATTRIBUTES: Final = 32


class CountingExporter(SpanExporter):
    """Counts what became of spans; called by the SDK's thread."""

    def __init__(self, exporter: SpanExporter, metrics: Metrics) -> None:
        self._exporter = exporter
        self._metrics = metrics
        self.settled = 0
        """Spans that were exported or given up."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans; waits for the collector."""
        result = self._exporter.export(spans)
        self.settled += len(spans)
        outcome = "exported" if result is SpanExportResult.SUCCESS else "failed"
        self._metrics.spans_total.labels(outcome).inc(len(spans))
        return result

    def shutdown(self) -> None:
        """Give up what waits to be sent again."""
        self._exporter.shutdown()


class BoundedProcessor(SpanProcessor):
    """Lets so many spans wait; called by the Trio thread, which it never holds up."""

    def __init__(self, batches: SpanProcessor, exporter: CountingExporter, metrics: Metrics) -> None:
        self._batches = batches
        self._exporter = exporter
        self._metrics = metrics
        self._taken = 0

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span that has ended."""
        if self._taken - self._exporter.settled >= MAX_WAITING_SPANS:
            self._metrics.spans_total.labels("dropped").inc()
            return
        self._taken += 1
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what waits; blocks, for as long as the collector does."""
        self._batches.shutdown()


class SpanExport:
    """The SDK, set up and running; :meth:`aclose` ends it."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        endpoint: str,
        headers: Mapping[str, str],
        sample_ratio: float,
        timeout_seconds: float,
    ) -> None:
        by_ratio = TraceIdRatioBased(sample_ratio)
        session = requests.Session()
        session.trust_env = False
        with without_otel_variables():
            exporter = CountingExporter(
                OTLPSpanExporter(
                    endpoint=endpoint,
                    headers=dict(headers),
                    timeout=timeout_seconds,
                    compression=Compression.NoCompression,
                    session=session,
                ),
                metrics,
            )
            batches = BatchSpanProcessor(
                exporter,
                # One more than can wait, so that nothing is dropped uncounted.
                max_queue_size=MAX_WAITING_SPANS + 1,
                schedule_delay_millis=BATCH_SECONDS * 1000,
                max_export_batch_size=MAX_BATCH,
                export_timeout_millis=timeout_seconds * 1000,
            )
            self._provider = TracerProvider(
                # A caller who asks for a trace gets the chance that everybody has, and one who asks for none gets none.
                sampler=ParentBased(
                    by_ratio, remote_parent_sampled=by_ratio, remote_parent_not_sampled=ALWAYS_OFF
                ),
                resource=Resource(
                    {
                        "service.name": "voice-agent",
                        "service.version": build()["version"],
                        "process.pid": os.getpid(),
                        "telemetry.sdk.language": "python",
                        "telemetry.sdk.name": "opentelemetry",
                    }
                ),
                shutdown_on_exit=False,
                span_limits=SpanLimits(
                    max_attributes=MAX_ATTRIBUTES,
                    max_events=MAX_ATTRIBUTES,
                    max_links=MAX_ATTRIBUTES,
                    max_span_attributes=MAX_ATTRIBUTES,
                    max_event_attributes=MAX_ATTRIBUTES,
                    max_link_attributes=MAX_ATTRIBUTES,
                    max_attribute_length=MAX_ATTRIBUTE_CHARS,
                    max_span_attribute_length=MAX_ATTRIBUTE_CHARS,
                ),
            )
            self._provider.add_span_processor(BoundedProcessor(batches, exporter, metrics))
            self.tracing = Tracing(self._provider.get_tracer(NAME))

    async def aclose(self) -> None:
        """Send what waits, for a moment; what is not away by then is lost, and its thread ends with the process."""
        with trio.move_on_after(FLUSH_SECONDS, shield=True):
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)


@contextmanager
def without_otel_variables() -> Iterator[None]:
    """Hide the variables that the SDK would read while it is set up; nothing else runs meanwhile."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
