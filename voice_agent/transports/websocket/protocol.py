"""Protocol v1 over a WebSocket, without I/O: what arrived goes in, what it means comes out.

Rules
-----
1. Everything that affects the state machine lives in this file; :data:`TRANSITIONS` is all of it.
2. The caller settles the format once: by query parameters, by a first ``start``, or by beginning without either, which
   means the default. So the first output that is neither a ping, a notice nor an error is always a :class:`Start`.
3. What the caller does wrong is an output too, never an exception. A fatal error leads to CLOSED, from any state.
4. In CLOSED nothing that arrives means anything.
5. ``stop`` again changes nothing and means nothing; audio after it is complained about once.
6. Time comes in as an argument and only moves forward.
"""

from collections.abc import Callable, Mapping
from enum import Enum, auto
from functools import partial
from typing import Final, Protocol
from urllib.parse import parse_qsl

from voice_agent.audio.decoding import open_decoder
from voice_agent.core.commands import CallOptions, Command, Flush, Ping, Start, Stop, TypedText
from voice_agent.core.errors import (
    AlreadyStartedError,
    AudioAfterStopError,
    CallerError,
    InvalidFieldError,
    MessageTooLargeError,
    SessionClosedError,
    StartTimeoutError,
    TooManyUnknownTypesError,
    UnknownTypeError,
)
from voice_agent.core.events import Notice
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame
from voice_agent.settings.schema import WebSocketSettings
from voice_agent.transports.message_rate import MessageRate
from voice_agent.transports.wire import START_FIELDS, parse_message, parse_start

MAX_UNKNOWN_TYPES: Final = 10
"""A client that sends so many messages of unknown type speaks another protocol."""

_QUERY_INTEGERS: Final = ("sample_rate", "channels")
_QUERY_BOOLEANS: Final = ("partials",)
_MAX_DIGITS: Final = 9
_BOOLEANS: Final = {"true": True, "false": False}
_DEFAULT_OPTIONS: Final = CallOptions()

Output = Command | AudioFrame | Notice | CallerError
"""What a message meant; a notice is what the caller is to be told about it."""


class Decoder(Protocol):
    """Audio messages of one call to frames; knows the position."""

    def decode(self, data: bytes) -> AudioFrame:
        """Decode one message; raises :class:`~voice_agent.core.errors.BadAudioError`."""
        ...


class State(Enum):
    """Where a call stands."""

    NEGOTIATING = auto()
    """The format is not settled."""
    STREAMING = auto()
    STOPPED = auto()
    """The caller said that no more audio comes."""
    CLOSED = auto()
    """A fatal error was told, or the caller went away."""


class Step(Enum):
    """What can happen to a call."""

    START = auto()
    AUDIO = auto()
    SPEAK = auto()
    """``text`` or ``flush``: about the audio that is being sent."""
    PING = auto()
    STOP = auto()
    FAIL = auto()
    """A fatal error."""
    HANG_UP = auto()


_FAILING: Final = {Step.FAIL: State.CLOSED, Step.HANG_UP: State.CLOSED}

TRANSITIONS: Final[Mapping[State, Mapping[Step, State | type[CallerError]]]] = {
    State.NEGOTIATING: {
        Step.START: State.STREAMING,
        Step.AUDIO: State.STREAMING,
        Step.SPEAK: State.STREAMING,
        Step.PING: State.NEGOTIATING,
        Step.STOP: State.STOPPED,
        **_FAILING,
    },
    State.STREAMING: {
        Step.START: AlreadyStartedError,
        Step.AUDIO: State.STREAMING,
        Step.SPEAK: State.STREAMING,
        Step.PING: State.STREAMING,
        Step.STOP: State.STOPPED,
        **_FAILING,
    },
    State.STOPPED: {
        Step.START: AlreadyStartedError,
        Step.AUDIO: AudioAfterStopError,
        Step.SPEAK: SessionClosedError,
        Step.PING: State.STOPPED,
        Step.STOP: State.STOPPED,
        **_FAILING,
    },
    State.CLOSED: dict.fromkeys(Step, State.CLOSED),
}

_REFUSALS: Final[Mapping[type[CallerError], str]] = {
    AlreadyStartedError: "the audio format is settled; it can't be changed during a call",
    AudioAfterStopError: "audio came after stop; it is not heard",
    SessionClosedError: "stop was sent; no text or flush can follow",
}

_STEPS: Final[Mapping[type[Command], Step]] = {
    Start: Step.START,
    TypedText: Step.SPEAK,
    Flush: Step.SPEAK,
    Ping: Step.PING,
    Stop: Step.STOP,
}


