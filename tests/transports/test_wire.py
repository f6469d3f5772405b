"""Protocol v1 as JSON: what is read, what is refused and how, what is written."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.commands import CallOptions, Flush, Microphone, Ping, Resume, Start, Stop, TypedText
from voice_agent.core.errors import (
    CallerError,
    InvalidFieldError,
    InvalidJsonError,
    NotAnObjectError,
    UnknownTypeError,
    UnsupportedFormatError,
)
from voice_agent.core.events import Notice, Pong, ResumeOffer, SessionReady, Transcript
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding
from voice_agent.core.strict_json import MAX_DEPTH
from voice_agent.core.transcripts import TranscriptResult, Word
from voice_agent.transports.wire import encode_event, parse_message


def parse(text: str) -> object:
    """Read a message that came after 1.5 s of audio."""
    return parse_message(text, position_seconds=1.5)


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('{"type":"start"}', Start()),
        (
            '{"type":"start","microphone":"raw"}',
            Start(options=CallOptions(microphone=Microphone.RAW)),
        ),
        (
            '{"type":"start","encoding":"opus","sample_rate":48000,"channels":2,"language":"en","partials":false}',
            Start(
                audio_format=AudioFormat(Encoding.OPUS, 48_000, 2),
                options=CallOptions(language="en", partials=False),
            ),
        ),
        (
            '{"type":"start","resume":{"session":"s1","token":"t1","last_seq":17,"audio_ms":12000}}',
            Start(resume=Resume(session_id="s1", token="t1", last_seq=17, audio_ms=12_000)),  # noqa: S106
        ),
        (
            '{"type":"start","resume":{"session":"s1","token":"t1","audio_ms":null}}',
            Start(resume=Resume(session_id="s1", token="t1")),  # noqa: S106
        ),
        ('{"type":"text","text":"grüße 👋"}', TypedText(text="grüße 👋", position_seconds=1.5)),
        (r'{"type":"text","text":"\ud83d\udc4b"}', TypedText(text="👋", position_seconds=1.5)),
        ('{"type":"flush"}', Flush(position_seconds=1.5)),
        ('{"type":"ping"}', Ping()),
        ('{"type":"ping","id":null}', Ping()),
        ('{"type":"ping","id":"7"}', Ping(id="7")),
        (' {"type" : "stop"} ', Stop()),
    ],
)
def test_a_message_becomes_its_command(text: str, command: object) -> None:
    """Each client message gives its command; what is about audio carries the position."""
    assert parse(text) == command


def test_what_a_start_leaves_out_comes_from_the_defaults() -> None:
    """The operator's choice of partials holds for a caller who says nothing."""
    defaults = CallOptions(partials=False)
    command = parse_message('{"type":"start"}', position_seconds=0, defaults=defaults)
    assert command == Start(options=defaults)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "{",
        '{"type":"ping"}}',
        "\ufeff{}",
        '{"type":"ping","type":"stop"}',
        '{"type":"ping","id":{"a":1,"a":2}}',
        '{"type":"ping","id":NaN}',
        '{"type":"ping","id":Infinity}',
        '{"type":"ping","id":-Infinity}',
        '{"type":"ping","id":1e999}',
        '{"type":"ping","id":-1e999}',
        '{"type":"ping","id":' + "9" * 5000 + "}",
        '{"type":"ping","id":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}",
        '{"type":"ping","id":' + '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH + "}",
        "[" * 60_000,
        '{"a":' * 10_000,
        r'{"type":"text","text":"\ud800"}',
        r'{"type":"text","text":"\udc4b\ud83d"}',
        r'{"type":"text","\udfff":1}',
        '{"type":"text","text":"\ud800"}',
        '{"type":"text","text":"line\nbreak"}',
    ],
)
def test_bad_json_is_refused_as_such(text: str) -> None:
    """Malformed, ambiguous or unwritable JSON is InvalidJsonError, whatever it says, however deep it goes."""
    with pytest.raises(InvalidJsonError):
        parse(text)


def test_nesting_is_allowed_up_to_the_limit() -> None:
    """Thirty-two levels are JSON like any other: only the field itself is refused."""
    deep = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    with pytest.raises(InvalidFieldError):
        parse('{"type":"ping","id":' + deep + "}")


