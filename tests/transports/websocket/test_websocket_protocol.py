"""The WebSocket protocol without I/O: formats, order, limits, and what each bad input gives."""

import json
from collections.abc import Callable

import attrs
import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from voice_agent.core.commands import CallOptions, Flush, Ping, Start, Stop, TypedText
from voice_agent.core.errors import (
    AlreadyStartedError,
    AudioAfterStopError,
    BadAudioError,
    CallerError,
    InvalidFieldError,
    InvalidJsonError,
    MessageTooLargeError,
    NotAnObjectError,
    RateExceededError,
    SessionClosedError,
    StartTimeoutError,
    TooManyUnknownTypesError,
    UnknownTypeError,
    UnsupportedFormatError,
)
from voice_agent.core.events import Notice
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding
from voice_agent.settings.schema import WebSocketSettings
from voice_agent.transports.message_rate import MessageRate
from voice_agent.transports.websocket.protocol import (
    TRANSITIONS,
    Output,
    State,
    Step,
    WebSocketProtocol,
    parse_query,
)

START = '{"type":"start"}'
STOP = '{"type":"stop"}'
SILENCE = bytes(640)
"""20 ms of the default format."""


def protocol(
    query: bytes = b"", *, max_messages_per_second: int = 1000, **limits: float
) -> WebSocketProtocol:
    """Return a fresh protocol with some limits of its own."""
    return WebSocketProtocol(
        attrs.evolve(WebSocketSettings(), **limits),
        query_string=query,
        messages=MessageRate(lambda: max_messages_per_second),
    )


def only_error(outputs: list[Output]) -> CallerError:
    """Return the one output, which must be an error."""
    (error,) = outputs
    assert isinstance(error, CallerError)
    return error


def test_the_table_is_total() -> None:
    """Every step has an answer in every state, and CLOSED is left by none."""
    assert set(TRANSITIONS) == set(State)
    assert all(set(row) == set(Step) for row in TRANSITIONS.values())
    assert set(TRANSITIONS[State.CLOSED].values()) == {State.CLOSED}


def test_bare_audio_means_the_default_format() -> None:
    """With neither query nor start, the first binary message starts pcm_s16le mono 16 kHz."""
    call = protocol()
    start, frame = call.receive_binary(SILENCE, 0)
    assert start == Start(audio_format=AudioFormat(Encoding.PCM_S16LE, 16_000, 1))
    assert isinstance(frame, AudioFrame)
    assert (frame.sample_rate, frame.position, frame.sample_count) == (16_000, 0, 320)
    assert call.state is State.STREAMING


def test_a_start_settles_the_format() -> None:
    """The audio after a start is of the format it names, and positions count from 0 without gaps."""
    call = protocol()
    assert call.audio_format is None
    (start,) = call.receive_text('{"type":"start","encoding":"mulaw","sample_rate":8000}', 0)
    assert start == Start(audio_format=AudioFormat(Encoding.MULAW, 8000, 1))
    assert call.audio_format == AudioFormat(Encoding.MULAW, 8000, 1)
    frames = [frame for _ in range(3) for frame in call.receive_binary(bytes(160), 0)]
    assert [frame.position for frame in frames if isinstance(frame, AudioFrame)] == [0, 160, 320]


def test_a_query_settles_the_format() -> None:
    """Query parameters are a start: the opening holds it, and defaults fill the rest."""
    call = protocol(b"encoding=pcm_f32le&sample_rate=48000&channels=2&language=en&partials=false")
    assert call.opening == (
        Start(
            audio_format=AudioFormat(Encoding.PCM_F32LE, 48_000, 2),
            options=CallOptions(language="en", partials=False),
        ),
    )
    assert call.state is State.STREAMING
    (frame,) = call.receive_binary(np.zeros((480, 2), "<f4").tobytes(), 0)
    assert isinstance(frame, AudioFrame)
    assert frame.channels == 2


@pytest.mark.parametrize(
    ("query", "partials"), [(b"", True), (b"language=en", False), (b"partials=true", True)]
)
def test_the_operators_defaults_hold_until_the_caller_chooses(query: bytes, partials: bool) -> None:
    """Any one parameter is a start; without one the call goes on negotiating."""
    call = WebSocketProtocol(WebSocketSettings(), CallOptions(partials=False), query)
    assert bool(call.opening) is bool(query)
    if query:
        assert call.opening == (Start(options=CallOptions(partials=partials)),)
    else:
        assert call.receive_text('{"type":"flush"}', 0)[0] == Start(options=CallOptions(partials=False))


