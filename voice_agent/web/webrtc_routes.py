"""WHIP over HTTP (RFC 9725): ``/v1/webrtc`` begins a call, the address that it answers with changes and ends it.

These routes read and write HTTP; what a call is stands behind :class:`WebRtcDesk`. A call is changed and ended by the
identity that began it; to anybody else it does not exist. Which web pages may ask is the door's business.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, Protocol, cast

import attrs
from quart import Blueprint, Response, request
from werkzeug.exceptions import RequestEntityTooLarge

from voice_agent.access.admitted import admitted
from voice_agent.access.caller import Caller
from voice_agent.access.refusal import Refusal
from voice_agent.core.commands import CallOptions, Resume
from voice_agent.core.errors import CallerError, InvalidSdpError, UnauthenticatedError
from voice_agent.core.identity import Identity, Scope
from voice_agent.core.request_errors import (
    BodyTooLargeError,
    EtagMismatchError,
    EtagRequiredError,
    IceRestartUnsupportedError,
    NotFoundError,
    UnsupportedContentTypeError,
)
from voice_agent.transports.webrtc.candidates import AddressPolicy
from voice_agent.transports.webrtc.sdp import Offer, parse_offer
from voice_agent.transports.webrtc.signalling import (
    FRAGMENT_TYPE,
    OFFER_TYPE,
    RESUME_HEADER,
    Fragment,
    etag_matches,
    parse_fragment,
    parse_options,
    parse_resume_header,
)
from voice_agent.web import webrtc_described
from voice_agent.web.described import described
from voice_agent.web.problems import answer_refusal, problem_of
from voice_agent.web.scopes import needs, public

PATH: Final = "/v1/webrtc"
_CALL_METHODS: Final = "DELETE, GET, HEAD, OPTIONS, PATCH"
_ENDPOINT_METHODS: Final = "GET, HEAD, OPTIONS, POST"


@attrs.frozen(kw_only=True)
class OpenedCall:
    """A call that has been answered. ``key`` is the secret last part of its address."""

    key: str = attrs.field(repr=False)
    etag: str
    answer: str = attrs.field(repr=False)
    links: tuple[str, ...] = attrs.field(default=(), repr=False)
    """``Link`` header values that name ICE servers."""


class SignalledCall(Protocol):
    """An open call, as signalling sees it."""

    @property
    def etag(self) -> str:
        """The entity tag of its ICE session."""
        ...

    @property
    def username_fragment(self) -> str:
        """The caller's ICE user name fragment."""
        ...

    async def add_candidates(self, fragment: Fragment) -> None:
        """Try the candidates too; raises :class:`TooManyCandidatesError` when the call has had too many."""
        ...

    def end(self) -> None:
        """End the call in order: last words are recognised first."""
        ...


class WebRtcDesk(Protocol):
    """Admits and finds calls."""

    @property
    def policy(self) -> AddressPolicy:
        """Which candidates are taken."""
        ...

    @property
    def max_offer_bytes(self) -> int:
        """The largest body of a request."""
        ...

    @property
    def defaults(self) -> CallOptions:
        """The options of a caller who does not choose."""
        ...

    def admit(self, caller: Caller) -> Refusal | None:
        """Return why no call is taken now from the caller, or None; counts either."""
        ...

    async def open_call(
        self, offer: Offer, options: CallOptions, caller: Caller, resume: Resume | None
    ) -> OpenedCall:
        """Begin a call, or go on with one; raises :class:`CallRefusedError` and :class:`CallerError`."""
        ...

    def find(self, key: str, identity: Identity) -> SignalledCall | None:
        """Return the open call with the key, if it is this identity's."""
        ...


