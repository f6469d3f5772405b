"""WHIP without HTTP (RFC 9725): what stands in requests and responses, read and written. Pure.

``sdp.py`` judges offers, ``turn.py`` makes the credentials of ICE servers; here are the fragments of a trickling caller
(RFC 8840), the options of a call, and entity tags.
"""

import secrets
from collections.abc import Iterable
from typing import Final

import attrs

from voice_agent.core.commands import CallOptions, Resume
from voice_agent.core.errors import InvalidFieldError, InvalidSdpError
from voice_agent.core.strict_json import load_object
from voice_agent.transports.webrtc.candidates import AddressPolicy, judge_candidates
from voice_agent.transports.webrtc.sdp import attribute, check_credentials, split_lines
from voice_agent.transports.wire import parse_resume, parse_start

OFFER_TYPE: Final = "application/sdp"
FRAGMENT_TYPE: Final = "application/trickle-ice-sdpfrag"

RESUME_HEADER: Final = "Voice-Agent-Resume"
"""Holds the object ``resume`` of a ``start`` as JSON. It is a header because addresses are logged, and the token is a secret."""

LOCATION_BYTES: Final = 24
"""192 random bits: who has not been told an address does not find it."""

_OPTIONS: Final = ("language", "partials", "microphone")
_BOOLEANS: Final = {"true": True, "false": False}
_DEFAULT_OPTIONS: Final = CallOptions()
_NAME_CHARS: Final = 40


@attrs.frozen(kw_only=True)
class Fragment:
    """What a caller trickles: the ICE session it belongs to, and candidates."""

    username_fragment: str
    password: str = attrs.field(repr=False)
    candidates: tuple[str, ...]
    candidates_offered: int
    is_last: bool
    """Whether the caller says that no more candidates come."""


def parse_fragment(text: str, policy: AddressPolicy | None = None) -> Fragment:
    """Read an SDP fragment.

    Raises:
        InvalidSdpError: malformed, or without ICE credentials.
        TooManyCandidatesError: more candidates than are taken.
    """
    username_fragment: str | None = None
    password: str | None = None
    offered: list[str] = []
    is_last = False
    for kind, value in split_lines(text, "fragment"):
        if kind not in "am":
            raise InvalidSdpError(f"a fragment has no {kind}= lines", field=f"{kind}=")
        name, rest = attribute(value) if kind == "a" else ("", "")
        match name:
            case "ice-ufrag":
                username_fragment = username_fragment or rest
            case "ice-pwd":
                password = password or rest
            case "candidate":
                offered.append(rest)
            case "end-of-candidates":
                is_last = True
    username_fragment, password = check_credentials(username_fragment, password)
    candidates, _ = judge_candidates(offered, policy or AddressPolicy())
    return Fragment(
        username_fragment=username_fragment,
        password=password,
        candidates=candidates,
        candidates_offered=len(offered),
        is_last=is_last,
    )


def parse_options(pairs: Iterable[tuple[str, str]], defaults: CallOptions = _DEFAULT_OPTIONS) -> CallOptions:
    """Read a call's options from query parameters; as in ``start``, without the audio format, which is Opus.

    Raises:
        InvalidFieldError: a parameter is unknown, given twice, or of the wrong form.
    """
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name in fields:
            raise InvalidFieldError(
                f"parameter {name[:_NAME_CHARS]!r} is given twice", field=name[:_NAME_CHARS]
            )
        if name not in _OPTIONS:
            raise InvalidFieldError(
                f"parameter {name[:_NAME_CHARS]!r} is unknown; use {', '.join(_OPTIONS)}",
                field=name[:_NAME_CHARS],
            )
        if name == "partials" and value not in _BOOLEANS:
            raise InvalidFieldError("partials must be true or false", field=name)
        fields[name] = _BOOLEANS[value] if name == "partials" else value
    return parse_start(fields, defaults).options


def parse_resume_header(text: str | None) -> Resume | None:
    """Read which session a caller goes on with; None where there is no such header.

    Raises:
        InvalidJsonError: no JSON, or JSON that two readers could understand differently.
        NotAnObjectError: JSON, but no object.
        InvalidFieldError: a field is missing, unknown, of the wrong type or out of range.
    """
    return None if text is None else parse_resume(load_object(text))


def new_call_key() -> str:
    """Return the unguessable last part of a call's address."""
    return secrets.token_urlsafe(LOCATION_BYTES)


def new_etag() -> str:
    """Return a strong entity tag (RFC 9110, section 8.8.3) that names one ICE session."""
    return f'"{secrets.token_hex(8)}"'


def etag_matches(if_match: str, etag: str) -> bool:
    """Whether an ``If-Match`` header means the tag; ``*`` means any (RFC 9110, section 13.1.1)."""
    return any(item.strip() in {"*", etag} for item in if_match.split(","))
