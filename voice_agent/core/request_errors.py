"""Errors of HTTP requests, beside the error tree of ``errors.py``: each is answered with its ``status`` and ``code``.

The application, the WebSocket handshake and the connection guard below both answer with these, as problem documents.
"""

from http import HTTPStatus
from typing import Final

from voice_agent.core.errors import CallerError, InternalError, VoiceAgentError


class RequestError(CallerError):
    """A request can't be served as it is."""

    code = "bad_request"
    status = HTTPStatus.BAD_REQUEST


class EarlyDataError(RequestError):
    """Bytes came behind a WebSocket handshake before it was answered (RFC 6455, section 4.1)."""

    code = "early_data"


class BadHandshakeError(RequestError):
    """A WebSocket handshake breaks RFC 6455, section 4.2.1."""

    code = "bad_handshake"


class HandshakeRefusedError(RequestError):
    """A WebSocket handshake was refused without a better reason."""

    code = "refused"
    status = HTTPStatus.FORBIDDEN


class AmbiguousCredentialsError(RequestError):
    """More than one key, token or ticket is shown (RFC 6750, section 2)."""

    code = "ambiguous_credentials"


class ForbiddenOriginError(RequestError):
    """A web page of another site than those that are allowed sent the request (RFC 6454)."""

    code = "forbidden_origin"
    status = HTTPStatus.FORBIDDEN


class PassageRefusedError(RequestError):
    """The request says that another node passes it on, and this can't be believed; ``detail`` says what is wrong."""

    code = "passage_refused"
    status = HTTPStatus.FORBIDDEN


class NotFoundError(RequestError):
    """There is nothing at the address, or nothing that may be seen."""

    code = "not_found"
    status = HTTPStatus.NOT_FOUND


class MethodNotAllowedError(RequestError):
    """The address is right, the method is not; ``Allow`` says which ones are."""

    code = "method_not_allowed"
    status = HTTPStatus.METHOD_NOT_ALLOWED


class BodyTimeoutError(RequestError):
    """The body did not come in time."""

    code = "body_timeout"
    status = HTTPStatus.REQUEST_TIMEOUT


class EtagMismatchError(RequestError):
    """``If-Match`` is not the call's tag."""

    code = "etag_mismatch"
    status = HTTPStatus.PRECONDITION_FAILED


class SessionRunningError(RequestError):
    """What is kept of a session can't be deleted while its call runs."""

    code = "session_running"
    status = HTTPStatus.CONFLICT


class EventsGoneError(RequestError):
    """The events behind ``Last-Event-ID`` are no longer kept, or there never was such an event."""

    code = "events_gone"
    status = HTTPStatus.GONE


class BodyTooLargeError(RequestError):
    """The body is over the limit of its address."""

    code = "body_too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class UnsupportedContentTypeError(RequestError):
    """The body is of another type than the one that is read here."""

    code = "unsupported_content_type"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class IceRestartUnsupportedError(RequestError):
    """A WebRTC caller wants to restart ICE."""

    code = "ice_restart_unsupported"
    status = HTTPStatus.UNPROCESSABLE_ENTITY


class UpgradeRequiredError(RequestError):
    """A call is a WebSocket, and this is a plain request."""

    code = "upgrade_required"
    status = HTTPStatus.UPGRADE_REQUIRED


class WebSocketVersionError(RequestError):
    """Another version of the WebSocket protocol than 13."""

    code = "websocket_version"
    status = HTTPStatus.UPGRADE_REQUIRED


class EtagRequiredError(RequestError):
    """A change without ``If-Match``."""

    code = "etag_required"
    status = HTTPStatus.PRECONDITION_REQUIRED


class RateLimitedError(RequestError):
    """Requests or new calls come faster than the limit; ``Retry-After`` says when the next is served."""

    code = "rate_limited"
    status = HTTPStatus.TOO_MANY_REQUESTS


class TooManyCallsError(RequestError):
    """The caller has as many calls at once as one caller may have."""

    code = "too_many_calls"
    status = HTTPStatus.TOO_MANY_REQUESTS


class TooManyListenersError(RequestError):
    """As many as may follow one session's events do so already."""

    code = "too_many_listeners"
    status = HTTPStatus.TOO_MANY_REQUESTS


class TooManyFailuresError(RequestError):
    """Too many wrong credentials came from the address; even right ones have to wait."""

    code = "too_many_failures"
    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        """When the address may try again; for ``Retry-After``."""


class HeadersTooLargeError(RequestError):
    """The request line and headers are over their limit."""

    code = "headers_too_large"
    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE


class TransferCodingError(RequestError):
    """The body is in another transfer coding than ``chunked`` (RFC 9112, section 6.1)."""

    code = "transfer_coding"
    status = HTTPStatus.NOT_IMPLEMENTED


class HttpVersionError(RequestError):
    """Another version of HTTP than 1.0 and 1.1."""

    code = "http_version"
    status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED


class UnavailableError(VoiceAgentError):
    """Nobody's fault: the server can't serve this now, and may soon."""

    code = "unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class ServerFullError(UnavailableError):
    """The server has as many calls as it takes."""

    code = "full"


class StoreAwayError(UnavailableError):
    """The store has been away for so long that no new session could be kept."""

    code = "store_full"


class JournalsUnavailableError(UnavailableError):
    """What is kept of sessions can't be read or deleted now, because the store can't be reached."""

    code = "journals_unavailable"


class ClusterAwayError(UnavailableError):
    """Nothing is heard of the other nodes, and the operator wants no new calls then."""

    code = "cluster_away"


class NotPassedOnError(UnavailableError):
    """Another node has what is asked for, and nodes pass nothing on here: they have no secret in common."""

    code = "not_passed_on"
    status = HTTPStatus.BAD_GATEWAY


class NodeAwayError(UnavailableError):
    """Another node has what is asked for, and it can't be reached."""

    code = "node_away"
    status = HTTPStatus.BAD_GATEWAY


class NodeSilentError(UnavailableError):
    """Another node has what is asked for, and it did not answer in time."""

    code = "node_silent"
    status = HTTPStatus.GATEWAY_TIMEOUT


class ServerOverloadedError(UnavailableError):
    """Another call would spoil the running ones."""

    code = "overloaded"


class ServerDrainingError(UnavailableError):
    """The server is shutting down and takes no new calls."""

    code = "draining"


class ServerClosingError(UnavailableError):
    """The server ended before it could answer."""

    code = "closing"


class TokenKeysUnavailableError(UnavailableError):
    """Tokens can't be checked, because their provider's keys have not been fetched yet."""

    code = "token_keys_unavailable"


_BY_STATUS: Final[dict[HTTPStatus, type[VoiceAgentError]]] = {
    kind.status: kind
    for kind in (
        NotFoundError,
        MethodNotAllowedError,
        BodyTimeoutError,
        BodyTooLargeError,
        UnsupportedContentTypeError,
        HeadersTooLargeError,
        TransferCodingError,
        HttpVersionError,
        UnavailableError,
    )
}


def error_of_status(status: int) -> type[VoiceAgentError]:
    """Return the class that says what a library's bare status says; the most general one where none says more."""
    if status in _BY_STATUS:
        return _BY_STATUS[HTTPStatus(status)]
    return InternalError if status >= HTTPStatus.INTERNAL_SERVER_ERROR else RequestError
