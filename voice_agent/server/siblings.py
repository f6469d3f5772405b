"""The figures of all workers as one: whichever of them is asked, asks the others over their Unix sockets."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import attrs
import httpx
import structlog
import trio

from voice_agent.core.units import MIB, SECONDS
from voice_agent.core.worker import WorkerPlace
from voice_agent.observability.metrics import OPENMETRICS, Metrics
from voice_agent.observability.worker_metrics import (
    METRICS_FILE,
    OPENMETRICS_FILE,
    exposition_of_answers,
    merge_expositions,
)
from voice_agent.transports.websocket.endpoint import Receive, Scope, Send

INSIDE_METRICS_PATH: Final = "/inside/metrics"
ANSWER_SECONDS: Final = 2 * SECONDS
"""A scraper waits for 10 s by default; a sibling that is well answers in milliseconds."""
MAX_ANSWER_BYTES: Final = 8 * MIB

log = structlog.get_logger(__name__)


@attrs.frozen
class AllWorkers:
    """Renders the metrics of every worker, and what the supervisor knows."""

    place: WorkerPlace
    own: Metrics

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the exposition and its content type, as :meth:`Metrics.render` does."""
        body, content_type = self.own.render(accept)
        texts = {self.place.number: body.decode()}
        wanted = OPENMETRICS if OPENMETRICS in accept.lower() else "text/plain"

        async def ask(number: int, path: Path) -> None:
            answer = await _ask(path, wanted)
            if answer is not None:
                texts[number] = answer

        async with trio.open_nursery() as nursery:
            for number, path in self.place.siblings.items():
                nursery.start_soon(ask, number, path)
        others = [
            exposition_of_answers(self.place.count, answered=set(texts)),
            _read(self.place.folder / (OPENMETRICS_FILE if wanted == OPENMETRICS else METRICS_FILE)),
        ]
        # Some milliseconds of work: in a thread, or calls would wait for it.
        merged = await trio.to_thread.run_sync(merge_expositions, dict(sorted(texts.items())), others)
        return merged.encode(), content_type


@attrs.frozen
class Inside:
    """The ASGI application of a worker's Unix socket: its own figures, and else what everybody is served.

    Who can connect runs as the same user: the folder of the socket lets nobody else in.
    """

    everybody: Callable[[Scope, Receive, Send], Awaitable[None]]
    metrics: Metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] != "http" or scope["path"] != INSIDE_METRICS_PATH:
            await self.everybody(scope, receive, send)
            return
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        body, content_type = self.metrics.render(accept.decode("latin-1"))
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _ask(path: Path, accept: str) -> str | None:
    """Return what a sibling answers, or None when it does not in time."""
    with trio.move_on_after(ANSWER_SECONDS):
        try:
            async with httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(path)), timeout=ANSWER_SECONDS, trust_env=False
            ) as client:
                answer = await client.get(f"http://worker{INSIDE_METRICS_PATH}", headers={"accept": accept})
        except httpx.HTTPError as error:
            log.debug("worker_silent", socket=path.name, reason=type(error).__name__)
            return None
        return answer.text if answer.is_success and len(answer.content) <= MAX_ANSWER_BYTES else None
    return None


def _read(path: Path) -> str:
    """Return what the supervisor wrote last; nothing when it is gone."""
    try:
        return path.read_text()
    except OSError:
        return ""
