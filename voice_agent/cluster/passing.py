"""Passing on: sends a request to another node and copies the answer back while it comes, in bounded time and size.

A node of the same machine is reached over its Unix socket, any other one at the address that it advertises.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, Final

import attrs
import httpx
import structlog
import trio

from voice_agent.cluster.beat import Beat
from voice_agent.cluster.names import are_of_one_machine
from voice_agent.core.request_errors import NodeAwayError, NodeSilentError, PassageRefusedError
from voice_agent.core.units import MIB, SECONDS

log = structlog.get_logger(__name__)

Headers = list[tuple[bytes, bytes]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]

CONNECT_SECONDS: Final = 2 * SECONDS
SILENCE_SECONDS: Final = 40 * SECONDS
"""A stream says something each 15 seconds; who is silent for twice that and more is gone."""
MAX_ANSWER_BYTES: Final = 1 * MIB
"""Of an answer that is no stream."""
MAX_CONNECTIONS: Final = 64
STREAM_TYPE: Final = "text/event-stream"
NOT_BELIEVED: Final = f'"code": "{PassageRefusedError.code}"'.encode()

HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""RFC 9110, section 7.6.1; with them goes what ``Connection`` names."""
OWN_TO_EACH_NODE: Final = frozenset({b"date", b"server", b"vary", b"strict-transport-security"})
"""Answer fields that the node which the client talks to adds by itself."""


@attrs.frozen(kw_only=True)
class Request:
    """What is passed on."""

    method: str
    target: bytes
    """Path and query, as they came."""
    headers: Headers = attrs.field(factory=list, repr=False)
    body: bytes = attrs.field(default=b"", repr=False)


def without_hop_by_hop(headers: Headers) -> Headers:
    """Return the fields that are meant for the far end."""
    named = {
        part.strip().lower()
        for name, value in headers
        if name.lower() == b"connection"
        for part in value.split(b",")
    }
    dropped = HOP_BY_HOP | named
    return [(name, value) for name, value in headers if name.lower() not in dropped]