class CallRefusedError(Exception):
    """No call is taken now; ``refusal`` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.error.code)
        self.refusal = refusal


@attrs.frozen
class WebRtcRoutes:
    """The requests that a desk answers; :func:`create_webrtc_routes` gives them their addresses."""

    desk: WebRtcDesk

    async def begin(self) -> Response:
        """Answer an offer with 201: the answer, the call's address, its tag, and the ICE servers."""
        caller = Caller(_caller(), admitted(request.scope).address)
        try:
            resume = parse_resume_header(request.headers.get(RESUME_HEADER))
            caller = attrs.evolve(caller, resumes=None if resume is None else resume.session_id)
            if (refusal := self.desk.admit(caller)) is not None:
                return answer_refusal(refusal)
            text = await _body(OFFER_TYPE, self.desk.max_offer_bytes)
            options = parse_options(request.args.items(multi=True), self.desk.defaults)
            offer = parse_offer(text, self.desk.policy)
            opened = await self.desk.open_call(offer, options, caller, resume)
        except CallerError as error:
            return problem_of(error)
        except CallRefusedError as error:
            return answer_refusal(error.refusal)
        response = Response(opened.answer, status=HTTPStatus.CREATED, content_type=OFFER_TYPE)
        response.headers["Location"] = f"{PATH}/{opened.key}"
        response.headers["ETag"] = opened.etag
        response.headers["Cache-Control"] = "no-store"
        for link in opened.links:
            response.headers.add("Link", link)
        return response

    async def trickle(self, key: str) -> Response:
        """Take more of the caller's candidates: 204."""
        call = self.desk.find(key, _caller())
        if call is None:
            return _unknown()
        try:
            text = await _body(FRAGMENT_TYPE, self.desk.max_offer_bytes)
            _check_tag(request.headers.get("If-Match"), call.etag)
            fragment = parse_fragment(text, self.desk.policy)
            if fragment.username_fragment != call.username_fragment:
                raise IceRestartUnsupportedError(
                    "ICE restarts are not supported; end this call and begin another."
                )
            await call.add_candidates(fragment)
        except CallerError as error:
            return problem_of(error)
        return _empty(HTTPStatus.NO_CONTENT)

    async def hang_up(self, key: str) -> Response:
        """End the call: 200, at once; last words are recognised and told behind it."""
        call = self.desk.find(key, _caller())
        if call is None:
            return _unknown()
        call.end()
        return _empty(HTTPStatus.OK)

    async def look(self) -> Response:
        """Answer GET and HEAD with nothing."""
        return _empty(HTTPStatus.NO_CONTENT)

    async def look_at_call(self, key: str) -> Response:
        """Answer GET and HEAD with nothing, or 404."""
        return _unknown() if self.desk.find(key, _caller()) is None else _empty(HTTPStatus.NO_CONTENT)

    async def tell_options(self) -> Response:
        """Tell which methods there are, and what may be posted."""
        return _options(_ENDPOINT_METHODS, {"Accept-Post": OFFER_TYPE})

    async def tell_options_of_call(self, key: str) -> Response:  # noqa: ARG002 (an address tells nothing by itself)
        """Tell which methods there are; the same for every address, whether it is a call's or not."""
        return _options(_CALL_METHODS, {"Accept-Patch": FRAGMENT_TYPE})


def create_webrtc_routes(desk: WebRtcDesk) -> Blueprint:
    """Make the routes."""
    answers = WebRtcRoutes(desk)
    routes = Blueprint("webrtc", __name__)
    call_path = f"{PATH}/<key>"
    calls = needs(Scope.CALL)
    for path, method, view, mark, operation in (
        (PATH, "POST", answers.begin, calls, webrtc_described.BEGIN),
        (PATH, "GET", answers.look, public, webrtc_described.LOOK),
        (PATH, "OPTIONS", answers.tell_options, public, webrtc_described.OPTIONS),
        (call_path, "PATCH", answers.trickle, calls, webrtc_described.TRICKLE),
        (call_path, "DELETE", answers.hang_up, calls, webrtc_described.HANG_UP),
        (call_path, "GET", answers.look_at_call, calls, webrtc_described.LOOK_AT_CALL),
        (call_path, "OPTIONS", answers.tell_options_of_call, public, webrtc_described.OPTIONS_OF_CALL),
    ):
        marked = described(operation)(mark(view))
        routes.add_url_rule(
            path, f"{method} {path}", marked, methods=[method], provide_automatic_options=False
        )
    return routes


def _caller() -> Identity:
    """Return who sent the request; the routes that ask are not public."""
    identity = admitted(request.scope).identity
    if identity is None:
        raise UnauthenticatedError("Show a key or a token.")
    return identity


def _check_tag(if_match: str | None, etag: str) -> None:
    """Raise where ``If-Match`` is wrong (RFC 9725, section 4.3.3)."""
    if if_match is None:
        raise EtagRequiredError("Send the call's ETag in If-Match.", field="If-Match")
    if not etag_matches(if_match, etag):
        raise EtagMismatchError("If-Match is not the call's present ETag.", field="If-Match")


def _options(methods: str, headers: Mapping[str, str]) -> Response:
    response = _empty(HTTPStatus.NO_CONTENT)
    response.headers.update({"Allow": methods, **headers})
    return response


def _empty(status: HTTPStatus) -> Response:
    """Make an answer without a body; the empty text matters, for a missing one is sent by asyncio."""
    response = Response("", status=status)
    del response.headers["Content-Type"]
    return response


async def _body(content_type: str, max_bytes: int) -> str:
    """Return the request's text."""
    if request.mimetype != content_type:
        raise UnsupportedContentTypeError(f"the body must be {content_type}", field="Content-Type")
    try:
        body = cast("bytes", await request.get_data())
    except RequestEntityTooLarge:  # over the limit of every request
        body = b""
        is_too_large = True
    else:
        is_too_large = len(body) > max_bytes
    if is_too_large:
        raise BodyTooLargeError(f"the body is over the limit of {max_bytes} bytes")
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidSdpError("the body is not UTF-8") from None


def _unknown() -> Response:
    return problem_of(NotFoundError("There is no such call, or it has ended."))
