"""Tracing: where the time of a call went, as OpenTelemetry spans.

::

    call                      from the opening to the last task's end
     ├ utterance              from the first word to the moment the final left for the caller
     │  ├ listen              until the silence after the last word was long enough
     │  ├ queue               the recognition that became the final waits for a worker …
     │  ├ recognise           … and runs; it may begin before `listen` ends, for it is asked for at the first pause
     │  └ tell                the final waits for its turn to be sent
     └ close                  from the decision to end the call

While a call lasts, its code notes times and nothing else; spans are made of them when an utterance is over. So audio
passes no trace call, and a call that is not sampled costs a few assignments.

The parent of a call is whatever span is current where it is opened (OpenTelemetry's context): in our server what
``traceparent`` said, in an embedding program that program's own.
"""

import time
from enum import StrEnum
from typing import Final

import attrs
import trio
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from voice_agent.core.events import CloseReason, CloseRecord

NAME: Final = "voice_agent"
MAX_HEADER_CHARS: Final = 512
"""Of ``traceparent`` and ``tracestate`` (W3C Trace Context, section 3.3.1.5); longer ones are ignored."""
NANOSECONDS: Final = 1_000_000_000

Headers = list[tuple[bytes, bytes]]
"""As ASGI has them: names in lower case."""

_propagator: Final = TraceContextTextMapPropagator()


class UtteranceOutcome(StrEnum):
    """What became of an utterance."""

    FINAL = "final"
    NO_WORDS = "no_words"
    FAILED = "failed"
    ABANDONED = "abandoned"
    """The call ended first."""


@attrs.define(eq=False)
class UtteranceTimes:
    """What happened to an utterance when, on Trio's clock; None has not happened."""

    number: int
    began_at: float
    """The caller began to speak."""
    listened_at: float | None = None
    """It was known to be over."""
    asked_at: float | None = None
    """The recognition was asked for that became the final."""
    taken_at: float | None = None
    """A worker took it."""
    recognised_at: float | None = None
    told_at: float | None = None
    """The final left for the caller."""
    partials: int = 0
    outcome: UtteranceOutcome = UtteranceOutcome.ABANDONED

    def note_taken(self) -> None:
        """Note that a worker takes it now."""
        self.taken_at = trio.current_time()


