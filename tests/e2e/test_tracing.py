"""Traces of a real server, at a collector that decodes real OTLP; and at collectors that are no good."""

import json
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
import trio
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

sys.path.insert(0, str(Path(__file__).parent))
from collector import attributes, open_black_hole, open_collector

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 60
HoldCall = Callable[..., Awaitable[list[dict[str, Any]]]]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what happens in another process; the deadline only catches hangs."""
    with trio.fail_after(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110 (it happens in another process)
            await trio.sleep(0.05)


@pytest.fixture
def hold_call(connect: Any, assets: Path) -> HoldCall:
    """Hold one call with one recording: ``hold_call(server, traceparent)``; returns every message of the server."""

    async def hold(server: Any, traceparent: str | None = None) -> list[dict[str, Any]]:
        samples, _ = soundfile.read(assets / "beckett.wav", dtype="int16")
        headers = [] if traceparent is None else [(b"traceparent", traceparent.encode())]
        messages = []
        with trio.fail_after(PATIENCE_SECONDS):
            async with connect(server.url, headers) as connection:
                await connection.send_message(json.dumps({"type": "start"}))
                pcm = samples.tobytes()
                for begin in range(0, len(pcm), 6400):
                    await connection.send_message(pcm[begin : begin + 6400])
                await connection.send_message(json.dumps({"type": "stop"}))
                while not messages or messages[-1]["type"] != "closed":
                    messages.append(json.loads(await connection.get_message()))
        return messages

    return hold


def ids(span: Span) -> tuple[str, str, str]:
    return span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()


async def test_a_call_arrives_as_one_trace_below_its_callers_span(
    start_server: Any, hold_call: HoldCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trace of the handshake goes on to the collector, the caller, the log and the figures; variables count nothing."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-surprise=1")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "surprise")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with open_collector() as collector:
        server = start_server(
            tracing__endpoint=collector.endpoint, tracing__headers="x-key=s3cr3t, x-team=voice"
        )
        messages = await hold_call(server, TRACEPARENT)
        await until(lambda: bool(collector.named("call")))
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(
                f"{server.http}/v1/sessions", headers={"traceparent": TRACEPARENT}, timeout=PATIENCE_SECONDS
            )
            assert answer.status_code == 200
            await client.get(f"{server.http}/healthz", timeout=PATIENCE_SECONDS)
            figures = await client.get(
                f"{server.http}/metrics",
                headers={"accept": "application/openmetrics-text"},
                timeout=PATIENCE_SECONDS,
            )
        await until(lambda: bool(collector.named("GET /v1/sessions")))
        code = server.stop()
    assert code == 0, server.log()
    [call] = collector.named("call")
    assert ids(call)[0] == TRACE
    assert ids(call)[2] == PARENT
    assert messages[0]["trace"] == messages[-1]["trace"] == TRACE
    assert attributes(call)["session.id"] == messages[0]["session"]
    assert attributes(call)["voice_agent.reason"] == "stopped"
    assert call.kind == Span.SPAN_KIND_SERVER
    utterances = collector.named("utterance")
    finals = [message for message in messages if message["type"] == "final"]
    assert [attributes(span)["voice_agent.outcome"] for span in utterances] == ["final"] * len(finals)
    assert utterances
    for utterance in utterances:
        assert ids(utterance)[2] == ids(call)[1]
        stages = {span.name for span in collector.spans if ids(span)[2] == ids(utterance)[1]}
        assert stages == {"listen", "queue", "recognise", "tell"}
        assert call.start_time_unix_nano <= utterance.start_time_unix_nano
        assert utterance.start_time_unix_nano < utterance.end_time_unix_nano <= call.end_time_unix_nano
    [request] = collector.named("GET /v1/sessions")
    assert ids(request)[0] == TRACE
    assert ids(request)[2] == PARENT
    assert attributes(request)["http.response.status_code"] == 200
    assert {ids(span)[0] for span in collector.spans} == {TRACE}
    assert not any("health" in span.name for span in collector.spans)
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert {line["trace"] for line in lines if line.get("session") == messages[0]["session"]} == {TRACE}
    assert f'# {{trace_id="{TRACE}"}}' in figures.text
    check_what_was_sent(collector)
    assert "s3cr3t" not in server.log()


def check_what_was_sent(collector: Any) -> None:
    """To the address that was set, with the headers that were set, and with not a word of what was said."""
    assert collector.paths == {"/v1/traces"}
    assert {headers["x-key"] for headers in collector.headers} == {"s3cr3t"}
    assert {headers["x-team"] for headers in collector.headers} == {"voice"}
    assert not any("x-surprise" in headers for headers in collector.headers)
    names = {
        attribute.value.string_value
        for request in collector.requests
        for resource in request.resource_spans
        for attribute in resource.resource.attributes
        if attribute.key == "service.name"
    }
    assert names == {"voice-agent"}
    assert "fail better" not in str(collector.requests).lower()


async def test_what_ends_with_the_process_is_still_sent(start_server: Any, hold_call: HoldCall) -> None:
    """SIGTERM during a call: its spans are at the collector when the process has gone."""
    with open_collector() as collector:
        server = start_server(tracing__endpoint=collector.endpoint, server__grace_seconds=0)
        messages = await hold_call(server)
        assert server.stop() == 0, server.log()
        [call] = collector.named("call")
        assert ids(call)[0] == messages[0]["trace"]
        assert call.status.code != Status.STATUS_CODE_ERROR


async def test_a_webrtc_call_lies_below_the_request_that_signalled_it(
    start_server: Any, call: Any, assets: Path
) -> None:
    """The call's task begins in the request's context, and outlives the request."""
    with open_collector() as collector:
        server = start_server(tracing__endpoint=collector.endpoint)
        caller = call(server, assets / "beckett.wav")
        closed = await trio.to_thread.run_sync(caller.wait_for, "closed")
        await until(lambda: bool(collector.named("call")))
        assert server.stop() == 0, server.log()
    [span] = collector.named("call")
    [request] = collector.named("POST /v1/webrtc")
    assert ids(span)[2] == ids(request)[1]
    assert ids(span)[0] == closed["trace"]
    assert attributes(span)["voice_agent.wire"] == "webrtc"
    assert closed["session"] not in str(attributes(request))
    assert request.end_time_unix_nano < span.end_time_unix_nano


async def test_sampling_is_the_servers_decision(start_server: Any, hold_call: HoldCall) -> None:
    """With a share of 0 nothing is sent, though the caller's header asks for it; the id is told all the same."""
    with open_collector() as collector:
        server = start_server(tracing__endpoint=collector.endpoint, tracing__sample_ratio=0)
        messages = await hold_call(server, TRACEPARENT)
        assert messages[0]["trace"] == TRACE
        assert server.stop() == 0
        assert collector.spans == []


