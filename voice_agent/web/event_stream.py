"""EventStream: a session's events as server-sent events.

Source: the HTML Standard, section 9.2, "Server-sent events": ``id``, ``event`` and ``data`` lines, an empty line behind
each event, comments to keep the connection alive through proxies.
"""

import json
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Final, Self

import trio
from quart.wrappers.response import ResponseBody

from voice_agent.core.events import SessionEvent, Transcript
from voice_agent.core.units import SECONDS
from voice_agent.session.tap import Listener
from voice_agent.transports.wire import encode_event

EVENT_STREAM_TYPE: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 15 * SECONDS
"""What the HTML Standard, section 9.2.7, advises against proxies that drop what is silent."""

SERVER_SENT_EVENT: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One event of the stream, by its fields.",
    "properties": {
        "id": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
"""As the API is described: OpenAPI 3.1 has no word for a stream, so this is the schema of what it is made of."""

WORDS: Final = ("text", "stable", "words")
"""The members of a transcript that hold what was said."""

CUT_OFF: Final = "cut_off"
"""The type of the last event for who reads too slowly; it has no id, so that a reconnect goes on behind the last one."""


class EventStream(ResponseBody):
    """The body of one answer; listens from when it is entered to when it is left."""

    def __init__(self, listening: AbstractContextManager[Listener], *, with_words: bool) -> None:
        self._listening = listening
        self._with_words = with_words
        self._exits = ExitStack()
        self._listener: Listener | None = None
        self._has_begun = False
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._listener = self._exits.enter_context(self._listening)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._exits.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next event, or a comment when nothing has happened for a while."""
        if self._is_over or self._listener is None:
            raise StopAsyncIteration
        if not self._has_begun:
            # At once, so that who listens to a silent session knows that it is listening.
            self._has_begun = True
            await trio.lowlevel.checkpoint()
            return b": listening\n\n"
        try:
            with trio.move_on_after(HEARTBEAT_SECONDS):
                return encode_server_sent(await self._listener.receive(), with_words=self._with_words)
        except trio.EndOfChannel:
            self._is_over = True
            if self._listener.is_cut_off:
                return _told(CUT_OFF, {"type": CUT_OFF, "message": "Read faster; go on with Last-Event-ID."})
            raise StopAsyncIteration from None
        return b": still here\n\n"


def encode_server_sent(event: SessionEvent, *, with_words: bool) -> bytes:
    """Write one event; without words a transcript says when something was said, and not what."""
    text = encode_event(event)
    kind: str = (fields := json.loads(text))["type"]
    if isinstance(event, Transcript) and not with_words:
        return _told(kind, {name: value for name, value in fields.items() if name not in WORDS}, event.seq)
    # The JSON is compact: there is no line break in it that would begin another field.
    return f"id: {event.seq}\nevent: {kind}\ndata: {text}\n\n".encode()


def _told(kind: str, fields: dict[str, Any], seq: int | None = None) -> bytes:
    number = "" if seq is None else f"id: {seq}\n"
    return f"{number}event: {kind}\ndata: {json.dumps(fields, separators=(',', ':'))}\n\n".encode()
