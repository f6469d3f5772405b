"""Traces of calls under virtual time: which spans there are, how long, below what; and what is ignored."""

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import attrs
import pytest
import structlog
import trio
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from trio.testing import MockClock

from voice_agent.core.commands import CallOptions, Start, Stop
from voice_agent.core.errors import RecognitionFailedError
from voice_agent.core.events import SessionClosed, SessionEvent, SessionReady
from voice_agent.core.frames import AudioFrame
from voice_agent.observability.tracing import MAX_HEADER_CHARS, Tracing, context_of
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.session.transcribing import MAX_UNTOLD
from voice_agent.speech.engine import Recognition, RecognitionRequest
from voice_agent.speech.scripted import ScriptedEngine
from voice_agent.transports.memory import open_memory_pair

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]
Spoken = Callable[..., list[AudioFrame]]

SECOND = 1_000_000_000
PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorder:
    """A tracer whose spans stay here."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider.get_tracer("test"))

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def below(self, parent: ReadableSpan) -> dict[str, ReadableSpan]:
        assert parent.context is not None
        return {
            span.name: span
            for span in self.spans
            if span.parent is not None and span.parent.span_id == parent.context.span_id
        }


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / SECOND


async def hold_call(services: Services, frames: list[AudioFrame]) -> list[SessionEvent]:
    """A caller over a transport who speaks in (virtual) real time."""
    transport, caller = open_memory_pair(max_frames=1000)
    events: list[SessionEvent] = []

    async def listen() -> None:
        async for event in caller.events():
            events.append(event)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)

        async def speak() -> None:
            await caller.send_command(Start(options=CallOptions(partials=False)))
            for frame in frames:
                await caller.send_audio(frame)
                await trio.sleep(frame.duration_seconds)
            await caller.send_command(Stop())

        nursery.start_soon(speak)
        async with open_session(services, transport, session_id="traced") as session:
            await session.heard_all.wait()
    return events


async def test_a_call_is_a_span_with_its_utterances_and_their_stages(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Each stage has the time that it took; the trace's id is told, recorded, and on each line of the log."""
    recorder = Recorder()
    began = time.time_ns()
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with open_scripted_services(
            engine=ScriptedEngine(["one", "two"], latency_seconds=0.2)
        ) as services:
            traced = attrs.evolve(services, tracing=recorder.tracing)
            events = await hold_call(traced, spoken(0.5, 1.0, 1.0, 1.0, 1.0))
    [call] = recorder.named("call")
    assert call.context is not None
    assert call.parent is None
    trace_id = trace.format_trace_id(call.context.trace_id)
    assert isinstance(events[0], SessionReady)
    assert isinstance(events[-1], SessionClosed)
    assert events[0].trace_id == events[-1].record.trace_id == trace_id
    assert {line["trace"] for line in lines} == {trace_id}
    assert seconds(call) == pytest.approx(4.5, abs=0.3)
    assert call.start_time is not None
    assert abs(call.start_time - began) < 60 * SECOND
    assert call.attributes is not None
    assert call.attributes["session.id"] == "traced"
    assert call.attributes["voice_agent.reason"] == "stopped"
    assert call.attributes["voice_agent.transcripts"] == 2
    assert call.kind is trace.SpanKind.SERVER

    first, second = recorder.named("utterance")
    assert [span.attributes["voice_agent.outcome"] for span in (first, second)] == ["final", "final"]
    assert {"utterance", "close"} == set(recorder.below(call))
    stages = recorder.below(first)
    assert list(stages) == ["listen", "queue", "recognise", "tell"]
    assert seconds(stages["recognise"]) == pytest.approx(0.2)
    assert seconds(stages["queue"]) == pytest.approx(0)
    assert seconds(stages["listen"]) == pytest.approx(1.0 + 0.32 + 0.256, abs=0.1)
    assert seconds(stages["tell"]) == pytest.approx(0, abs=0.01)
    assert first.end_time == stages["tell"].end_time
    assert first.start_time == stages["listen"].start_time
    assert len(recorder.spans) == 2 + 2 * 5
    latency = services.metrics.e2e_latency_seconds.collect()[0].samples
    assert any(sample.exemplar and sample.exemplar.labels == {"trace_id": trace_id} for sample in latency)