@pytest.mark.parametrize("text", ["[]", '"start"', "1", "null", "true", "{}", '{"type":null}', '{"type":1}'])
def test_json_without_a_type_is_no_message(text: str) -> None:
    """JSON that is no object, or an object without a string type, is NotAnObjectError."""
    with pytest.raises(NotAnObjectError):
        parse(text)


@pytest.mark.parametrize("name", ["", "Start", "hello", "x" * 50_000])
def test_an_unknown_type_is_told_in_few_words(name: str) -> None:
    """An unknown type is UnknownTypeError, and the answer does not echo a novel."""
    with pytest.raises(UnknownTypeError) as caught:
        parse(json.dumps({"type": name}))
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"type":"ping","x":1}', "x"),
        ('{"type":"stop","id":"1"}', "id"),
        ('{"type":"flush","text":"a"}', "text"),
        ('{"type":"start","rate":16000}', "rate"),
        ('{"type":"start","encoding":7}', "encoding"),
        ('{"type":"start","encoding":null}', "encoding"),
        ('{"type":"start","sample_rate":"16000"}', "sample_rate"),
        ('{"type":"start","sample_rate":16000.0}', "sample_rate"),
        ('{"type":"start","sample_rate":true}', "sample_rate"),
        ('{"type":"start","sample_rate":99999999999}', "sample_rate"),
        ('{"type":"start","channels":-99999999999}', "channels"),
        ('{"type":"start","channels":[1]}', "channels"),
        ('{"type":"start","language":"tlh"}', "language"),
        ('{"type":"start","language":1}', "language"),
        ('{"type":"start","partials":"yes"}', "partials"),
        ('{"type":"start","partials":1}', "partials"),
        ('{"type":"start","microphone":"loud"}', "microphone"),
        ('{"type":"start","microphone":true}', "microphone"),
        ('{"type":"text"}', "text"),
        ('{"type":"text","text":""}', "text"),
        ('{"type":"text","text":" \\n"}', "text"),
        ('{"type":"text","text":1}', "text"),
        ('{"type":"text","text":"' + "a" * 4001 + '"}', "text"),
        ('{"type":"text","text":"a","lang":"en"}', "lang"),
        ('{"type":"ping","id":1}', "id"),
        ('{"type":"ping","id":"' + "a" * 129 + '"}', "id"),
        ('{"type":"start","resume":"s1"}', "resume"),
        ('{"type":"start","resume":null}', "resume"),
        ('{"type":"start","resume":{}}', "session"),
        ('{"type":"start","resume":{"session":"s1"}}', "token"),
        ('{"type":"start","resume":{"session":"' + "s" * 65 + '","token":"t"}}', "session"),
        ('{"type":"start","resume":{"session":"s1","token":"' + "t" * 129 + '"}}', "token"),
        ('{"type":"start","resume":{"session":"s1","token":1}}', "token"),
        ('{"type":"start","resume":{"session":"s1","token":"t","last_seq":-1}}', "last_seq"),
        ('{"type":"start","resume":{"session":"s1","token":"t","last_seq":true}}', "last_seq"),
        ('{"type":"start","resume":{"session":"s1","token":"t","audio_ms":2147483648}}', "audio_ms"),
        ('{"type":"start","resume":{"session":"s1","token":"t","audio_ms":0.5}}', "audio_ms"),
        ('{"type":"start","resume":{"session":"s1","token":"t","window":1}}', "window"),
    ],
)
def test_a_bad_field_is_named(text: str, field: str) -> None:
    """An unknown field, a wrong type or a value out of range is InvalidFieldError and names the field."""
    with pytest.raises(InvalidFieldError) as caught:
        parse(text)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"encoding": "mp3"}, "encoding"),
        ({"encoding": "x" * 5000}, "encoding"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"sample_rate": -16_000}, "sample_rate"),
        ({"sample_rate": 7_999}, "sample_rate"),
        ({"sample_rate": 48_001}, "sample_rate"),
        ({"encoding": "opus", "sample_rate": 44_100}, "sample_rate"),
        ({"channels": 0}, "channels"),
        ({"channels": 3}, "channels"),
    ],
)
def test_audio_that_cannot_be_heard_is_refused(fields: dict[str, object], field: str) -> None:
    """An unknown encoding and an impossible rate or channel count are UnsupportedFormatError, field named."""
    with pytest.raises(UnsupportedFormatError) as caught:
        parse(json.dumps({"type": "start", **fields}))
    assert caught.value.field == field
    assert len(caught.value.message) < 200


