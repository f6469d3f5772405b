"""The client's half of protocol v1, as text; what a whole call makes of it is in test_call_client.py."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.cli.call_messages import ServerMessageError, parse_message, start_message, to_transcript
from voice_agent.core.commands import CallOptions, Start, Stop
from voice_agent.core.events import Transcript
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.transports import wire


def test_start_is_what_the_server_reads() -> None:
    """The client's words, read by the server's own parser, give what was meant."""
    audio_format = AudioFormat(Encoding.MULAW, 8_000, 2)
    text = start_message(audio_format, language="en", partials=False)
    assert wire.parse_message(text, position_seconds=0.0) == Start(
        audio_format=audio_format, options=CallOptions(language="en", partials=False)
    )


def test_stop_is_what_the_server_reads() -> None:
    """The other message that the client has."""
    from voice_agent.cli.call_messages import STOP_MESSAGE

    assert wire.parse_message(STOP_MESSAGE, position_seconds=0.0) == Stop()


@pytest.mark.parametrize("is_final", [True, False])
def test_a_transcript_survives_the_wire(is_final: bool) -> None:
    """What the server's own writer writes comes out the same."""
    result = TranscriptResult(
        text="it was the best",
        is_final=is_final,
        start=1.25,
        end=2.5,
        utterance=3,
        revision=2,
        confidence=0.875,
        stable="it was",
    )
    assert to_transcript(parse_message(wire.encode_event(Transcript(result=result)))) == result


def test_a_bare_transcript_is_enough() -> None:
    """Only what the client can't do without is asked for."""
    message = parse_message('{"type": "final", "utterance": 1, "text": "hi", "start": 0, "end": 1}')
    assert to_transcript(message) == TranscriptResult(
        text="hi", is_final=True, start=0, end=1, utterance=1, confidence=0.0, language="", speaker_id=""
    )


@given(st.one_of(st.text(), st.binary(), st.recursive(st.none() | st.text(), st.lists).map(json.dumps)))
def test_whatever_comes_it_is_a_message_or_one_typed_error(text: str | bytes) -> None:
    """Nothing that a server sends ends the client with a traceback."""
    try:
        message = parse_message(text)
    except ServerMessageError:
        return
    assert isinstance(message["type"], str)


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(
    st.dictionaries(
        st.sampled_from(
            ["text", "start", "end", "utterance", "revision", "confidence", "stable", "language", "speaker"]
        ),
        values,
    )
)
def test_whatever_a_transcript_holds_it_is_one_or_one_typed_error(fields: dict[str, object]) -> None:
    """Missing fields and wrong types are told, not stumbled over."""
    try:
        transcript = to_transcript({"type": "partial", **fields})
    except ServerMessageError:
        return
    assert transcript.text == fields["text"]


def test_deep_nesting_is_no_json() -> None:
    """A parser that runs out of stack is an error of the message."""
    with pytest.raises(ServerMessageError):
        parse_message("[" * 100_000)
