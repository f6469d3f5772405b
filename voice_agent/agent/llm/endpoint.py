"""An OpenAI-compatible chat endpoint: one request, and its reply as it streams in.

A request has a deadline for its first word, for each further one, and for the whole; whoever leaves (because the caller speaks,
or is gone) closes the stream at once. What an endpoint sends is bounded in bytes.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final

import attrs
import httpx
import structlog
import trio

from voice_agent.agent.llm.chunks import ReplyReader, ToolCall, told_by
from voice_agent.core.errors import DependencyError, LanguageModelFailedError, LanguageModelRefusedError
from voice_agent.core.event_lines import EventDecoder
from voice_agent.core.units import KIB, MIB, MINUTES, MS

MAX_REPLY_BYTES: Final = 4 * MIB
"""Each token comes with some 300 bytes around it; this is room for ten thousand."""
MAX_CONNECTIONS: Final = 1000
"""As many turns at once; those beyond wait, within their time for the first word."""
KEPT_CONNECTIONS: Final = 64
KEPT_SECONDS: Final = 2 * MINUTES
"""A connection is kept longer than a caller thinks about an answer: a new one costs round trips before the first word."""
ENDING_SECONDS: Final = 200 * MS
"""Behind the last event the stream may take so long to end, for its connection to be used again."""
MAX_TOLD_BYTES: Final = 4 * KIB
"""Of an error's body, which goes into our log."""
MAX_RETRY_AFTER_SECONDS: Final = 10 * MINUTES
"""Who wants to be left alone for longer is as good as away."""

log: Final = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Patience:
    """How long a reply may take, in seconds."""

    first_seconds: float
    next_seconds: float
    whole_seconds: float


@attrs.frozen(kw_only=True)
class Reply:
    """A reply that came whole; its text has been given piece by piece."""

    finish_reason: str
    calls: tuple[ToolCall, ...]


class ChatEndpoint:
    """The endpoint, with the connections to it. ``key`` is asked for each request, because it may change."""

    def __init__(self, client: httpx.AsyncClient, key: Callable[[], str]) -> None:
        self._client = client
        self._key = key

    async def ask(self, request: Mapping[str, Any], patience: Patience, take: Callable[[str], None]) -> Reply:
        """Send a request and give each piece of text to ``take`` as it comes; return when the reply is whole.

        ``take`` doesn't await, so that a cancellation always meets the stream, which closes in order.

        Raises:
            LanguageModelFailedError: unreachable, busy, too slow, broken off, or no reply; asking again may help.
            LanguageModelRefusedError: the key, the model or the request is wrong; asking again won't help.
        """
        key = self._key().strip()
        headers = [(b"Authorization", f"Bearer {key}".encode())] if key else []
        reading = _Reading(patience, take)
        try:
            with reading.scope:
                async with self._client.stream(
                    "POST", "chat/completions", json={**request, "stream": True}, headers=headers
                ) as response:
                    if response.status_code != httpx.codes.OK:
                        raise await _refusal(response, key)
                    await reading.read(response)
        except httpx.LocalProtocolError:
            # What it says may hold the key.
            raise LanguageModelRefusedError(
                "the key of the model's endpoint holds what no header can hold"
            ) from None
        except httpx.HTTPError as error:
            if not reading.reply.is_whole:
                raise LanguageModelFailedError(
                    f"the model's endpoint failed: {type(error).__name__}: {error}"
                ) from error
        return reading.whole()