@pytest.mark.parametrize(
    ("query", "error", "field"),
    [
        (b"codec=opus", InvalidFieldError, "codec"),
        (b"type=start", InvalidFieldError, "type"),
        (b"sample_rate=8000&sample_rate=16000", InvalidFieldError, "sample_rate"),
        (b"sample_rate=", InvalidFieldError, "sample_rate"),
        (b"sample_rate=16k", InvalidFieldError, "sample_rate"),
        (b"sample_rate=-1", InvalidFieldError, "sample_rate"),
        (b"sample_rate=1_6000", InvalidFieldError, "sample_rate"),
        (b"sample_rate=%D9%A1", InvalidFieldError, "sample_rate"),
        (b"sample_rate=" + b"9" * 5000, InvalidFieldError, "sample_rate"),
        (b"partials=1", InvalidFieldError, "partials"),
        (b"language=xx", InvalidFieldError, "language"),
        (b"encoding", InvalidFieldError, "query"),
        (b"&&", InvalidFieldError, "query"),
        (b"encoding=%ff", InvalidFieldError, "query"),
        (b"encoding=\xff", InvalidFieldError, "query"),
        (b"&".join(b"a%d=1" % n for n in range(100)), InvalidFieldError, "query"),
        (b"encoding=mp3", UnsupportedFormatError, "encoding"),
        (b"encoding=", UnsupportedFormatError, "encoding"),
        (b"sample_rate=7999", UnsupportedFormatError, "sample_rate"),
        (b"sample_rate=0", UnsupportedFormatError, "sample_rate"),
        (b"channels=3", UnsupportedFormatError, "channels"),
        (b"encoding=opus&sample_rate=44100", UnsupportedFormatError, "sample_rate"),
    ],
)
def test_a_bad_query_is_refused_before_the_call(query: bytes, error: type[CallerError], field: str) -> None:
    """Unknown, repeated or bad parameters are an error that names the parameter; no call begins."""
    with pytest.raises(error) as caught:
        protocol(query)
    assert caught.value.field == field


def test_an_empty_query_is_none() -> None:
    """No query string means nothing yet."""
    assert parse_query(b"") is None


@pytest.mark.parametrize(
    "begin",
    [
        lambda call: call.receive_text(START, 0),
        lambda call: call.receive_binary(SILENCE, 0),
        lambda call: call.receive_text('{"type":"flush"}', 0),
        lambda call: call.receive_text(STOP, 0),
    ],
)
def test_a_second_start_is_refused_and_the_call_goes_on(
    begin: Callable[[WebSocketProtocol], list[Output]],
) -> None:
    """``start`` after start, audio, text or stop is AlreadyStartedError and changes nothing."""
    call = protocol()
    begin(call)
    before = (call.state, call.audio_format)
    error = only_error(call.receive_text('{"type":"start","encoding":"opus","sample_rate":48000}', 0))
    assert isinstance(error, AlreadyStartedError)
    assert not error.fatal
    assert (call.state, call.audio_format) == before


def test_a_start_after_a_query_is_refused() -> None:
    """The query has settled the format."""
    call = protocol(b"sample_rate=8000")
    assert isinstance(only_error(call.receive_text(START, 0)), AlreadyStartedError)


def test_a_start_with_a_bad_field_can_be_sent_again() -> None:
    """A refused field does not begin the call; the next start counts."""
    call = protocol()
    assert isinstance(only_error(call.receive_text('{"type":"start","rate":1}', 0)), InvalidFieldError)
    assert call.state is State.NEGOTIATING
    assert call.receive_text(START, 0) == [Start()]


def test_an_impossible_format_ends_the_call() -> None:
    """UnsupportedFormatError is fatal with 4415; nothing is heard after it."""
    call = protocol()
    error = only_error(call.receive_text('{"type":"start","encoding":"mp3"}', 0))
    assert isinstance(error, UnsupportedFormatError)
    assert (error.fatal, error.close_code) == (True, 4415)
    assert call.state is State.CLOSED
    assert call.receive_binary(SILENCE, 0) == []
    assert call.receive_text(START, 0) == []


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('{"type":"flush"}', Flush()),
        ('{"type":"text","text":"hi"}', TypedText(text="hi")),
        (STOP, Stop()),
    ],
)
def test_text_flush_and_stop_imply_the_default_start(text: str, command: object) -> None:
    """A caller who never sends audio still has a settled format."""
    assert protocol().receive_text(text, 0) == [Start(), command]


