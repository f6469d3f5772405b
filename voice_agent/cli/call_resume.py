"""What a client has to remember of a session so that it can go on with it on another connection. Pure."""

from typing import Any, Final

import attrs

from voice_agent.cli.call_messages import number_at
from voice_agent.core.units import MS, SECONDS

QUIET_SECONDS: Final = 500 * MS
"""So far behind what was heard may speech still begin that was not told yet; the server reckons with the same."""
LEAD_SECONDS: Final = 1 * SECONDS
"""So much more than seems to be needed is kept: the server drops by position what it has."""


@attrs.define
class ResumePoint:
    """The session, the token of the moment, and the messages that were seen.

    Each ``ready`` brings a new token. A resumed session's ``ready`` has a higher ``seq`` than the missed messages
    that follow it, so it does not count as seen before they came: the connection may be lost among them.
    """

    session_id: str | None = None
    token: str | None = None
    window_seconds: float = 0.0
    """For so long after a lost connection the session can be resumed."""
    last_seq: int = 0
    """The highest ``seq`` that was seen, and everything below it with it."""
    _ready_seq: int | None = None
    """Of the resumed session's ``ready``, while missed messages may still come."""

    @property
    def is_offered(self) -> bool:
        """Whether the server lets this session be resumed."""
        return self.token is not None and self.session_id is not None and self.window_seconds > 0

    def take_ready(self, ready: dict[str, Any]) -> None:
        """Take a ``ready``, of the first connection or a later one."""
        offer = ready.get("resume")
        token = offer.get("token") if isinstance(offer, dict) else None
        session_id = ready.get("session")
        self.token = token if isinstance(token, str) else None
        self.session_id = session_id if isinstance(session_id, str) else None
        self.window_seconds = number_at(offer, "window_seconds", 0.0)
        seq = _seq_of(ready)
        if ready.get("resumed"):
            self._ready_seq = seq
        else:
            self.last_seq = seq

    def take(self, message: dict[str, Any]) -> bool:
        """Take any later message; return whether it is new. Without resuming, each is."""
        seq = _seq_of(message)
        if self._ready_seq is not None:
            if seq <= self.last_seq:
                return False
            if seq >= self._ready_seq:
                self._ready_seq = None
        self.last_seq = max(self.last_seq, seq)
        return True

    def request(self, start_seconds: float) -> dict[str, Any]:
        """Return what ``start`` carries to resume with audio from ``start_seconds`` of the call."""
        return {
            "session": self.session_id,
            "token": self.token,
            "last_seq": self.last_seq,
            "audio_ms": round(start_seconds * 1000),
        }


@attrs.define
class SettledPosition:
    """Up to where the server needs no audio again, as far as its messages tell.

    That is the end of the last final, or a little behind what was heard while nobody speaks. A final that the
    server could not keep yet (``stored: false``) settles nothing, until a later message was kept.
    """

    seconds: float = 0.0
    _open: set[int] = attrs.field(init=False, factory=set)
    _is_kept: bool = attrs.field(init=False, default=True)

    def take(self, message: dict[str, Any]) -> None:
        """Take a message."""
        match message["type"]:
            case "speech_started":
                self._open.add(_utterance_of(message))
            case "final":
                self._is_kept = message.get("stored") is not False
                self._close(_utterance_of(message))
                self._settle(number_at(message, "end", 0.0))
            case "notice" if message.get("code") == "no_words":
                self._close(_utterance_of(message.get("detail")))
        if not self._open:
            self._settle(number_at(message, "position_ms", 0.0) * MS - QUIET_SECONDS)

    def begin_again(self) -> None:
        """Forget what was being said: another connection tells it anew."""
        self._open.clear()

    def _close(self, utterance: int) -> None:
        """Utterances end in order; one that failed has neither final nor notice."""
        self._open = {number for number in self._open if number > utterance}

    def _settle(self, position_seconds: float) -> None:
        if self._is_kept:
            self.seconds = max(self.seconds, position_seconds - LEAD_SECONDS)


def _seq_of(message: dict[str, Any]) -> int:
    return int(number_at(message, "seq", 0))


def _utterance_of(fields: object) -> int:
    return int(number_at(fields, "utterance", 0))
