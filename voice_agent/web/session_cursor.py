"""Cursors of the list of sessions: where a session stands among all of a cluster, by when it was opened, then by its id.

Nothing else about a session stays, and nothing else is the same at every node.
"""

from datetime import UTC, datetime
from typing import Final

PATTERN: Final = r"[0-9a-z]{1,9}-[0-9A-Za-z_.-]{1,64}"
MAX_CHARACTERS: Final = 74

_BASE: Final = 36
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_EPOCH: Final = datetime.fromtimestamp(0, UTC)

Place = tuple[int, str]
"""Milliseconds since 1970, as exact as times are told, and the session's id; grows with time."""


def place_of(opened_at: datetime, session_id: str) -> Place:
    """Return where a session stands."""
    since = opened_at - _EPOCH
    return since.days * 86_400_000 + since.seconds * 1000 + since.microseconds // 1000, session_id


def cursor_of(place: Place) -> str:
    """Return the cursor of the page that begins behind a session."""
    milliseconds, session_id = place
    text = ""
    while milliseconds:
        milliseconds, digit = divmod(milliseconds, _BASE)
        text = _DIGITS[digit] + text
    return f"{text or '0'}-{session_id}"


def read_cursor(cursor: str) -> Place:
    """Return behind which session a page begins; the cursor has the form of :data:`PATTERN`."""
    milliseconds, _, session_id = cursor.partition("-")
    return int(milliseconds, _BASE), session_id
