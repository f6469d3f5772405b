"""Server-sent events as a client reads them: lines or bytes in, events out. Pure.

Source: the HTML Standard, section 9.2.6, "Interpreting an event stream". Own code, for it is one function: the packages
for it bring a client of their own.
"""

import codecs
from typing import Final

import attrs

from voice_agent.core.errors import DependencyError
from voice_agent.core.units import MIB

MAX_EVENT_CHARS: Final = 1 * MIB
"""More than any event has; a server that sends more is none of ours."""


class EventTooLargeError(DependencyError):
    """A server sends an event without end."""

    code = "event_too_large"


@attrs.frozen(kw_only=True)
class ServerSentEvent:
    """One event; ``id`` is the last one that the stream has told, and stays when an event has none."""

    kind: str
    data: str
    id: str = ""


class EventReader:
    """Reads one stream; give it each line without its end."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self._kind = ""
        self._data: list[str] = []
        self._chars = 0

    def feed(self, line: str) -> ServerSentEvent | None:
        """Take a line; return the event that it completes, if it does.

        Raises:
            EventTooLargeError: an event has more than :data:`MAX_EVENT_CHARS`.
        """
        if not line:
            return self._dispatch()
        self._chars += len(line)
        if self._chars > MAX_EVENT_CHARS:
            raise EventTooLargeError(f"the server sends an event of more than {MAX_EVENT_CHARS} characters")
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self.last_id = value
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        kind, data = self._kind, self._data
        self._kind, self._data, self._chars = "", [], 0
        if not data:
            return None
        return ServerSentEvent(kind=kind or "message", data="\n".join(data), id=self.last_id)


class EventDecoder:
    """Reads one stream; give it the bytes as the network cuts them.

    Lines end as the standard says, and not as ``str.splitlines`` does: U+2028 may stand inside of JSON.
    """

    def __init__(self) -> None:
        self._reader: Final = EventReader()
        self._decoder: Final = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._line = ""
        self._may_skip_newline = False

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """Take a piece; return the events that it completes.

        Raises:
            EventTooLargeError: an event, or a line, has more than :data:`MAX_EVENT_CHARS`.
        """
        text = self._decoder.decode(data)
        if text and self._may_skip_newline:
            # The line ended with a return; a newline behind it belongs to the same end.
            text = text.removeprefix("\n")
            self._may_skip_newline = False
        if text.endswith("\r"):
            self._may_skip_newline = True
        *lines, rest = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        if lines:
            lines[0] = self._line + lines[0]
            self._line = ""
        self._line += rest
        if len(self._line) > MAX_EVENT_CHARS:
            raise EventTooLargeError(f"the server sends a line of more than {MAX_EVENT_CHARS} characters")
        return [event for line in lines if (event := self._reader.feed(line)) is not None]