class Couriers:
    """Connections to other nodes; use :func:`open_couriers` to get them."""

    def __init__(self, node: str, answer_seconds: float) -> None:
        self._node = node
        self._answer_seconds = answer_seconds
        self._clients: dict[str, httpx.AsyncClient] = {}

    async def pass_on(self, to: Beat, request: Request, receive: Receive, send: Send) -> int:
        """Pass a request on and its answer back; return the status that was answered.

        ``receive`` tells when the client is gone, for the body has been read. Ends as soon as the client is gone.

        Raises:
            NodeAwayError: the node can't be reached, or broke off; nothing has been sent to the client.
            NodeSilentError: it did not begin to answer in time; nothing has been sent to the client.
        """
        async with self._answer(to, request) as answer:
            if not answer.headers.get("content-type", "").startswith(STREAM_TYPE) or request.method == "HEAD":
                body = await self._read(answer)
                if answer.status_code == HTTPStatus.FORBIDDEN and NOT_BELIEVED in body:
                    raise NodeAwayError(
                        f"The node {to.node} has it, and does not believe this one: their cluster.secret or clocks differ."
                    )
                await send(_start(answer, len(body)))
                await send({"type": "http.response.body", "body": body})
            else:
                await send(_start(answer, None))
                await _copy_stream(answer, receive, send)
            return answer.status_code

    async def ask(self, to: Beat, request: Request) -> tuple[int, bytes]:
        """Send a request of this node's own; return status and body.

        Raises:
            NodeAwayError: the node can't be reached, or broke off.
            NodeSilentError: it did not answer in time.
        """
        async with self._answer(to, request) as answer:
            return answer.status_code, await self._read(answer)

    @asynccontextmanager
    async def _answer(self, to: Beat, request: Request) -> AsyncIterator[httpx.Response]:
        client = await self._client_for(to)
        built = client.build_request(
            request.method,
            client.base_url.copy_with(raw_path=request.target),
            headers=[*request.headers, (b"connection", b"keep-alive")],
            content=request.body or None,
        )
        with _translated(to):
            with trio.fail_after(self._answer_seconds):
                answer = await client.send(built, stream=True)
            try:
                yield answer
            finally:
                with trio.move_on_after(CONNECT_SECONDS, shield=True):
                    await answer.aclose()

    async def _read(self, answer: httpx.Response) -> bytes:
        """Return the body; read to its end or cancelled, never left in the middle, where httpx can't clean up."""
        pieces: list[bytes] = []
        size = 0
        with trio.fail_after(self._answer_seconds), trio.CancelScope() as reading:
            async for piece in answer.aiter_raw():
                size += len(piece)
                if size > MAX_ANSWER_BYTES:
                    reading.cancel()
                else:
                    pieces.append(piece)
        if reading.cancelled_caught:
            raise NodeAwayError("The node that has it answers with more than may be passed on.")
        return b"".join(pieces)

    async def _client_for(self, to: Beat) -> httpx.AsyncClient:
        if to.internal_address.startswith("unix:") and are_of_one_machine(self._node, to.node):
            address, uds = "http://node", to.internal_address.removeprefix("unix:")
        elif to.advertised_url:
            address, uds = to.advertised_url, None
        else:
            raise NodeAwayError(
                "The node that has it advertises no address; its operator sets cluster.advertised_url."
            )
        key = uds or address
        if key not in self._clients:
            # Reading the certificates that are trusted takes its time; who talks plainly needs none.
            is_encrypted = address.startswith("https:")
            verify = await trio.to_thread.run_sync(httpx.create_ssl_context) if is_encrypted else False
            self._clients[key] = httpx.AsyncClient(
                base_url=address,
                transport=httpx.AsyncHTTPTransport(
                    uds=uds, verify=verify, limits=httpx.Limits(max_connections=MAX_CONNECTIONS)
                ),
                timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
                follow_redirects=False,
                trust_env=False,
            )
        return self._clients[key]

    async def aclose(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


@asynccontextmanager
async def open_couriers(node: str, *, answer_seconds: float) -> AsyncIterator[Couriers]:
    """Hold connections to other nodes while the block lasts."""
    couriers = Couriers(node, answer_seconds)
    try:
        yield couriers
    finally:
        with trio.move_on_after(CONNECT_SECONDS, shield=True):
            await couriers.aclose()


@contextmanager
def _translated(to: Beat) -> Iterator[None]:
    """Turn what httpx raises into what is told."""
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise NodeAwayError(f"The node {to.node} has it, and can't be reached.") from error
    except (httpx.TimeoutException, trio.TooSlowError) as error:
        raise NodeSilentError(f"The node {to.node} has it, and does not answer.") from error
    except (httpx.HTTPError, OSError) as error:
        raise NodeAwayError(f"The node {to.node} has it, and can't be reached.") from error


def _start(answer: httpx.Response, length: int | None) -> dict[str, Any]:
    headers = [
        (name.lower(), value)
        for name, value in without_hop_by_hop(answer.headers.raw)
        if name.lower() not in OWN_TO_EACH_NODE | {b"content-length"}
        and not name.lower().startswith((b"access-control-", b"ratelimit"))
    ]
    if length is not None and answer.status_code != HTTPStatus.NO_CONTENT:
        headers.append((b"content-length", str(length).encode()))
    return {"type": "http.response.start", "status": answer.status_code, "headers": headers}


async def _copy_stream(answer: httpx.Response, receive: Receive, send: Send) -> None:
    """Copy until either side ends.

    A piece is sent under a shield, within the time that the server's own guard gives a send: raised inside of the
    loop, a cancellation would leave httpx's generators to the garbage collector, in the middle of their cleanup.
    """
    failure: Exception | None = None
    is_whole = False
    async with trio.open_nursery() as nursery:
        reading = trio.CancelScope()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            reading.cancel()

        nursery.start_soon(watch)
        with reading:
            try:
                async for piece in answer.aiter_raw():
                    if failure is not None:
                        continue
                    try:
                        with trio.CancelScope(shield=True):
                            await send({"type": "http.response.body", "body": piece, "more_body": True})
                    except Exception as error:  # noqa: BLE001 - raised below
                        failure = error
                        reading.cancel()
                is_whole = True
            except httpx.HTTPError as error:
                # Half an answer has been told: it stays without an end, so that nobody takes it for whole.
                log.info("passed_stream_broken", reason=str(error) or type(error).__name__)
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if is_whole:
        await send({"type": "http.response.body", "body": b""})
