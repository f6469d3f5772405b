"""Server-sent events as a client reads them: lines in, events out. Pure.

Source: the HTML Standard, section 9.2.6, "Interpreting an event stream". Own code, for it is one function: the packages
for it bring a client of their own.
"""

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
