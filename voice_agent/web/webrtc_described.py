"""What the WebRTC signalling routes take and answer; ``webrtc_routes.py`` has the routes."""

from enum import StrEnum
from http import HTTPStatus
from typing import Final

import attrs

from voice_agent.core.commands import Microphone
from voice_agent.core.errors import (
    InvalidFieldError,
    InvalidJsonError,
    InvalidSdpError,
    NoCommonCodecError,
    NotAnObjectError,
    ResumeExpiredError,
    ResumeForeignError,
    ResumeTokenUsedError,
    ResumeTokenWrongError,
    ResumeUnavailableError,
    ResumeUnknownError,
    TooManyCandidatesError,
    UnsupportedMediaError,
)
from voice_agent.core.request_errors import (
    BodyTooLargeError,
    EtagMismatchError,
    EtagRequiredError,
    IceRestartUnsupportedError,
    NodeAwayError,
    NodeSilentError,
    ServerDrainingError,
    ServerFullError,
    TooManyCallsError,
    UnsupportedContentTypeError,
)
from voice_agent.transports.webrtc.signalling import FRAGMENT_TYPE, OFFER_TYPE, RESUME_HEADER
from voice_agent.web.described import Answer, Body, Header, Operation
from voice_agent.web.query import parameter

_TAG: Final = "webrtc"
ELSEWHERE: Final = (NodeAwayError, NodeSilentError)
"""What a request about a call can be answered with because another node has it."""
_EXAMPLE_OFFER: Final = "\r\n".join(
    [
        "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0",
        "a=mid:0", "a=sendonly", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2", "a=ice-ufrag:abcd",
        "a=ice-pwd:0123456789012345678901", "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:actpass", "",
    ]
)  # fmt: skip
_ETAG: Final = "The call's entity tag, for `If-Match`."
_LOCATION: Final = "The call's own address; who knows it can change and end the call."


class Language(StrEnum):
    """What can be understood."""

    EN = "en"


@attrs.frozen(kw_only=True)
class CallQuery:
    """The options of a call, as in the protocol's `start`."""

    language: Language = parameter(Language.EN, "Language of the speech.")
    partials: bool = parameter(
        None, "Whether `partial` messages are wanted; without it as the operator chose."
    )
    microphone: Microphone = parameter(
        Microphone.PROCESSED, "Whether echo, noise and level are taken care of already, as browsers do."
    )


BEGIN: Final = Operation(
    summary="Begin a call: WHIP (RFC 9725).",
    tag=_TAG,
    query=CallQuery,
    headers=(
        Header(
            name=RESUME_HEADER,
            why="Which session goes on behind a lost connection: the object `resume` of the protocol's `start`, as JSON.",
        ),
    ),
    body=Body(
        content_type=OFFER_TYPE,
        why="An SDP offer (RFC 8866).",
        schema={"type": "string"},
        example=_EXAMPLE_OFFER,
    ),
    answers=(
        Answer(
            why="The call has begun; this is the SDP answer.",
            status=HTTPStatus.CREATED,
            body={"type": "string"},
            content_type=OFFER_TYPE,
            headers={"Location": _LOCATION, "ETag": _ETAG},
        ),
    ),
    errors=(
        InvalidFieldError,
        InvalidJsonError,
        InvalidSdpError,
        NotAnObjectError,
        BodyTooLargeError,
        UnsupportedContentTypeError,
        UnsupportedMediaError,
        NoCommonCodecError,
        TooManyCandidatesError,
        TooManyCallsError,
        ServerFullError,
        ServerDrainingError,
        ResumeUnknownError,
        ResumeTokenWrongError,
        ResumeTokenUsedError,
        ResumeForeignError,
        ResumeExpiredError,
        ResumeUnavailableError,
    ),
)
TRICKLE: Final = Operation(
    summary="Add ICE candidates to a call.",
    tag=_TAG,
    headers=(Header(name="If-Match", why=_ETAG),),
    body=Body(
        content_type=FRAGMENT_TYPE, why="An SDP fragment (RFC 8840, section 9).", schema={"type": "string"}
    ),
    answers=(Answer(why="They are tried.", status=HTTPStatus.NO_CONTENT),),
    errors=(
        InvalidSdpError,
        BodyTooLargeError,
        UnsupportedContentTypeError,
        EtagRequiredError,
        EtagMismatchError,
        IceRestartUnsupportedError,
        TooManyCandidatesError,
        *ELSEWHERE,
    ),
)
HANG_UP: Final = Operation(
    summary="End a call: what was said is recognised and told, then it is closed.",
    tag=_TAG,
    answers=(Answer(why="Its end is decided."),),
    errors=ELSEWHERE,
)
LOOK: Final = Operation(
    summary="See that calls are taken here.",
    tag=_TAG,
    answers=(Answer(why="There is nothing to read.", status=HTTPStatus.NO_CONTENT),),
)
LOOK_AT_CALL: Final = Operation(
    summary="See whether a call is open.",
    tag=_TAG,
    answers=(Answer(why="It is; there is nothing to read.", status=HTTPStatus.NO_CONTENT),),
    errors=ELSEWHERE,
)
OPTIONS: Final = Operation(
    summary="See which methods there are.",
    tag=_TAG,
    answers=(
        Answer(
            why="The methods.",
            status=HTTPStatus.NO_CONTENT,
            headers={"Allow": "The methods.", "Accept-Post": "What may be posted."},
        ),
    ),
)
OPTIONS_OF_CALL: Final = Operation(
    summary="See which methods there are; the same for every address.",
    tag=_TAG,
    answers=(
        Answer(
            why="The methods.",
            status=HTTPStatus.NO_CONTENT,
            headers={"Allow": "The methods.", "Accept-Patch": "What a change may be."},
        ),
    ),
)