def test_a_ping_begins_nothing() -> None:
    """``ping`` is allowed at any time and settles nothing."""
    call = protocol()
    assert call.receive_text('{"type":"ping","id":"1"}', 0) == [Ping(id="1")]
    assert call.state is State.NEGOTIATING
    call.receive_text(STOP, 0)
    assert call.receive_text('{"type":"ping","id":"2"}', 0) == [Ping(id="2")]


def test_flush_and_text_carry_their_place_in_the_audio() -> None:
    """A flush means the audio that came before it."""
    call = protocol(b"sample_rate=8000")
    call.receive_binary(bytes(16_000), 0)
    assert call.receive_text('{"type":"flush"}', 0) == [Flush(position_seconds=1.0)]
    call.receive_binary(bytes(8_000), 0)
    assert call.receive_text('{"type":"text","text":"a"}', 0) == [TypedText(text="a", position_seconds=1.5)]


def test_after_stop_only_pings_mean_something() -> None:
    """Late audio is told once and ignored, text is refused, a second stop is nothing."""
    call = protocol()
    call.receive_text(STOP, 0)
    late = only_error(call.receive_binary(SILENCE, 0))
    assert isinstance(late, AudioAfterStopError)
    assert not late.fatal
    assert call.receive_binary(b"\x00", 0) == []
    assert call.receive_binary(SILENCE, 0) == []
    assert isinstance(only_error(call.receive_text('{"type":"flush"}', 0)), SessionClosedError)
    assert isinstance(only_error(call.receive_text('{"type":"text","text":"a"}', 0)), SessionClosedError)
    assert call.receive_text(STOP, 0) == []
    assert call.state is State.STOPPED


@pytest.mark.parametrize(
    ("query", "data"),
    [
        (b"", b""),
        (b"", bytes(641)),
        (b"channels=2", bytes(642)),
        (b"encoding=pcm_f32le", bytes(7)),
        (b"encoding=pcm_f32le", np.array([0, np.nan], "<f4").tobytes()),
        (b"encoding=pcm_f32le", np.array([0, -np.inf], "<f4").tobytes()),
        (b"encoding=mulaw&channels=2", bytes(3)),
        (b"encoding=opus&sample_rate=48000", b""),
        (b"encoding=opus&sample_rate=48000", b"\xff"),
        (b"encoding=opus&sample_rate=48000", b"\x03\x00" + bytes(100)),
        (b"encoding=opus&sample_rate=48000", bytes(3000)),
        (b"encoding=opus&sample_rate=48000", b"OggS" + bytes(200)),
    ],
)
def test_bytes_that_are_no_audio_end_the_call(query: bytes, data: bytes) -> None:
    """Odd byte counts, NaN, infinity and garbage Opus are BadAudioError, fatal with 4400."""
    call = protocol(query)
    error = only_error(call.receive_binary(data, 0))
    assert isinstance(error, BadAudioError)
    assert (error.fatal, error.close_code) == (True, 4400)
    assert call.state is State.CLOSED


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{", InvalidJsonError),
        ("[]", NotAnObjectError),
        ('{"type":"ping","x":1}', InvalidFieldError),
        ('{"type":"hello"}', UnknownTypeError),
    ],
)
@pytest.mark.parametrize("state", [State.NEGOTIATING, State.STREAMING, State.STOPPED])
def test_an_unreadable_message_is_told_and_the_call_goes_on(
    text: str, kind: type[CallerError], state: State
) -> None:
    """What can't be read changes no state and ends no call."""
    call = protocol()
    if state is not State.NEGOTIATING:
        call.receive_text(START if state is State.STREAMING else STOP, 0)
    error = only_error(call.receive_text(text, 0))
    assert type(error) is kind
    assert not error.fatal
    assert call.state is state


