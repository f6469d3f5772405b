"""docs/protocol.md and the code say the same: every example, every table, both ways."""

import ast
import json
import re
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

import attrs
import pytest

import voice_agent
from voice_agent.core import errors, request_errors
from voice_agent.core.commands import CallOptions, Command, Flush, Ping, Start, Stop, TypedText
from voice_agent.core.errors import CallerError, VoiceAgentError
from voice_agent.core.events import (
    CloseReason,
    CloseRecord,
    Fault,
    Notice,
    Pong,
    ResumeOffer,
    SessionClosed,
    SessionEvent,
    SessionReady,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)
from voice_agent.core.formats import OPUS_RATES, AudioFormat
from voice_agent.core.frames import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Encoding
from voice_agent.core.strict_json import MAX_DEPTH
from voice_agent.core.transcripts import TranscriptResult, Word
from voice_agent.settings.schema import Settings
from voice_agent.transports.websocket.endpoint import CLOSE_CODES, PATH, SUBPROTOCOL
from voice_agent.transports.websocket.protocol import MAX_UNKNOWN_TYPES, parse_query
from voice_agent.transports.wire import (
    LANGUAGES,
    MAX_PING_ID_CHARS,
    MAX_TEXT_CHARS,
    START_FIELDS,
    encode_event,
    parse_message,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "protocol.md").read_text()

NEVER_ON_THE_WIRE = {
    errors.UnauthenticatedError,
    errors.ForbiddenError,
    # These are HTTP answers to a WebRTC offer, which docs/webrtc.md lists.
    errors.InvalidSdpError,
    errors.UnsupportedMediaError,
    errors.NoCommonCodecError,
    errors.TooManyCandidatesError,
    CallerError,  # the abstract root
    errors.InvalidFrameError,  # what embedding programs do wrong
    errors.UnreadableFileError,  # what the command line is given
}
ALSO_ON_THE_WIRE = {errors.RecognitionFailedError, errors.InternalError}

COMMANDS: dict[str, Command] = {
    "start": Start(),
    "text": TypedText(text="My number is 42.", position_seconds=2.0),
    "flush": Flush(position_seconds=2.0),
    "ping": Ping(id="7"),
    "stop": Stop(),
}

EVENTS: dict[str, SessionEvent] = {
    "ready": SessionReady(
        seq=1,
        session_id="b1946ac92492d234",
        audio_format=AudioFormat(),
        options=CallOptions(),
        limits={"max_binary_bytes": 262_144, "max_text_bytes": 65_536, "max_messages_per_second": 1000},
        trace_id="0af7651916cd43dd8448eb211c80319c",
        resume=ResumeOffer(token="Zm9yZ2V0IG1lIG5vdCwgSSBhbSBvbmx5IGFuIGV4", window_seconds=60.0),  # noqa: S106 (made up)
    ),
    "speech_started": SpeechStarted(seq=2, position_ms=640, utterance=1, start=0.288),
    "partial": Transcript(
        seq=3,
        position_ms=1420,
        result=TranscriptResult(
            text="It was the best",
            is_final=False,
            start=0.288,
            end=1.42,
            utterance=1,
            confidence=0.913,
            stable="It was",
        ),
    ),
    "final": Transcript(
        seq=5,
        position_ms=2400,
        result=TranscriptResult(
            text="It was",
            is_final=True,
            start=0.288,
            end=2.08,
            utterance=1,
            revision=2,
            confidence=0.957,
            stable="It was",
            words=(Word("It", 0.288, 0.4, 0.981), Word("was", 0.4, 2.08, 0.934)),
        ),
    ),
    "speech_stopped": SpeechStopped(seq=4, position_ms=2400, utterance=1, end=2.08),
    "notice": Notice(
        seq=6,
        position_ms=31_000,
        code="overflow",
        message="Audio came faster than it could be heard; the oldest was dropped.",
        detail={"dropped_ms": 480},
    ),
    "pong": Pong(seq=7, position_ms=31_000, id="7"),
    "error": Fault(
        seq=8,
        position_ms=31_000,
        code="invalid_field",
        message="text is missing or blank",
        is_fatal=False,
        field="text",
    ),
    "closed": SessionClosed(
        seq=9,
        position_ms=31_000,
        record=CloseRecord(
            session_id="b1946ac92492d234",
            reason=CloseReason.STOPPED,
            error_code=None,
            duration_seconds=33.512,
            audio_seconds=31,
            dropped_audio_ms=480,
            transcripts=1,
            close_seconds=0.041,
            stage_waited_for="hear",
            tasks_left=0,
            trace_id="0af7651916cd43dd8448eb211c80319c",
        ),
    ),
}


def section(title: str) -> str:
    """Return the text under a heading of the second level."""
    (text,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return text


def examples(title: str) -> dict[str, str]:
    """Return the JSON example of each message under a heading, by the message's own heading."""
    found = re.findall(
        r"^### `(\w+)`\n(?:(?!^###).)*?^```json\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL
    )
    assert len(found) == DOCUMENT_EXAMPLES[title]
    return dict(found)


DOCUMENT_EXAMPLES = {"What the caller sends": len(COMMANDS), "What the server sends": len(EVENTS)}


def table(first_column: str) -> list[list[str]]:
    """Return the rows of the table whose first column has this heading; code marks are taken off."""
    (body,) = re.findall(rf"^\| {first_column} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", DOCUMENT, re.MULTILINE)
    rows = [re.split(r"\s*\|\s*", line.strip()) for line in body.splitlines()]
    return [[cell.strip("`") for cell in row[1:-1]] for row in rows]


def on_the_wire() -> set[type[VoiceAgentError]]:
    """Return the errors that a caller can be told."""
    known = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CallerError)
    }
    return (known - NEVER_ON_THE_WIRE) | ALSO_ON_THE_WIRE


