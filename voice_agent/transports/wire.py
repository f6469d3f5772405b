"""Protocol v1 as JSON: one object a text message, the same over a WebSocket and over a data channel.

Pure: text in, typed values out, and back. ``docs/protocol.md`` lists every message with an example; a test holds the
document and this file together. JSON is read strictly (RFC 8259 leaves repeated keys and unpaired surrogates open; here
they are errors), because a message that two readers understand differently is worse than one that is refused.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from voice_agent.core.commands import (
    CallOptions,
    Command,
    Flush,
    Microphone,
    Ping,
    Resume,
    Start,
    Stop,
    TypedText,
)
from voice_agent.core.errors import (
    InvalidFieldError,
    NotAnObjectError,
    UnknownTypeError,
)
from voice_agent.core.events import (
    CloseRecord,
    Fault,
    Notice,
    Pong,
    SessionClosed,
    SessionEvent,
    SessionReady,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)
from voice_agent.core.formats import AudioFormat
from voice_agent.core.strict_json import load_object
from voice_agent.core.transcripts import TranscriptResult, Word

PROTOCOL_VERSION: Final = 1
LANGUAGES: Final = ("en",)
"""What can be recognised; ISO 639-1."""

MAX_TEXT_CHARS: Final = 4000
MAX_PING_ID_CHARS: Final = 128
MAX_INTEGER: Final = 2**31 - 1
START_FIELDS: Final = ("encoding", "sample_rate", "channels", "language", "partials", "microphone", "resume")
RESUME_FIELDS: Final = ("session", "token", "last_seq", "audio_ms")
MAX_SESSION_CHARS: Final = 64
MAX_TOKEN_CHARS: Final = 128

_DECIMALS: Final = 3
"""Seconds are told to the millisecond, and probabilities to three places."""

_QUOTED_CHARS: Final = 40
"""How much of a caller's own words an error message repeats."""

_DEFAULT_FORMAT: Final = AudioFormat()
_DEFAULT_OPTIONS: Final = CallOptions()


def parse_message(text: str, *, position_seconds: float, defaults: CallOptions = _DEFAULT_OPTIONS) -> Command:
    """Read one client message.

    ``position_seconds`` is how much audio came before the message; ``defaults`` fill what a ``start`` leaves out.

    Raises:
        InvalidJsonError: no JSON, a repeated key, NaN or infinity, deeper than 32, or an unpaired surrogate.
        NotAnObjectError: JSON, but no object with a string ``type``.
        UnknownTypeError: ``type`` is none of the protocol's.
        InvalidFieldError: a field is missing, unknown, of the wrong type or out of range; ``field`` names it.
        UnsupportedFormatError: the audio that a ``start`` announces can't be heard.
    """
    fields = load_object(text)
    message_type = fields.pop("type", None)
    if not isinstance(message_type, str):
        raise NotAnObjectError('a message is an object with a string "type"', field="type")
    match message_type:
        case "start":
            return parse_start(fields, defaults)
        case "text":
            _refuse_others(fields, ("text",))
            return TypedText(text=_typed_text(fields), position_seconds=position_seconds)
        case "flush":
            _refuse_others(fields, ())
            return Flush(position_seconds=position_seconds)
        case "ping":
            _refuse_others(fields, ("id",))
            return Ping(id=_ping_id(fields))
        case "stop":
            _refuse_others(fields, ())
            return Stop()
    raise UnknownTypeError(
        f"message type {_quoted(message_type)} is unknown; use start, text, flush, ping or stop", field="type"
    )