async def test_what_becomes_of_an_utterance_is_told(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A sound without words, a recognition that failed, and one that the end of the call cut off."""

    class Mixed(ScriptedEngine):
        async def recognise(self, request: RecognitionRequest) -> Recognition:
            if request.utterance_key[1] == 2:
                await trio.lowlevel.checkpoint()
                raise RecognitionFailedError("the speech model failed")
            if request.utterance_key[1] == 3:
                await trio.sleep(3600)
            return await super().recognise(request)

    recorder = Recorder()
    async with open_scripted_services(engine=Mixed([""])) as services:
        await hold_call(
            attrs.evolve(services, tracing=recorder.tracing), spoken(0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
        )
    utterances = recorder.named("utterance")
    assert [span.attributes["voice_agent.outcome"] for span in utterances] == [
        "no_words",
        "failed",
        "abandoned",
    ]
    assert [span.status.status_code.name for span in utterances] == ["UNSET", "ERROR", "UNSET"]
    assert [set(recorder.below(span)) for span in utterances] == [
        {"listen", "queue", "recognise"},
        set(),
        set(),
    ]


async def test_a_call_that_is_not_sampled_has_an_id_and_no_spans(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """The id still joins log lines; figures point to no trace that isn't there."""
    recorder = Recorder(ALWAYS_OFF)
    async with open_scripted_services() as services:
        events = await hold_call(attrs.evolve(services, tracing=recorder.tracing), spoken(0.5, 1.0, 1.0))
    assert recorder.spans == []
    assert isinstance(events[0], SessionReady)
    assert events[0].trace_id is not None
    assert len(events[0].trace_id) == 32
    latency = services.metrics.e2e_latency_seconds.collect()[0].samples
    assert not any(sample.exemplar for sample in latency)


async def test_without_tracing_there_is_no_id(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """Off means off: null in ready and record, and nothing in the log."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with open_scripted_services() as services:
            events = await hold_call(attrs.evolve(services, tracing=Tracing.off()), spoken(0.5, 1.0, 1.0))
    assert isinstance(events[0], SessionReady)
    assert isinstance(events[-1], SessionClosed)
    assert events[0].trace_id is events[-1].record.trace_id is None
    assert not any("trace" in line for line in lines)
    assert not Tracing.off().is_on


async def test_an_embedding_programs_current_span_is_the_parent(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A session without a transport belongs to the trace of the program around it; nothing has to be passed."""
    recorder = Recorder()
    async with open_scripted_services() as plain:
        services = attrs.evolve(plain, tracing=recorder.tracing)
        with recorder.tracing.tracer.start_as_current_span("program"):
            async with open_session(services) as session:
                for frame in spoken(0.5, 1.0, 1.0):
                    await session.send_audio(frame)
    [program] = recorder.named("program")
    assert set(recorder.below(program)) == {"call"}
    [utterance] = recorder.named("utterance")
    assert utterance.attributes["voice_agent.outcome"] == "final"


async def test_finals_that_nobody_reads_are_bounded(
    autojump_clock: MockClock, open_scripted_services: OpenServices, spoken: Spoken
) -> None:
    """A program that reads events late doesn't make the trace wait for it."""
    recorder = Recorder()
    engine = ScriptedEngine(lambda _request: "word")
    async with (
        open_scripted_services(engine=engine) as services,
        open_session(attrs.evolve(services, tracing=recorder.tracing)) as session,
    ):
        for _ in range(MAX_UNTOLD + 6):
            for frame in spoken(0.3, 0.6, 0.5):
                await session.send_audio(frame)
            await trio.sleep(2)
        assert 0 < len(recorder.named("utterance")) < 20
    assert len(recorder.named("utterance")) == MAX_UNTOLD + 6


def parent_of(*headers: tuple[bytes, bytes]) -> trace.SpanContext:
    return trace.get_current_span(context_of(list(headers))).get_span_context()


def test_a_parent_is_taken_from_its_header() -> None:
    """Version, trace, span and flag (W3C Trace Context, section 3.2); a later version's additions are no error."""
    for value in (PARENT, b"cc" + PARENT[2:] + b"-what-the-future-brings"):
        context = parent_of((b"host", b"x"), (b"traceparent", value), (b"tracestate", b"a=1,b=2"))
        assert trace.format_trace_id(context.trace_id) == "0af7651916cd43dd8448eb211c80319c"
        assert trace.format_span_id(context.span_id) == "b7ad6b7169203331"
        assert context.trace_flags.sampled
        assert context.is_remote
        assert dict(context.trace_state) == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"traceparent", b"")],
        [(b"traceparent", b"garbage")],
        [(b"traceparent", PARENT.upper())],
        [(b"traceparent", b"ff" + PARENT[2:])],
        [(b"traceparent", PARENT + b"-more")],
        [(b"traceparent", PARENT[:-3])],
        [(b"traceparent", b"00-" + b"0" * 32 + PARENT[35:])],
        [(b"traceparent", PARENT[:36] + b"0" * 16 + b"-01")],
        [(b"traceparent", PARENT), (b"traceparent", PARENT)],
        [(b"traceparent", b"cc" + PARENT[2:] + b"-" + b"x" * MAX_HEADER_CHARS)],
        [(b"traceparent", "00-\uff10af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".encode())],
        [(b"traceparent", b"\xff" * 55)],
        [(b"tracestate", b"a=1")],
    ],
)
def test_garbage_is_no_parent(headers: list[tuple[bytes, bytes]]) -> None:
    """What is malformed is ignored, as section 3.2.4 wants it; the call has a trace of its own."""
    assert not parent_of(*headers).is_valid


@pytest.mark.parametrize(
    "state", [b"\xff\x00", b"=,=,=", b"a" * 600, b",".join(b"k%d=v" % n for n in range(90))]
)
def test_a_bad_state_costs_the_state_and_not_the_parent(state: bytes) -> None:
    """Section 3.3: a state that can't be read is dropped; the parent holds."""
    context = parent_of((b"traceparent", PARENT), (b"tracestate", state))
    assert context.is_valid
    assert len(context.trace_state) <= 32


def test_who_sends_no_traces_does_not_load_the_sdk() -> None:
    """Off by default: neither the SDK nor protobuf nor requests is imported, and so no thread of theirs can run."""
    code = (
        "import sys, voice_agent.server.run, voice_agent.cli.main;"
        "print(sorted({'opentelemetry.sdk', 'google.protobuf', 'requests'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_context_is_left_as_it_was() -> None:
    """Reading a header changes nothing around it."""
    before: Any = otel_context.get_current()
    context_of([(b"traceparent", PARENT)])
    assert otel_context.get_current() == before