@pytest.mark.parametrize("kind", ["refuses", "black hole", "fails"])
async def test_a_collector_that_is_no_good_costs_spans_and_nothing_else(
    start_server: Any, hold_call: HoldCall, kind: str
) -> None:
    """Calls are heard as ever, the process ends in time, and what was lost is counted."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        if kind == "black hole":
            endpoint = stack.enter_context(open_black_hole()).endpoint
        elif kind == "fails":
            endpoint = stack.enter_context(open_collector(status=500)).endpoint
        else:
            with socket.create_server(("127.0.0.1", 0)) as nobody:
                endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1/traces"
        server = start_server(tracing__endpoint=endpoint, tracing__timeout_seconds=1, server__grace_seconds=0)
        for _ in range(2):
            messages = await hold_call(server)
            assert messages[-1]["reason"] == "stopped"
            assert any("fail better" in message.get("text", "").lower() for message in messages)
        failed = 0.0
        with trio.fail_after(PATIENCE_SECONDS):
            async with httpx.AsyncClient(trust_env=False) as client:
                while not failed:
                    text = (await client.get(f"{server.http}/metrics", timeout=PATIENCE_SECONDS)).text
                    failed = float(text.split('voice_agent_spans_total{outcome="failed"} ')[1].split()[0])
                    await trio.sleep(0.05)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_SECONDS) == 0, server.log()
        print(f"{kind}: exit after {time.monotonic() - began:.2f} s")
        assert "Traceback" not in server.log()