def parse_start(fields: Mapping[str, object], defaults: CallOptions = _DEFAULT_OPTIONS) -> Start:
    """Read the fields of a ``start``; each may be left out.

    Raises:
        InvalidFieldError: a field is unknown, of the wrong type, or a language that is not understood.
        UnsupportedFormatError: the audio can't be heard.
    """
    _refuse_others(fields, START_FIELDS)
    encoding = _typed(fields, "encoding", str, str(_DEFAULT_FORMAT.encoding))
    sample_rate = _integer(fields, "sample_rate", _DEFAULT_FORMAT.sample_rate)
    channels = _integer(fields, "channels", _DEFAULT_FORMAT.channels)
    language = _typed(fields, "language", str, defaults.language)
    partials = _typed(fields, "partials", bool, defaults.partials)
    if language not in LANGUAGES:
        raise InvalidFieldError(
            f"language {_quoted(language)} is not understood; use {', '.join(LANGUAGES)}", field="language"
        )
    return Start(
        audio_format=AudioFormat.parse(encoding, sample_rate, channels),
        options=CallOptions(language=language, partials=partials, microphone=_microphone(fields, defaults)),
        resume=parse_resume(fields["resume"]) if "resume" in fields else None,
    )


def parse_resume(value: object) -> Resume:
    """Read which session a caller wants to go on with.

    Raises:
        InvalidFieldError: it is no object, or a field of it is missing, unknown, of the wrong type or out of range.
    """
    if not isinstance(value, dict):
        raise InvalidFieldError("resume must be an object", field="resume")
    _refuse_others(value, RESUME_FIELDS)
    session, token = _typed(value, "session", str, ""), _typed(value, "token", str, "")
    for name, text, most in (("session", session, MAX_SESSION_CHARS), ("token", token, MAX_TOKEN_CHARS)):
        if not 1 <= len(text) <= most:
            raise InvalidFieldError(f"{name} must have 1 to {most} characters", field=name)
    last_seq = _integer(value, "last_seq", 0)
    audio_ms = None if value.get("audio_ms") is None else _integer(value, "audio_ms", 0)
    for name, number in (("last_seq", last_seq), ("audio_ms", audio_ms)):
        if number is not None and number < 0:
            raise InvalidFieldError(f"{name} counts from 0", field=name)
    return Resume(session_id=session, token=token, last_seq=last_seq, audio_ms=audio_ms)


def encode_event(event: SessionEvent) -> str:
    """Write one server message: compact JSON, not escaped to ASCII, times in seconds rounded to the millisecond."""
    message_type, fields = _describe(event)
    unstored = {} if getattr(event, "is_stored", True) else {"stored": False}
    return _ENCODER.encode(
        {"type": message_type, "seq": event.seq, "position_ms": event.position_ms, **unstored, **fields}
    )


def _describe(  # noqa: PLR0911  # one return for each member of the closed union
    event: SessionEvent,
) -> tuple[str, dict[str, Any]]:
    """Return the message's type and the fields of its own."""
    match event:
        case SessionReady():
            return "ready", {
                "session": event.session_id,
                "protocol": PROTOCOL_VERSION,
                "format": {
                    "encoding": str(event.audio_format.encoding),
                    "sample_rate": event.audio_format.sample_rate,
                    "channels": event.audio_format.channels,
                },
                "language": event.options.language,
                "partials": event.options.partials,
                "microphone": str(event.options.microphone),
                "limits": _rounded_values(event.limits),
                "trace": event.trace_id,
                **_describe_resume(event),
            }
        case SpeechStarted():
            return "speech_started", {"utterance": event.utterance, "start": _rounded(event.start)}
        case SpeechStopped():
            return "speech_stopped", {"utterance": event.utterance, "end": _rounded(event.end)}
        case Transcript():
            return _describe_transcript(event.result)
        case Notice():
            return "notice", {
                "code": event.code,
                "message": event.message,
                "detail": _rounded_values(event.detail),
            }
        case Pong():
            return "pong", {"id": event.id}
        case Fault():
            return "error", {
                "code": event.code,
                "message": event.message,
                "fatal": event.is_fatal,
                "field": event.field,
            }
        case SessionClosed():  # pragma: no branch  # the union is closed; mypy sees that nothing is left
            resumable = {"resumable": True} if event.is_resumable else {}
            return "closed", {**_describe_close(event.record), **resumable}


def _describe_resume(ready: SessionReady) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if ready.heard_ms is not None:
        fields = {"resumed": True, "heard_ms": ready.heard_ms}
    if ready.resume is not None:
        fields["resume"] = {
            "token": ready.resume.token,
            "window_seconds": _rounded(ready.resume.window_seconds),
        }
    return fields