def test_the_longest_text_and_id_are_read() -> None:
    """The limits are inclusive."""
    assert parse(json.dumps({"type": "text", "text": "ß" * 4000})) == TypedText(
        text="ß" * 4000, position_seconds=1.5
    )
    assert parse(json.dumps({"type": "ping", "id": "i" * 128})) == Ping(id="i" * 128)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)
messages = st.dictionaries(
    st.sampled_from(
        ["encoding", "sample_rate", "channels", "language", "partials", "microphone", "text", "id", "x"]
    ),
    json_values,
).flatmap(
    lambda fields: st.sampled_from(["start", "text", "flush", "ping", "stop", "nap"]).map(
        lambda name: {"type": name, **fields}
    )
)


@given(st.text() | st.text(st.characters()) | (json_values | messages).map(json.dumps))
def test_any_text_gives_a_command_or_a_typed_error(text: str) -> None:
    """Nothing that a caller writes raises anything but a CallerError, and the error can be written as UTF-8."""
    try:
        parse(text)
    except CallerError as error:
        f"{error.message}{error.field}".encode()


def test_a_result_is_written_compactly_and_to_the_millisecond() -> None:
    """Compact JSON in UTF-8, seconds to three places, words only when there are some."""
    result = TranscriptResult(
        text="größer als",
        is_final=False,
        start=1.23456,
        end=2.0004,
        utterance=3,
        revision=2,
        confidence=0.98765,
        stable="größer",
    )
    assert encode_event(Transcript(seq=9, position_ms=2100, result=result)) == (
        '{"type":"partial","seq":9,"position_ms":2100,"utterance":3,"revision":2,"text":"größer als",'
        '"stable":"größer","start":1.235,"end":2.0,"confidence":0.988,"language":"en","speaker":"caller"}'
    )


def test_words_are_written_when_there_are_some() -> None:
    """A final with words lists each with its place and probability."""
    result = TranscriptResult(
        text="hi",
        is_final=True,
        start=0,
        end=1,
        utterance=1,
        stable="hi",
        words=(Word("hi", 0.1, 0.50049, 0.75),),
    )
    message = json.loads(encode_event(Transcript(result=result)))
    assert message["type"] == "final"
    assert message["words"] == [{"text": "hi", "start": 0.1, "end": 0.5, "confidence": 0.75}]


def test_limits_and_details_are_rounded_too() -> None:
    """Floats inside limits and details carry no noise; other values pass as they are."""
    ready = SessionReady(
        session_id="s", audio_format=AudioFormat(), options=CallOptions(), limits={"a": 0.1 + 0.2, "b": 7}
    )
    assert json.loads(encode_event(ready))["limits"] == {"a": 0.3, "b": 7}
    notice = Notice(code="overflow", message="m", detail={"dropped_ms": 120})
    assert json.loads(encode_event(notice))["detail"] == {"dropped_ms": 120}


def test_what_json_does_not_know_is_never_written() -> None:
    """NaN in a message is a defect of ours that must not reach a caller as broken JSON."""
    with pytest.raises(ValueError, match="JSON"):
        encode_event(Notice(code="c", message="m", detail={"x": float("nan")}))


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=128))
def test_a_ping_id_comes_back_as_it_was(ping_id: str) -> None:
    """Whatever id a caller sends, its pong carries the same."""
    ping = parse(json.dumps({"type": "ping", "id": ping_id}))
    assert isinstance(ping, Ping)
    assert json.loads(encode_event(Pong(id=ping.id)))["id"] == ping_id


def test_how_a_session_can_be_resumed_is_written_only_where_it_can() -> None:
    """`resume`, `resumed`, `heard_ms` and `resumable` are there when they say something."""
    ready = SessionReady(session_id="s1", audio_format=AudioFormat(), options=CallOptions())
    assert not {"resume", "resumed", "heard_ms"} & set(json.loads(encode_event(ready)))
    offer = ResumeOffer(token="t1", window_seconds=60.0)  # noqa: S106 (made up)
    resumed = json.loads(encode_event(attrs.evolve(ready, resume=offer, heard_ms=0)))
    assert resumed["resume"] == {"token": "t1", "window_seconds": 60.0}
    assert (resumed["resumed"], resumed["heard_ms"]) == (True, 0)
    assert "t1" not in repr(attrs.evolve(ready, resume=offer))