def test_the_tenth_unknown_type_ends_the_call() -> None:
    """Nine unknown types are told, the tenth is fatal with 1008; other errors don't count."""
    call = protocol()
    for _ in range(9):
        assert type(only_error(call.receive_text('{"type":"hello"}', 0))) is UnknownTypeError
        call.receive_text("{", 0)
    error = only_error(call.receive_text('{"type":"hello"}', 0))
    assert isinstance(error, TooManyUnknownTypesError)
    assert (error.fatal, error.close_code) == (True, 1008)
    assert call.state is State.CLOSED


def test_messages_at_their_limit_are_read() -> None:
    """The limits of both kinds are inclusive, and count bytes."""
    call = protocol(max_binary_bytes=1024, max_text_bytes=256)
    assert isinstance(call.receive_binary(bytes(1024), 0)[1], AudioFrame)
    padding = 256 - len('{"type":"text","text":""}')
    assert isinstance(call.receive_text(f'{{"type":"text","text":"{"a" * padding}"}}', 0)[0], TypedText)


@pytest.mark.parametrize(
    "send",
    [
        lambda call: call.receive_text(json.dumps({"type": "text", "text": "a" * 10_000_000}), 0),
        lambda call: call.receive_text("[" * 10_000_000, 0),
        lambda call: call.receive_text('{"type":"text","text":"' + "ß" * 40_000 + '"}', 0),
        lambda call: call.receive_text("\ud800" * 40_000, 0),
        lambda call: call.receive_binary(bytes(256 * 1024 + 1), 0),
        lambda call: call.receive_binary(bytes(10_000_000), 0),
    ],
)
def test_a_message_over_its_limit_ends_the_call(send: Callable[[WebSocketProtocol], list[Output]]) -> None:
    """Ten megabytes of text, or audio over the limit, are MessageTooLargeError, fatal with 1009."""
    call = protocol()
    error = only_error(send(call))
    assert isinstance(error, MessageTooLargeError)
    assert (error.fatal, error.close_code) == (True, 1009)
    assert call.state is State.CLOSED


def test_ten_thousand_tiny_frames_a_second_end_the_call() -> None:
    """The first message beyond 1000 within a second is RateExceededError, fatal with 4429."""
    call = protocol()
    for number in range(1000):
        assert not isinstance(call.receive_binary(b"\0\0", number / 10_000)[-1], CallerError)
    error = only_error(call.receive_binary(b"\0\0", 0.1))
    assert isinstance(error, RateExceededError)
    assert (error.fatal, error.close_code) == (True, 4429)
    assert all(call.receive_binary(b"\0\0", number / 10_000) == [] for number in range(1001, 10_000))


def test_the_limit_of_messages_holds_over_any_second() -> None:
    """A steady caller at the limit is served for ever; a burst across two calendar seconds is not let through."""
    steady = protocol(max_messages_per_second=8)
    for number in range(100):
        assert steady.receive_text('{"type":"ping"}', number / 8)[-1] == Ping()
    bursting = protocol(max_messages_per_second=10)
    for _ in range(10):
        bursting.receive_text('{"type":"ping"}', 0.9)
    assert isinstance(only_error(bursting.receive_text('{"type":"ping"}', 1.1)), RateExceededError)


def test_messages_that_are_ignored_count_too() -> None:
    """A flood of late audio after stop is a flood."""
    call = protocol(max_messages_per_second=10)
    call.receive_text(STOP, 0)
    outputs = [call.receive_binary(SILENCE, 0) for _ in range(10)]
    assert isinstance(only_error(outputs[-1]), RateExceededError)


def test_who_comes_near_the_limit_of_messages_is_told_once_before_anything_else() -> None:
    """At nine of ten a notice comes ahead of what the message means; the tenth says nothing more, the eleventh ends it."""
    call = protocol(max_messages_per_second=10)
    outputs = [call.receive_text('{"type":"ping"}', number / 100) for number in range(11)]
    assert all(output == [Ping()] for output in [*outputs[:8], outputs[9]])
    notice, ping = outputs[8]
    assert isinstance(notice, Notice)
    assert (notice.code, notice.detail) == ("limit_near", {"limit": "messages", "used": 9, "allowed": 10})
    assert ping == Ping()
    assert isinstance(only_error(outputs[10]), RateExceededError)


