"""The error tree, by whose fault it is: the caller's, the operator's, a dependency's, ours.

Each class that is raised has a stable ``code``: programs branch on it, documents list it, and it never changes
its meaning. A caller's error also says what it does to a call: ``fatal`` errors end it with ``close_code``. An error
that an HTTP request is answered with says so by its ``status``; ``request_errors.py`` has those of requests alone.
"""

from http import HTTPStatus
from typing import ClassVar

from voice_agent.core.limits import Limit


class VoiceAgentError(Exception):
    """The root; catch it to catch everything that this project raises on purpose."""

    code: ClassVar[str] = "error"
    status: ClassVar[HTTPStatus] = HTTPStatus.INTERNAL_SERVER_ERROR
    """The HTTP status (RFC 9110, section 15) of the answer that tells it."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        """The field, setting or parameter at fault, where one is."""


class CallerError(VoiceAgentError):
    """The caller sent something that can't be served; the server is well."""

    code = "caller_error"
    status = HTTPStatus.BAD_REQUEST
    fatal: ClassVar[bool] = False
    close_code: ClassVar[int] = 1008
    """WebSocket close code (RFC 6455, section 7.4; 4000-4999 are ours) when the error is fatal."""
    limit: ClassVar[Limit | None] = None
    """The limit that was hit, for those who count."""


class InvalidJsonError(CallerError):
    """A text message is not JSON, repeats a key, nests too deep, or holds NaN or infinity."""

    code = "invalid_json"


class NotAnObjectError(CallerError):
    """A text message is JSON, but not an object with a string ``type``."""

    code = "not_an_object"


class UnknownTypeError(CallerError):
    """The message's ``type`` is not one of the protocol."""

    code = "unknown_type"


class TooManyUnknownTypesError(CallerError):
    """Ten messages of unknown type: the client speaks another protocol."""

    code = "too_many_unknown_types"
    fatal = True
    close_code = 1008


class InvalidFieldError(CallerError):
    """A field is missing, unknown, of the wrong type or out of range."""

    code = "invalid_field"


class UnsupportedFormatError(CallerError):
    """The encoding, rate or channel count of the audio is not one that can be heard."""

    code = "unsupported_format"
    fatal = True
    close_code = 4415


class BadAudioError(CallerError):
    """The bytes of an audio message are not audio of the agreed format."""

    code = "bad_audio"
    fatal = True
    close_code = 4400


class AlreadyStartedError(CallerError):
    """``start`` came a second time, or after audio had begun."""

    code = "already_started"


class AudioAfterStopError(CallerError):
    """Audio came after ``stop``."""

    code = "audio_after_stop"


class MessageTooLargeError(CallerError):
    """A message is over the limit of its kind."""

    code = "message_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    fatal = True
    close_code = 1009


class RateExceededError(CallerError):
    """Messages come faster than the limit."""

    code = "rate_exceeded"
    status = HTTPStatus.TOO_MANY_REQUESTS
    fatal = True
    close_code = 4429
    limit = Limit.MESSAGES


class AudioRateExceededError(CallerError):
    """Audio comes faster than the limit, for longer than its burst."""

    code = "audio_rate_exceeded"
    status = HTTPStatus.TOO_MANY_REQUESTS
    fatal = True
    close_code = 4429
    limit = Limit.AUDIO


class TranscriptTooLargeError(CallerError):
    """The text of a call, recognised and typed, is over the limit."""

    code = "transcript_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    fatal = True
    close_code = 4413
    limit = Limit.TRANSCRIPT


class MaxDurationError(CallerError):
    """The call has lasted as long as it may."""

    code = "max_duration"
    fatal = True
    close_code = 4410
    limit = Limit.DURATION


class IdleTimeoutError(CallerError):
    """Neither audio nor messages came for too long."""

    code = "idle_timeout"
    fatal = True
    close_code = 4408
    limit = Limit.IDLE


class StartTimeoutError(CallerError):
    """Neither ``start`` nor audio came within the time allowed."""

    code = "start_timeout"
    fatal = True
    close_code = 4408


class InvalidFrameError(CallerError, ValueError):
    """An :class:`AudioFrame` can't be made of these values."""

    code = "invalid_frame"


class SessionClosedError(CallerError):
    """The session has ended, or its audio has been finished; nothing more can be sent into it."""

    code = "session_closed"
    status = HTTPStatus.GONE


class UnreadableFileError(CallerError):
    """An audio file given on the command line can't be read."""

    code = "unreadable_file"


class InvalidSdpError(CallerError):
    """A session description or a fragment of one is malformed (RFC 8866, RFC 8840)."""

    code = "invalid_sdp"


class UnsupportedMediaError(CallerError):
    """A WebRTC offer is well-formed, but asks for something that can't be served; the message says what."""

    code = "unsupported_media"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class NoCommonCodecError(UnsupportedMediaError):
    """A WebRTC offer's audio has no Opus."""

    code = "no_common_codec"


