"""TracedRequests: an ASGI application whose requests belong to the trace that their ``traceparent`` names.

A call's own span begins with its session, below what is current here: what the handshake said, or the span of the
request that signalled it. Requests for administration and signalling have a span each; health, metrics and the page
have none, for they are asked for all day.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
from opentelemetry import context as otel_context
from opentelemetry import trace

from voice_agent.observability.metrics import Metrics
from voice_agent.observability.tracing import Tracing, context_of
from voice_agent.server.door import Asgi
from voice_agent.settings.lists import header_fields
from voice_agent.settings.schema import TracingSettings
from voice_agent.transports.websocket.endpoint import Receive, Scope, Send

TRACED_PREFIX: Final = "/v1/"


@attrs.frozen
class TracedRequests:
    """Wraps an application; takes nothing away and adds nothing to what it answers."""

    _app: Asgi
    _tracing: Tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or connection."""
        token = otel_context.attach(context_of(scope["headers"]))
        try:
            if scope["type"] == "http" and scope["path"].startswith(TRACED_PREFIX):
                await self._serve_request(scope, receive, send)
            else:
                await self._app(scope, receive, send)
        finally:
            otel_context.detach(token)

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Only the first part of the path: the rest names sessions, and keys of WebRTC calls.
        route = "/".join(scope["path"].split("/")[:3])
        method = scope["method"]
        with self._tracing.tracer.start_as_current_span(
            f"{method} {route}",
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
            record_exception=False,
        ) as span:

            async def send_noting_status(message: dict[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, send_noting_status)


@asynccontextmanager
async def open_tracing(settings: TracingSettings, metrics: Metrics) -> AsyncIterator[Tracing]:
    """Send traces where the settings say while the block lasts; nowhere, and at no cost, where they don't."""
    if not settings.endpoint:
        yield Tracing.off()
        return
    # The SDK, protobuf and requests take memory that nobody needs who sends no traces.
    from voice_agent.observability.otlp import SpanExport  # noqa: PLC0415

    export = SpanExport(
        metrics,
        endpoint=settings.endpoint,
        headers=header_fields(settings.headers),
        sample_ratio=settings.sample_ratio,
        timeout_seconds=settings.timeout_seconds,
    )
    try:
        yield export.tracing
    finally:
        await export.aclose()