class CallTrace:
    """One call's spans; :meth:`Tracing.begin_call` makes one."""

    def __init__(self, tracer: trace.Tracer, session_id: str) -> None:
        self._tracer = tracer
        self._session_id = session_id
        self._nanoseconds_ahead = time.time_ns() - round(trio.current_time() * NANOSECONDS)
        self._span = tracer.start_span(
            "call", kind=trace.SpanKind.SERVER, attributes={"session.id": session_id}
        )
        context = self._span.get_span_context()
        self._context = trace.set_span_in_context(self._span, otel_context.Context())
        self._open: dict[int, UtteranceTimes] = {}
        self._began_at = trio.current_time()
        self.is_sampled = self._span.is_recording()
        """Whether anybody will see the spans."""
        self.trace_id = trace.format_trace_id(context.trace_id) if context.is_valid else None
        """32 hexadecimal digits; None where no traces are made. A call that is not sampled has one too."""

    @property
    def exemplar(self) -> dict[str, str] | None:
        """What leads from a figure of a histogram to this call's trace, if there is one to see."""
        return {"trace_id": self.trace_id} if self.is_sampled and self.trace_id is not None else None

    def begin_utterance(self, number: int, began_at: float) -> UtteranceTimes:
        """Return what the times of an utterance are noted in."""
        times = self._open[number] = UtteranceTimes(number, max(began_at, self._began_at))
        return times

    def end_utterance(self, times: UtteranceTimes, outcome: UtteranceOutcome | None = None) -> None:
        """Make the spans of an utterance that is over; the first time counts."""
        if outcome is not None:
            times.outcome = outcome
        if self._open.pop(times.number, None) is None or not self.is_sampled:
            return
        now = trio.current_time()
        span = self._tracer.start_span(
            "utterance",
            context=self._context,
            start_time=self._unix_nanoseconds(times.began_at),
            attributes={
                "session.id": self._session_id,
                "voice_agent.utterance": times.number,
                "voice_agent.outcome": times.outcome,
                "voice_agent.partials": times.partials,
            },
        )
        context = trace.set_span_in_context(span, otel_context.Context())
        decided_at = _later(times.listened_at, times.recognised_at)
        for name, since, until in (
            ("listen", times.began_at, times.listened_at),
            ("queue", times.asked_at, times.taken_at),
            ("recognise", times.taken_at, times.recognised_at),
            ("tell", decided_at, times.told_at),
        ):
            if since is not None and until is not None:
                self._add(name, context, since, until)
        if times.outcome is UtteranceOutcome.FAILED:
            span.set_status(trace.StatusCode.ERROR)
        span.end(self._unix_nanoseconds(now if times.told_at is None else times.told_at))

    def end(self, record: CloseRecord, decided_at: float, *, key: str, wire: str) -> None:
        """Make the spans that are left, and the call's own; ``decided_at`` is when its end was decided."""
        for times in list(self._open.values()):
            self.end_utterance(times)
        if self.is_sampled:
            self._add("close", self._context, decided_at, trio.current_time())
            self._span.set_attributes(
                {
                    "voice_agent.key": key,
                    "voice_agent.wire": wire,
                    "voice_agent.reason": record.reason,
                    "voice_agent.audio_seconds": record.audio_seconds,
                    "voice_agent.dropped_audio_ms": record.dropped_audio_ms,
                    "voice_agent.transcripts": record.transcripts,
                    "voice_agent.stage_waited_for": record.stage_waited_for,
                    "voice_agent.tasks_left": record.tasks_left,
                }
            )
            if record.error_code is not None:
                self._span.set_attribute("error.type", record.error_code)
            if record.reason is CloseReason.INTERNAL_ERROR:
                self._span.set_status(trace.StatusCode.ERROR)
        self._span.end(self._unix_nanoseconds(trio.current_time()))

    def _add(self, name: str, context: otel_context.Context, since: float, until: float) -> None:
        span = self._tracer.start_span(name, context=context, start_time=self._unix_nanoseconds(since))
        span.end(self._unix_nanoseconds(max(since, until)))

    def _unix_nanoseconds(self, at: float) -> int:
        """One offset for the whole call, so that its spans keep their order when the wall clock is set."""
        return round(at * NANOSECONDS) + self._nanoseconds_ahead


@attrs.frozen
class Tracing:
    """Makes spans with a tracer; one that makes none costs next to nothing."""

    tracer: trace.Tracer

    @classmethod
    def of_program(cls) -> "Tracing":
        """Return what an embedding program has set up with OpenTelemetry for itself; nothing, if it hasn't."""
        return cls(trace.get_tracer(NAME))

    @classmethod
    def off(cls) -> "Tracing":
        """Return what makes no spans."""
        return cls(trace.NoOpTracer())

    @property
    def is_on(self) -> bool:
        """Whether spans are made."""
        return not isinstance(self.tracer, trace.NoOpTracer)

    def begin_call(self, session_id: str) -> CallTrace:
        """Begin the span of a call, below the span that is current here."""
        return CallTrace(self.tracer, session_id)


def context_of(headers: Headers) -> otel_context.Context:
    """Return the context that ``traceparent`` and ``tracestate`` speak of (W3C Trace Context); garbage is ignored."""
    carrier: dict[str, str] = {}
    for wanted in (b"traceparent", b"tracestate"):
        values = [value for name, value in headers if name == wanted]
        # Two parents are none (section 3.2.2.5 of the recommendation); of states only the whole list counts.
        if len(values) == 1 and len(values[0]) <= MAX_HEADER_CHARS:
            carrier[wanted.decode()] = values[0].decode("latin1")
    return _propagator.extract(carrier, otel_context.Context())


def _later(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)
