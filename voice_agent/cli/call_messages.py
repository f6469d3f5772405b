"""The client's half of protocol v1 as text: what it says, and what it makes of what it is told. No I/O."""

import json
from typing import Any, Final, NoReturn

from voice_agent.core.errors import DependencyError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.transcripts import TranscriptResult

STOP_MESSAGE: Final = '{"type": "stop"}'
PING_MESSAGE: Final = '{"type": "ping"}'
TRANSCRIPT_TYPES: Final = ("partial", "final")

MAX_NUMBER: Final = 2**53
"""RFC 8259, section 6: up to here all readers of JSON agree on whole numbers."""

_EXCERPT_CHARACTERS: Final = 80


class ServerMessageError(DependencyError):
    """The server said something that is not protocol v1."""

    code = "bad_server_message"


def start_message(
    audio_format: AudioFormat, *, language: str, partials: bool, resume: dict[str, Any] | None = None
) -> str:
    """Return the ``start`` message; ``resume`` names the session that it shall go on with."""
    start: dict[str, Any] = {
        "type": "start",
        "encoding": str(audio_format.encoding),
        "sample_rate": audio_format.sample_rate,
        "channels": audio_format.channels,
        "language": language,
        "partials": partials,
    }
    return json.dumps(start if resume is None else start | {"resume": resume})


def parse_message(text: str | bytes) -> dict[str, Any]:
    """Return a server's message; an unknown ``type`` is let through, because a later server may have more.

    Raises:
        ServerMessageError: it is binary, not JSON, or no object with a string ``type``.
    """
    if isinstance(text, bytes):
        raise ServerMessageError(
            f"the server sent {len(text)} bytes of binary, which protocol v1 does not have"
        )
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ServerMessageError(f"the server sent no JSON: {text[:_EXCERPT_CHARACTERS]!r}") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ServerMessageError(f"the server sent a message without type: {text[:_EXCERPT_CHARACTERS]!r}")
    return message


def number_at(fields: object, key: str, default: float) -> float:
    """Return a number of a message or of its parts, and ``default`` where there is none that means anything."""
    value = fields.get(key) if isinstance(fields, dict) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return default
    return float(value) if abs(value) <= MAX_NUMBER else default


def to_transcript(message: dict[str, Any]) -> TranscriptResult:
    """Return what a ``partial`` or ``final`` message tells.

    Raises:
        ServerMessageError: a needed field is missing, of the wrong type, or contradicts another.
    """
    try:
        return TranscriptResult(
            text=_string(message["text"]),
            is_final=message["type"] == "final",
            start=float(message["start"]),
            end=float(message["end"]),
            utterance=int(message["utterance"]),
            revision=int(message.get("revision") or 1),
            confidence=float(message.get("confidence") or 0.0),
            language=str(message.get("language") or ""),
            speaker_id=str(message.get("speaker") or ""),
            stable=_string(message.get("stable") or ""),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ServerMessageError(f"the server sent a broken {message['type']}: {error}") from error


def _refuse_constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is no JSON number")


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value