class TooManyCandidatesError(CallerError):
    """A WebRTC caller offers more ICE candidates than the limit."""

    code = "too_many_candidates"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class IceTimeoutError(CallerError):
    """A WebRTC call was signalled, but its media never arrived."""

    code = "ice_timeout"
    fatal = True
    close_code = 4408


class UnauthenticatedError(CallerError):
    """No credentials were shown, or they are wrong, expired or used; which of these is not told."""

    code = "unauthenticated"
    status = HTTPStatus.UNAUTHORIZED


class ForbiddenError(CallerError):
    """Whoever it is, they may not do this."""

    code = "forbidden"
    status = HTTPStatus.FORBIDDEN


class ResumeRefusedError(CallerError):
    """A session can't be resumed; the root of the reasons why."""

    code = "resume_refused"
    fatal = True
    close_code = 4404


class ResumeUnknownError(ResumeRefusedError):
    """There is no such session, or it was deleted."""

    code = "resume_unknown"
    status = HTTPStatus.NOT_FOUND


class ResumeTokenWrongError(ResumeRefusedError):
    """The token is none of the session's."""

    code = "resume_token_wrong"
    status = HTTPStatus.FORBIDDEN


class ResumeTokenUsedError(ResumeRefusedError):
    """The token was used before; each one resumes once."""

    code = "resume_token_used"
    status = HTTPStatus.CONFLICT


class ResumeForeignError(ResumeRefusedError):
    """The session belongs to another key."""

    code = "resume_foreign"
    status = HTTPStatus.FORBIDDEN


class ResumeExpiredError(ResumeRefusedError):
    """The session has ended, or the time in which it could be resumed is over."""

    code = "resume_expired"
    status = HTTPStatus.GONE


class ResumeUnavailableError(ResumeRefusedError):
    """The session can't be resumed now, because the store can't be reached; it may be in a moment, or elsewhere."""

    code = "resume_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE
    close_code = 1013


class OperatorError(VoiceAgentError):
    """The server is set up in a way that can't work; the message says what to change."""

    code = "operator_error"


class SettingsError(OperatorError):
    """One or more settings are unknown, of the wrong type or out of range; the message lists all of them."""

    code = "invalid_settings"


class ModelFileError(OperatorError):
    """A model file is missing, truncated, of the wrong shape or of the wrong checksum."""

    code = "model_file"


class UnsafeBindError(OperatorError):
    """The server would listen beyond loopback without knowing who may call."""

    code = "unsafe_bind"


class LanguageModelRefusedError(OperatorError):
    """The language model's endpoint refuses the key, the model or the request; asking again would not help."""

    code = "language_model_refused"


class StoreCorruptError(OperatorError):
    """What a store holds can't be read: damaged, foreign, or of a newer version."""

    code = "store_corrupt"


class StoreRefusedError(OperatorError):
    """The store is there, but refuses us for a reason that only its operator can change: login, rights, certificate."""

    code = "store_refused"


class AssertionsOffError(OperatorError):
    """Python runs with ``-O``: the WebRTC library relies on assertions, which are left out then."""

    code = "assertions_off"


class AddressInUseError(OperatorError):
    """The address to listen on is taken or can't be had."""

    code = "address_in_use"


class DependencyError(VoiceAgentError):
    """Something that we rely on failed: a peer, an engine, a store."""

    code = "dependency_error"


class TransportBrokenError(DependencyError):
    """The caller's connection went away."""

    code = "transport_broken"


class RecognitionFailedError(DependencyError):
    """The speech engine raised; the utterance has no transcript."""

    code = "recognition_failed"


class SynthesisFailedError(DependencyError):
    """The text-to-speech engine or endpoint failed; the sentence has no sound, or not all of it."""

    code = "synthesis_failed"


class LanguageModelFailedError(DependencyError):
    """The language model can't be reached, is too slow or too busy, broke off, or sent what is no answer."""

    code = "language_model_failed"

    def __init__(self, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """How long the endpoint wants to be left alone; 0 where it doesn't say."""


class StoreUnavailableError(DependencyError):
    """The store of sessions can't be reached now; what is written waits."""

    code = "store_unavailable"


class StoreFullError(DependencyError):
    """The store has been away for so long that no more can wait for it."""

    code = "journal_full"


class ServerUnreachableError(DependencyError):
    """A client could not reach the server, or the server refused the call."""

    code = "server_unreachable"

    def __init__(self, message: str, *, http_status: int | None = None) -> None:
        super().__init__(message)
        self.http_status = http_status
        """With what it refused; None where nobody answered."""


class InternalError(VoiceAgentError):
    """A defect of ours; the log has the trace, the caller gets this code only."""

    code = "internal_error"


class JournalHoleError(InternalError):
    """A journal entry was to be written that is not the next one."""

    code = "journal_hole"