def _describe_transcript(result: TranscriptResult) -> tuple[str, dict[str, Any]]:
    fields: dict[str, Any] = {
        "utterance": result.utterance,
        "revision": result.revision,
        "text": result.text,
        "stable": result.stable,
        "start": _rounded(result.start),
        "end": _rounded(result.end),
        "confidence": _rounded(result.confidence),
        "language": result.language,
        "speaker": result.speaker_id,
    }
    if result.words:
        fields["words"] = [_describe_word(word) for word in result.words]
    return ("final" if result.is_final else "partial"), fields


def _describe_word(word: Word) -> dict[str, Any]:
    return {
        "text": word.text,
        "start": _rounded(word.start),
        "end": _rounded(word.end),
        "confidence": _rounded(word.confidence),
    }


def _describe_close(record: CloseRecord) -> dict[str, Any]:
    return {
        "session": record.session_id,
        "reason": str(record.reason),
        "error_code": record.error_code,
        "duration_seconds": _rounded(record.duration_seconds),
        "audio_seconds": _rounded(record.audio_seconds),
        "dropped_audio_ms": record.dropped_audio_ms,
        "transcripts": record.transcripts,
        "close_seconds": _rounded(record.close_seconds),
        "stage_waited_for": record.stage_waited_for,
        "tasks_left": record.tasks_left,
        "network": None if record.network is None else record.network.as_dict(),
        "trace": record.trace_id,
    }


def _rounded(value: float) -> float:
    return round(float(value), _DECIMALS)


def _rounded_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _rounded(value) if isinstance(value, float) else value for key, value in values.items()}


def _refuse_others(fields: Mapping[str, object], known: tuple[str, ...]) -> None:
    for name in fields:
        if name not in known:
            allowed = f"use {', '.join(known)}" if known else "this message has none"
            raise InvalidFieldError(
                f"field {_quoted(name)} is unknown; {allowed}", field=name[:_QUOTED_CHARS]
            )


_MICROPHONES: Final = tuple(microphone.value for microphone in Microphone)
_Kind = TypeVar("_Kind", str, bool)
_WORDS_FOR_TYPES: Final[dict[type, str]] = {str: "a string", bool: "true or false"}


def _typed(fields: Mapping[str, object], name: str, kind: type[_Kind], default: _Kind) -> _Kind:
    value = fields.get(name, default)
    if not isinstance(value, kind):
        raise InvalidFieldError(f"{name} must be {_WORDS_FOR_TYPES[kind]}", field=name)
    return value


def _microphone(fields: Mapping[str, object], defaults: CallOptions) -> Microphone:
    value = _typed(fields, "microphone", str, str(defaults.microphone))
    if value not in _MICROPHONES:
        raise InvalidFieldError(
            f"microphone {_quoted(value)} is unknown; use {' or '.join(_MICROPHONES)}", field="microphone"
        )
    return Microphone(value)


def _integer(fields: Mapping[str, object], name: str, default: int) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidFieldError(f"{name} must be a whole number", field=name)
    if not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise InvalidFieldError(f"{name} is out of range", field=name)
    return value


def _typed_text(fields: Mapping[str, object]) -> str:
    text = _typed(fields, "text", str, "")
    if not text.strip():
        raise InvalidFieldError("text is missing or blank", field="text")
    if len(text) > MAX_TEXT_CHARS:
        raise InvalidFieldError(
            f"text has {len(text)} characters; at most {MAX_TEXT_CHARS} are read", field="text"
        )
    return text


def _ping_id(fields: Mapping[str, object]) -> str | None:
    if fields.get("id") is None:
        return None
    ping_id = _typed(fields, "id", str, "")
    if len(ping_id) > MAX_PING_ID_CHARS:
        raise InvalidFieldError(f"id is longer than {MAX_PING_ID_CHARS} characters", field="id")
    return ping_id


def _quoted(words: str) -> str:
    return repr(words[:_QUOTED_CHARS])


_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