class _Reading:
    """One stream: its deadlines, its bound, and what has come."""

    def __init__(self, patience: Patience, take: Callable[[str], None]) -> None:
        self.reply = ReplyReader()
        self._patience = patience
        self._take = take
        self._events = EventDecoder()
        self._fault: DependencyError | None = None
        self._ends_at = trio.current_time() + patience.whole_seconds
        self.scope = trio.CancelScope(deadline=self._within(patience.first_seconds))

    async def read(self, response: httpx.Response) -> None:
        """Read to the end. Whatever is wrong cancels the scope, which unwinds the client's generators in order."""
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "text/event-stream":
            self._fault = LanguageModelFailedError(
                f"the model's endpoint sent {kind or 'something without a type'}, not a stream of events"
            )
            return
        total = 0
        # Raw, for we asked for it uncompressed: some bytes of gzip unpack to gigabytes.
        async for data in response.aiter_raw():
            total += len(data)
            try:
                self._feed(data, total)
            except DependencyError as error:
                self._fault = error
                self.scope.cancel()

    def _feed(self, data: bytes, total: int) -> None:
        if self._fault is not None or self.reply.is_done:
            return  # what comes until the scope's end is nobody's
        if total > MAX_REPLY_BYTES:
            raise LanguageModelFailedError(
                f"the model's endpoint sent more than {MAX_REPLY_BYTES} bytes for one reply"
            )
        for event in self._events.feed(data):
            if not self.reply.is_done and (text := self.reply.feed(event.data)):
                self._take(text)
        if self.reply.is_whole:
            self.scope.deadline = trio.current_time() + ENDING_SECONDS
        elif self.reply.has_begun:
            self.scope.deadline = self._within(self._patience.next_seconds)

    def _within(self, seconds: float) -> float:
        return min(trio.current_time() + seconds, self._ends_at)

    def whole(self) -> Reply:
        """Return what came, if it came whole.

        Raises:
            LanguageModelFailedError: it did not.
        """
        if self._fault is not None:
            raise LanguageModelFailedError(self._fault.message) from self._fault
        if not self.reply.is_whole:
            raise LanguageModelFailedError(
                self._too_slow()
                if self.scope.cancelled_caught
                else "the model's endpoint broke off in the middle of a reply"
            )
        if self.reply.finish_reason == "content_filter":
            raise LanguageModelFailedError("the model's endpoint held back its reply (content_filter)")
        return Reply(finish_reason=self.reply.finish_reason, calls=self.reply.calls())

    def _too_slow(self) -> str:
        if trio.current_time() >= self._ends_at:
            return "the turn's time for the language model is over"
        if self.reply.has_begun:
            return (
                f"the model's endpoint stalled for {self._patience.next_seconds:g} s in the middle of a reply"
            )
        return f"the model's endpoint sent no word within {self._patience.first_seconds:g} s"


_BUSY: Final = frozenset({408, 409, 425, 429})
"""Statuses of the class 4xx that another try may help against (RFC 9110, section 15.5; RFC 6585; RFC 8470)."""


async def _refusal(
    response: httpx.Response, key: str
) -> LanguageModelFailedError | LanguageModelRefusedError:
    body = bytearray()
    with trio.CancelScope() as reading:
        async for data in response.aiter_raw():
            body += data
            if len(body) >= MAX_TOLD_BYTES:
                reading.cancel()
    said = bytes(body[:MAX_TOLD_BYTES]).decode("utf-8", "replace")
    # Some endpoints repeat the key that they refuse.
    said = said.replace(key, "…") if key else said
    try:
        said = told_by(json.loads(said))
    except (ValueError, RecursionError):
        said = told_by(said)
    told = f"{response.status_code}: {said}"
    if response.status_code in _BUSY or response.is_server_error:
        return LanguageModelFailedError(
            f"the model's endpoint answered {told}", retry_after_seconds=_retry_after(response)
        )
    return LanguageModelRefusedError(
        f"the model's endpoint refused with {told}; look at chat.url, chat.model and the key"
    )


def _retry_after(response: httpx.Response) -> float:
    """Return what ``Retry-After`` says, in seconds; it is a number of them, or a date (RFC 9110, section 10.2.3)."""
    told = response.headers.get("retry-after", "").strip()
    try:
        if told.isascii() and told.isdigit():
            seconds = float(told[:9])
        else:
            now = parsedate_to_datetime(response.headers.get("date", ""))
            seconds = (parsedate_to_datetime(told) - now).total_seconds()
    except (TypeError, ValueError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


@asynccontextmanager
async def open_endpoint(
    url: str, key: Callable[[], str], transport: httpx.AsyncBaseTransport | None = None
) -> AsyncIterator[ChatEndpoint]:
    """Keep connections to the endpoint for as long as the block lasts; ``transport`` is for tests."""
    certificates = (
        # Reading the authorities' certificates takes tens of milliseconds.
        True if transport is not None else await trio.to_thread.run_sync(httpx.create_ssl_context)
    )
    async with httpx.AsyncClient(
        base_url=url.rstrip("/") + "/",
        headers={"Accept": "text/event-stream", "Accept-Encoding": "identity"},
        verify=certificates,
        transport=transport,
        # Each request has deadlines of its own, around all of it.
        timeout=None,  # noqa: S113
        limits=httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=KEPT_CONNECTIONS,
            keepalive_expiry=KEPT_SECONDS,
        ),
        follow_redirects=False,
        # A proxy of the environment may carry TLS; what is plain must not leave the machine.
        trust_env=url.startswith("https:"),
    ) as client:
        yield ChatEndpoint(client, key)