def test_a_caller_who_never_starts_is_timed_out() -> None:
    """StartTimeoutError is fatal with 4408; a ping does not count as a start."""
    call = protocol(start_timeout_seconds=2.5)
    call.receive_text('{"type":"ping"}', 0)
    error = only_error(call.start_timed_out())
    assert isinstance(error, StartTimeoutError)
    assert (error.fatal, error.close_code) == (True, 4408)
    assert "2.5 s" in error.message
    assert call.state is State.CLOSED


def test_a_call_that_began_is_not_timed_out() -> None:
    """The start timeout means nothing once the format is settled."""
    call = protocol()
    call.receive_text(START, 0)
    assert call.start_timed_out() == []
    assert call.state is State.STREAMING


def test_errors_hold_no_message_alive() -> None:
    """An error waits to be told without the frames, and so without the message, that it came from."""
    assert only_error(protocol().receive_text("{" * 1000, 0)).__traceback__ is None


class AnyCall(RuleBasedStateMachine):
    """Any sequence of inputs: typed outputs only, legal states, positions without gaps."""

    @initialize(
        query=st.sampled_from([b"", b"sample_rate=8000", b"encoding=opus&sample_rate=48000", b"channels=2"])
    )
    def begin(self, query: bytes) -> None:
        self.call = protocol(query, max_messages_per_second=30, max_text_bytes=256, max_binary_bytes=1024)
        self.now_seconds = 0.0
        self.heard = 0
        self.heard_seconds = 0.0
        self.seen: list[Output] = []
        self.before = State.NEGOTIATING
        self.check(list(self.call.opening))

    def check(self, outputs: list[Output]) -> None:
        after = self.call.state
        reachable = {target for target in TRANSITIONS[self.before].values() if isinstance(target, State)}
        assert after is self.before or after in reachable
        if self.before is State.CLOSED:
            assert outputs == []
        for output in outputs:
            if isinstance(output, AudioFrame):
                assert output.position == self.heard
                self.heard = output.end
                self.heard_seconds = output.end / output.sample_rate
            elif isinstance(output, Flush | TypedText):
                assert output.position_seconds == self.heard_seconds
            elif isinstance(output, CallerError):
                assert type(output).fatal == (after is State.CLOSED)
        self.seen += outputs
        self.before = after

    @rule(data=st.binary(max_size=1100) | st.sampled_from([SILENCE, b"\0\0\0\0", b"\xfc\xff\xfe"]))
    def send_audio(self, data: bytes) -> None:
        self.check(self.call.receive_binary(data, self.now_seconds))

    @rule(text=st.text(max_size=300))
    def send_anything(self, text: str) -> None:
        self.check(self.call.receive_text(text, self.now_seconds))

    @rule(name=st.sampled_from(["start", "text", "flush", "ping", "hello"]), fields=st.data())
    def send_message(self, name: str, fields: st.DataObject) -> None:
        extra = fields.draw(
            st.sampled_from([{}, {"text": "a"}, {"id": "1"}, {"sample_rate": 8000}, {"encoding": "alaw"}])
        )
        self.check(self.call.receive_text(json.dumps({"type": name, **extra}), self.now_seconds))

    @rule()
    def stop(self) -> None:
        self.check(self.call.receive_text(STOP, self.now_seconds))

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now_seconds += seconds

    @rule()
    def start_timeout(self) -> None:
        self.check(self.call.start_timed_out())

    @rule()
    def hang_up(self) -> None:
        self.call.hang_up()
        assert self.call.state is State.CLOSED
        self.before = State.CLOSED

    @invariant()
    def one_start_comes_first(self) -> None:
        calls = [item for item in self.seen if not isinstance(item, Ping | Notice | CallerError)]
        assert [isinstance(item, Start) for item in calls] == [True, *[False] * (len(calls) - 1)][
            : len(calls)
        ]

    @invariant()
    def nothing_follows_a_stop_or_a_fatal_error(self) -> None:
        kinds = [type(item) for item in self.seen]
        assert kinds.count(Stop) <= 1
        if Stop in kinds:
            rest = self.seen[kinds.index(Stop) + 1 :]
            assert all(isinstance(item, Ping | Notice | CallerError) for item in rest)
        assert kinds.count(AudioAfterStopError) <= 1
        fatal = [
            index for index, item in enumerate(self.seen) if isinstance(item, CallerError) and item.fatal
        ]
        assert fatal in ([], [len(self.seen) - 1])


AnyCall.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyCall = AnyCall.TestCase
