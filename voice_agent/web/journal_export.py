"""JournalExport: a kept session as lines of JSON (https://github.com/ndjson/ndjson-spec), read from the store while it is sent.

First a line ``{"record": …}``, then ``{"entry": …}`` for each entry in order, and last ``{"end": {"entries": n}}``. Who
doesn't find that last line has not got everything: the status was sent long before. Where the server knows why, the last
line is ``{"error": …}`` with the code.
"""

import json
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Final, Self

from quart.wrappers.response import ResponseBody

from voice_agent.core.errors import CallerError, VoiceAgentError
from voice_agent.core.journal import JournalEntry
from voice_agent.core.request_errors import UnavailableError
from voice_agent.core.units import KIB
from voice_agent.web.journal_views import KeptEntry, KeptSession
from voice_agent.web.json_answers import plain

EXPORT_TYPE: Final = "application/x-ndjson"
PIECE_BYTES: Final = 32 * KIB
"""What is sent in one go, but for a longer line; a slow reader takes that within the time that a send may take."""

EXPORT_LINE: Final[dict[str, Any]] = {
    "type": "object",
    "description": "One line of the export; it has one of these members.",
    "properties": {
        "record": {"type": "object"},
        "entry": {"type": "object"},
        "end": {"type": "object", "properties": {"entries": {"type": "integer"}}},
        "error": {"type": "object", "properties": {"code": {"type": "string"}}},
    },
}
"""As the API is described: OpenAPI 3.1 has no word for lines of JSON, so this is the schema of what they are made of."""


class JournalExport(ResponseBody):
    """The body of one answer. ``entries`` are read as they are sent; no more than a page of them is in memory."""

    def __init__(
        self, session: KeptSession, entries: AsyncIterator[JournalEntry], *, with_words: bool
    ) -> None:
        self._entries = entries
        self._with_words = with_words
        self._lines = deque([_line("record", plain(session))])
        self._count = 0
        self._is_over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Nothing is held open between two reads."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Return the next lines."""
        size = sum(map(len, self._lines))
        while not self._is_over and size < PIECE_BYTES:
            self._lines.append(await self._next_line())
            size += len(self._lines[-1])
        if not self._lines:
            raise StopAsyncIteration
        piece = b"".join(self._lines)
        self._lines.clear()
        return piece

    async def _next_line(self) -> bytes:
        try:
            entry = await anext(self._entries)
        except StopAsyncIteration:
            self._is_over = True
            return _line("end", {"entries": self._count})
        except (CallerError, UnavailableError) as error:
            self._is_over = True
            return _line("error", _told(error))
        self._count += 1
        return _line("entry", plain(KeptEntry.of(entry, with_words=self._with_words)))


def _told(error: VoiceAgentError) -> dict[str, str]:
    return {"code": error.code, "message": error.message}


def _line(name: str, value: Any) -> bytes:
    return json.dumps({name: value}, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
