"""What a session tells: a closed union of small frozen classes, named as nouns.

A session stamps each event with ``seq`` (counts from 1 without gaps) and ``position_ms`` (how much of the call's
audio had been heard by then).
"""

from enum import StrEnum
from typing import Any

import attrs

from voice_agent.core.commands import CallOptions
from voice_agent.core.formats import AudioFormat
from voice_agent.core.network import NetworkStatistics
from voice_agent.core.transcripts import TranscriptResult


class CloseReason(StrEnum):
    """Why a call ended."""

    STOPPED = "stopped"
    """The caller sent ``stop``, or the embedding program called ``finish()``."""
    HANGUP = "hangup"
    """The caller's connection went away."""
    IDLE_TIMEOUT = "idle_timeout"
    MAX_DURATION = "max_duration"
    DRAIN = "drain"
    """The server is shutting down and the grace time is over."""
    ENDED_BY_OPERATOR = "ended_by_operator"
    """Somebody who runs the server ended this call."""
    CALLER_ERROR = "caller_error"
    INTERNAL_ERROR = "internal_error"
    CANCELLED = "cancelled"
    """The scope around the session was cancelled."""
    TAKEN_OVER = "taken_over"
    """The session goes on elsewhere: it was resumed on another connection."""


@attrs.frozen(kw_only=True)
class CloseRecord:
    """How a call ended; what is logged, counted and told.

    Times are seconds. ``stage_waited_for`` names what the close had to wait for, or is empty; ``tasks_left`` is the
    number of the call's tasks that were alive when its nursery had been left. ``network`` is None where no packets are
    counted.
    """

    session_id: str
    reason: CloseReason
    error_code: str | None
    duration_seconds: float
    audio_seconds: float
    dropped_audio_ms: int
    transcripts: int
    close_seconds: float
    stage_waited_for: str
    tasks_left: int
    network: NetworkStatistics | None = None
    trace_id: str | None = None
    """The call's trace: 32 hexadecimal digits; None where none is made."""


@attrs.frozen(kw_only=True)
class _Stamped:
    seq: int = 0
    position_ms: int = 0


@attrs.frozen(kw_only=True)
class ResumeOffer:
    """By what a session can be resumed when its connection is lost, and for how long after that."""

    token: str = attrs.field(repr=False)
    window_seconds: float


@attrs.frozen(kw_only=True)
class SessionReady(_Stamped):
    """The session hears; ``limits`` are what the caller should know (bytes, seconds), ``trace_id`` the call's trace.

    ``resume`` is None where the session can't be resumed. ``heard_ms`` is there for a session that was: up to where its
    audio need not be sent again.
    """

    session_id: str
    audio_format: AudioFormat
    options: CallOptions
    limits: dict[str, Any] = attrs.field(factory=dict)
    trace_id: str | None = None
    resume: ResumeOffer | None = None
    heard_ms: int | None = None


@attrs.frozen(kw_only=True)
class SpeechStarted(_Stamped):
    """The caller began to speak at ``start`` seconds of the call."""

    utterance: int
    start: float


@attrs.frozen(kw_only=True)
class SpeechStopped(_Stamped):
    """The caller's utterance ended at ``end`` seconds of the call; its final follows, if it holds words.

    ``is_cut`` says that the caller did not end it: the audio broke off there.
    """

    utterance: int
    end: float
    is_cut: bool = False


@attrs.frozen(kw_only=True)
class Transcript(_Stamped):
    """A partial or a final; ``is_stored`` is False when a store is configured and has not taken the final yet."""

    result: TranscriptResult
    is_stored: bool = True


@attrs.frozen(kw_only=True)
class Notice(_Stamped):
    """Something the caller should know that is no error: ``overflow``, ``draining`` or ``no_words``."""

    code: str
    message: str
    detail: dict[str, Any] = attrs.field(factory=dict)
    is_stored: bool = True


@attrs.frozen(kw_only=True)
class Pong(_Stamped):
    """The answer to a ping."""

    id: str | None = None


@attrs.frozen(kw_only=True)
class Fault(_Stamped):
    """An error, told by its stable code; a fatal one is followed by the close."""

    code: str
    message: str
    is_fatal: bool
    field: str | None = None
    close_code: int = 1008
    """The WebSocket close code that a fatal error ends the connection with."""


@attrs.frozen(kw_only=True)
class SessionClosed(_Stamped):
    """The last event of every session; of one that ``is_resumable``, the last of this connection."""

    record: CloseRecord
    is_stored: bool = True
    is_resumable: bool = False


SessionEvent = (
    SessionReady | SpeechStarted | SpeechStopped | Transcript | Notice | Pong | Fault | SessionClosed
)
