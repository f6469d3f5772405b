"""What a client tells of a call while it lasts, and what came of it."""

from collections.abc import Callable
from typing import Any

import attrs

from voice_agent.core.transcripts import TranscriptResult


@attrs.frozen(kw_only=True)
class ReceivedMessage:
    """A server's message and when it came.

    ``received_at`` is on Trio's clock; ``latency_seconds`` is set for partials and finals (see ``latency.py``).
    """

    message: dict[str, Any]
    received_at: float
    transcript: TranscriptResult | None = None
    latency_seconds: float | None = None


@attrs.frozen(kw_only=True)
class Reconnecting:
    """The connection was lost, or could not be had again; the next attempt begins in ``wait_seconds``."""

    reason: str
    attempt: int
    wait_seconds: float
    url: str

    @property
    def words(self) -> str:
        """For people."""
        what = "connection lost" if self.attempt == 1 else "still no connection"
        return f"{what} ({self.reason}); trying again in {self.wait_seconds:.1f} s"


@attrs.frozen(kw_only=True)
class Resumed:
    """The call goes on, on another connection."""

    session: str
    url: str
    attempts: int
    away_seconds: float
    """From the loss to the server's ``ready``."""
    resent_seconds: float
    """Audio that is sent again, or for the first time, because of the loss."""
    lost_seconds: float
    """Audio that the server never heard and that is held no more; it hears silence in its place."""

    @property
    def words(self) -> str:
        """For people."""
        lost = f"{self.lost_seconds:.1f} s of sound lost" if self.lost_seconds else "nothing lost"
        return f"resumed after {self.away_seconds:.1f} s, {lost}"


ConnectionNews = Reconnecting | Resumed


@attrs.define(kw_only=True)
class CallResult:
    """What came of a call.

    ``failure_code`` and ``failure`` are set when it ended otherwise than by our own ``stop``: the server's error
    code or close reason, ``connection_lost``, ``timeout``, ``bad_server_message`` or ``unreadable_file``.
    """

    session_id: str | None = None
    finals: list[TranscriptResult] = attrs.field(factory=list)
    final_latencies_seconds: list[float] = attrs.field(factory=list)
    partial_latencies_seconds: list[float] = attrs.field(factory=list)
    notices: list[dict[str, Any]] = attrs.field(factory=list)
    errors: list[dict[str, Any]] = attrs.field(factory=list)
    closed: dict[str, Any] | None = None
    """The server's close record."""
    close_code: int | None = None
    audio_seconds: float = 0.0
    """Audio that was sent."""
    resumes: int = 0
    """How often the call went on after its connection was lost."""
    lost_seconds: float = 0.0
    """Audio that was lost with connections."""
    was_hung_up: bool = False
    failure_code: str | None = None
    failure: str | None = None

    def fail(self, code: str, message: str) -> None:
        """Record why the call ended; the first reason stays, the later ones follow from it."""
        if self.failure_code is None:
            self.failure_code, self.failure = code, message


OnMessage = Callable[[ReceivedMessage], None]
OnNews = Callable[[ConnectionNews], None]


def ignore_message(_received: ReceivedMessage) -> None:
    """For callers who only want the result."""


def ignore_news(_news: ConnectionNews) -> None:
    """For callers who only want the result."""