def test_every_client_message_is_documented_with_an_example_that_parses() -> None:
    """Each command has its section, and its example gives exactly the command meant."""
    found = examples("What the caller sends")
    assert set(found) == set(COMMANDS)
    assert {type(command) for command in COMMANDS.values()} == set(get_args(Command))
    for name, text in found.items():
        assert parse_message(text, position_seconds=2.0) == COMMANDS[name]


def test_every_server_message_is_documented_with_an_example_that_is_produced() -> None:
    """Each event has its section, and its example is what the code writes, fields and order."""
    found = examples("What the server sends")
    assert set(found) == set(EVENTS)
    assert {type(event) for event in EVENTS.values()} == set(get_args(SessionEvent))
    for name, text in found.items():
        assert list(json.loads(text).items()) == list(json.loads(encode_event(EVENTS[name])).items())
        assert json.loads(text)["type"] == name


def test_the_table_of_errors_is_that_of_the_classes() -> None:
    """Code, fatal or not, and close code: as the classes have them, none missing, none too many."""
    rows = {code: (fatal, close_code) for code, fatal, close_code, _when in table("code")}
    expected = {
        kind.code: ("yes", str(kind.close_code)) if kind.fatal else ("no", "")
        for kind in on_the_wire()
        if issubclass(kind, CallerError)
    }
    expected["recognition_failed"] = ("no", "")
    expected["internal_error"] = ("yes", str(CLOSE_CODES[CloseReason.INTERNAL_ERROR]))
    assert rows == expected


def test_the_table_of_close_reasons_is_that_of_the_endpoint() -> None:
    """Every reason of a close record has its code in the document."""
    assert {reason: int(code) for reason, code, _when in table("reason")} == {
        str(reason): code for reason, code in CLOSE_CODES.items()
    }
    assert set(CLOSE_CODES) == set(CloseReason)


def test_the_table_of_notices_is_what_the_code_tells() -> None:
    """Each notice that any part of the package makes is documented with its detail, and no other."""
    told: dict[str, list[str]] = {}
    for path in Path(voice_agent.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Notice":
                arguments = {keyword.arg: keyword.value for keyword in node.keywords}
                detail = arguments.get("detail", ast.Dict([], []))
                assert isinstance(detail, ast.Dict)
                told[ast.literal_eval(arguments["code"])] = [
                    ast.literal_eval(key) for key in detail.keys if key is not None
                ]
    assert told
    assert {code: detail.replace("`", "").split(", ") for code, detail, _when in table("notice")} == told


def test_the_tables_of_formats_and_start_fields_are_complete() -> None:
    """Every encoding with its rates, and every field of ``start`` with its default."""
    rates = {encoding: rate for encoding, _holds, rate in table("encoding")}
    assert set(rates) == {str(encoding) for encoding in Encoding}
    opus = rates.pop("opus")
    assert tuple(map(int, re.findall(r"\d+", opus))) == OPUS_RATES
    assert set(rates.values()) == {f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"}
    fields = {field: default for field, _value, default in table("field")}
    assert tuple(fields) == START_FIELDS
    defaults = {**attrs.asdict(AudioFormat()), "language": CallOptions().language}
    assert {name: fields[name] for name in defaults} == {name: str(value) for name, value in defaults.items()}


def test_the_table_of_limits_is_that_of_the_settings() -> None:
    """Each limit names a setting and its default, and what it leads to exists."""
    for name, default, _beyond in table("setting"):
        group, key = name.split(".")
        assert float(default) == getattr(getattr(Settings(), group), key)


def test_the_table_of_http_answers_names_real_codes() -> None:
    """What a handshake can be refused with, by status and code."""
    rows = [(int(status), code) for status, code, _when in table("status")]
    assert rows == [
        (400, errors.InvalidFieldError.code),
        (400, errors.UnsupportedFormatError.code),
        (400, request_errors.AmbiguousCredentialsError.code),
        (401, errors.UnauthenticatedError.code),
        (403, errors.ForbiddenError.code),
        (403, request_errors.ForbiddenOriginError.code),
        (404, "not_found"),
        (429, request_errors.TooManyFailuresError.code),
        (429, request_errors.RateLimitedError.code),
        (429, request_errors.TooManyCallsError.code),
        (503, "full"),
        (503, request_errors.ServerOverloadedError.code),
        (503, "draining"),
    ]


def test_the_example_address_works() -> None:
    """The query of the documented address is one that the server understands, at the path it serves."""
    (address,) = re.findall(r"`(ws://[^`]+)`", DOCUMENT)
    parts = urlsplit(address)
    assert parts.path == PATH
    assert parse_query(parts.query.encode()) == Start(audio_format=AudioFormat(Encoding.OPUS, 48_000, 1))


@pytest.mark.parametrize(
    "words",
    [
        f"`{SUBPROTOCOL}`",
        f"nesting beyond {MAX_DEPTH}",
        f"1 to {MAX_TEXT_CHARS} characters",
        f"up to {MAX_PING_ID_CHARS} characters",
        f"| `language` | `{'`, `'.join(LANGUAGES)}` |",
    ],
)
def test_figures_in_the_prose_are_those_of_the_code(words: str) -> None:
    """A limit that changes in the code changes here too."""
    assert words in DOCUMENT


def test_the_tenth_is_the_tenth() -> None:
    """The document says "the tenth message of unknown type"."""
    assert MAX_UNKNOWN_TYPES == 10