class WebSocketProtocol:
    """One call's side of the protocol; see the rules above.

    ``query_string`` is the handshake's, as it came. ``opening`` holds what the query already meant: a :class:`Start`,
    or nothing. ``now_seconds`` is any clock that does not go back.

    Raises:
        InvalidFieldError: a query parameter is unknown, given twice, or of the wrong form.
        UnsupportedFormatError: the query asks for audio that can't be heard.
    """

    def __init__(
        self,
        settings: WebSocketSettings,
        defaults: CallOptions = _DEFAULT_OPTIONS,
        query_string: bytes = b"",
        *,
        messages: MessageRate | None = None,
        make_decoder: Callable[[AudioFormat], Decoder] = open_decoder,
    ) -> None:
        self._settings = settings
        self._defaults = defaults
        self._make_decoder = make_decoder
        self._decoder = make_decoder(AudioFormat())
        self._state = State.NEGOTIATING
        self._audio_format: AudioFormat | None = None
        self._heard_seconds = 0.0
        self._messages = messages or MessageRate()
        self._unknown_types = 0
        self._has_told_late_audio = False
        start = parse_query(query_string, defaults)
        self.opening: tuple[Output, ...] = tuple(self._take(start)) if start else ()

    @property
    def state(self) -> State:
        """Where the call stands."""
        return self._state

    @property
    def audio_format(self) -> AudioFormat | None:
        """What the call's audio messages hold, both ways; ``None`` until that is settled."""
        return self._audio_format

    def receive_binary(self, data: bytes, now_seconds: float) -> list[Output]:
        """Take an audio message."""
        return self._receive(now_seconds, partial(self._read_binary, data))

    def receive_text(self, text: str, now_seconds: float) -> list[Output]:
        """Take a JSON message."""
        return self._receive(now_seconds, partial(self._read_text, text))

    def start_timed_out(self) -> list[Output]:
        """Tell that the time for a ``start`` is over; means nothing once the call has begun."""
        if self._state is not State.NEGOTIATING:
            return []
        return self._refuse(
            StartTimeoutError(
                f"neither start nor audio came within {self._settings.start_timeout_seconds:g} s"
            )
        )

    def hang_up(self) -> None:
        """Tell that the caller went away."""
        self._advance(Step.HANG_UP)

    def _receive(self, now_seconds: float, read: Callable[[], list[Output]]) -> list[Output]:
        """Count a message, then read it."""
        if self._state is State.CLOSED:
            return []
        outputs: list[Output] = []
        try:
            if (notice := self._messages.count(now_seconds)) is not None:
                outputs.append(notice)
            outputs += read()
        except CallerError as error:
            outputs += self._refuse(error)
        return outputs

    def _read_binary(self, data: bytes) -> list[Output]:
        _check_size(len(data), self._settings.max_binary_bytes, "audio")
        return self._hear(data)

    def _read_text(self, text: str) -> list[Output]:
        _check_size(_utf8_size(text), self._settings.max_text_bytes, "text")
        return self._take(parse_message(text, position_seconds=self._heard_seconds, defaults=self._defaults))

    def _hear(self, data: bytes) -> list[Output]:
        if self._state is State.STOPPED and self._has_told_late_audio:
            return []
        outputs = self._advance(Step.AUDIO)
        frame = self._decoder.decode(data)
        self._heard_seconds = frame.end / frame.sample_rate
        return [*outputs, frame]

    def _take(self, command: Command) -> list[Output]:
        if isinstance(command, Stop) and self._state is State.STOPPED:
            return []
        outputs = self._advance(_STEPS[type(command)], command)
        if not isinstance(command, Start):
            outputs.append(command)
        return outputs

    def _advance(self, step: Step, command: Command | None = None) -> list[Output]:
        """Take a step; return the :class:`Start` where the step settles the format."""
        before = self._state
        target = TRANSITIONS[before][step]
        if not isinstance(target, State):
            raise target(_REFUSALS[target])
        self._state = target
        if before is not State.NEGOTIATING or target not in (State.STREAMING, State.STOPPED):
            return []
        start = command if isinstance(command, Start) else Start(options=self._defaults)
        self._audio_format = start.audio_format
        self._decoder = self._make_decoder(start.audio_format)
        return [start]

    def _refuse(self, error: CallerError) -> list[Output]:
        if isinstance(error, UnknownTypeError):
            self._unknown_types += 1
            if self._unknown_types >= MAX_UNKNOWN_TYPES:
                error = TooManyUnknownTypesError(
                    f"{self._unknown_types} messages were of unknown type; this is voice-agent protocol v1",
                    field=error.field,
                )
        elif isinstance(error, AudioAfterStopError):
            self._has_told_late_audio = True
        if error.fatal:
            self._advance(Step.FAIL)
        # Told later and elsewhere: the frames that it was raised through would keep the message alive until then.
        error.__traceback__ = None
        return [error]


def parse_query(query_string: bytes, defaults: CallOptions = _DEFAULT_OPTIONS) -> Start | None:
    """Read the format and the options from a handshake's query string; ``None`` when it is empty.

    Raises:
        InvalidFieldError: a parameter is unknown, given twice, or of the wrong form.
        UnsupportedFormatError: the audio can't be heard.
    """
    if not query_string:
        return None
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=2 * len(START_FIELDS),
        )
    except ValueError:
        raise InvalidFieldError(
            "the query string can't be read; write name=value&name=value", field="query"
        ) from None
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name == "resume":
            raise InvalidFieldError("resume belongs into a start message: addresses are logged", field=name)
        if name in fields:
            raise InvalidFieldError(f"parameter {name[:40]!r} is given twice", field=name[:40])
        fields[name] = _parameter(name, value)
    return parse_start(fields, defaults)


def _parameter(name: str, value: str) -> object:
    """Return the parameter in the type that its field has in JSON."""
    if name in _QUERY_INTEGERS:
        if not (value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS):
            raise InvalidFieldError(f"{name} must be a whole number", field=name)
        return int(value)
    if name in _QUERY_BOOLEANS:
        if value not in _BOOLEANS:
            raise InvalidFieldError(f"{name} must be true or false", field=name)
        return _BOOLEANS[value]
    return value


def _check_size(size: int, limit: int, kind: str) -> None:
    if size > limit:
        raise MessageTooLargeError(f"a {kind} message of {size} bytes is over the limit of {limit}")


def _utf8_size(text: str) -> int:
    # An unpaired surrogate has no UTF-8; the parser refuses it, but only once the size is known to be small.
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
