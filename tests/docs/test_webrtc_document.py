"""docs/webrtc.md lists every WebRTC setting that it speaks of, and every code of a refused request."""

import re
from pathlib import Path

import attrs

from voice_agent.core import errors, request_errors
from voice_agent.settings.schema import WebRtcSettings

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/webrtc.md").read_text()


def test_every_setting_is_explained_and_no_other() -> None:
    """An operator finds each setting of the section in the document."""
    named = set(re.findall(r"`webrtc\.(\w+)`", DOCUMENT))
    assert named == {field.name for field in attrs.fields(WebRtcSettings)}


def test_every_code_of_an_answer_is_listed() -> None:
    """What the routes answer stands in the table, and the other way round."""
    typed = {
        kind.code
        for kind in (
            errors.InvalidSdpError,
            errors.InvalidFieldError,
            errors.InvalidJsonError,
            errors.NotAnObjectError,
            errors.ResumeUnknownError,
            errors.ResumeTokenWrongError,
            errors.ResumeTokenUsedError,
            errors.ResumeForeignError,
            errors.ResumeExpiredError,
            errors.ResumeUnavailableError,
            errors.UnauthenticatedError,
            errors.ForbiddenError,
            request_errors.AmbiguousCredentialsError,
            request_errors.ForbiddenOriginError,
            request_errors.BodyTooLargeError,
            request_errors.EtagMismatchError,
            request_errors.EtagRequiredError,
            request_errors.IceRestartUnsupportedError,
            request_errors.MethodNotAllowedError,
            request_errors.NotFoundError,
            request_errors.UnsupportedContentTypeError,
            errors.UnsupportedMediaError,
            errors.NoCommonCodecError,
            errors.TooManyCandidatesError,
            request_errors.RateLimitedError,
            request_errors.TooManyCallsError,
            request_errors.TooManyFailuresError,
            request_errors.ServerOverloadedError,
        )
    }
    rows = re.findall(r"^\| (4\d\d|503) \| ([^|]*) \|", DOCUMENT, re.MULTILINE)
    listed = {code for _, codes in rows for code in re.findall(r"`(\w+)`", codes)}
    assert listed == typed | {"full", "draining"}
