"""Redaction: secrets never reach a log line, whoever wrote it.

Two nets. Values go by the name of their key: ``authorization``, anything that ends in ``_secret``. What hides inside
of other text, a message of a library or an address with its query, goes by its shape. The nets are wide on purpose: a
harmless value lost is cheaper than a key told. They are the second line of defence; the first is not to log secrets.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import structlog

HIDDEN: Final = "[redacted]"

SECRET_KEYS: Final = frozenset(
    {
        "access_token",
        "api_key",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "jwt",
        "passphrase",
        "password",
        "private_key",
        "proxy_authorization",
        "sec_websocket_protocol",
        "secret",
        "set_cookie",
        "ticket",
        "token",
        "x_api_key",
    }
)
SECRET_ENDINGS: Final = (
    "_secret",
    "_token",
    "_password",
    "_ticket",
    "_credential",
    "_api_key",
    "_private_key",
)
"""Of a key, written with underscores and in lower case, plural or not."""

SPOKEN_KEYS: Final = frozenset({"text", "transcript", "words"})
"""What was said; shown only where the operator chose so."""

_SECRET_TEXT: Final = (
    # Authorization schemes: RFC 6750, RFC 7617, RFC 7616.
    re.compile(r"\b((?:Bearer|Basic|Digest)\s+)[^\s,;\"']+", re.IGNORECASE),
    # A parameter of a query (percent-encoded or not) or a form, a header, or a key with its value in JSON or a repr.
    re.compile(
        r"((?:(?<![a-z_-])|(?<=%[0-9A-F]{2}))"
        r"(?:access_token|api[-_]?key|x-api-key|client_secret|credential|password|secret|ticket|token)"
        r"[\"']?(?:=|\s*:\s*|%3D)[\"']?)[^\s&;,\"'#]+",
        re.IGNORECASE,
    ),
    # A compact JWS (RFC 7515, section 7.1): its header is JSON, so it begins with base64url of '{"'.
    re.compile(r"()\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"),
    # Our own API keys; their id is no secret, and says whose it was.
    re.compile(r"\b(va_[A-Za-z0-9._-]{1,64}_)[0-9a-f]{32,}"),
    # A ticket as a browser shows it: a subprotocol of a WebSocket handshake.
    re.compile(r"\b(voice-agent\.ticket\.)[^\s,;\"']+"),
    # User information of a URL (RFC 3986, section 3.2.1).
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@]+(?=@)", re.IGNORECASE),
    # PEM.
    re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----)[^-]*"),
)

_MAX_DEPTH: Final = 32
"""Deeper than that a log line holds nothing that anybody would miss."""


def is_secret_key(key: str) -> bool:
    """Whether a value under that key is a secret."""
    name = key.lower().replace("-", "_")
    singular = name.removesuffix("s")
    return name in SECRET_KEYS or singular in SECRET_KEYS or singular.endswith(SECRET_ENDINGS)


def redacted_text(text: str) -> str:
    """Return the text without what has the shape of a secret."""
    for shape in _SECRET_TEXT:
        text = shape.sub(rf"\1{HIDDEN}", text)
    return text


def redacted(value: Any, *, hide_spoken: bool = True, depth: int = 0) -> Any:
    """Return a copy of ``value``, as JSON can hold it, without secrets; what JSON can't hold becomes its ``repr``."""
    if isinstance(value, bool | int | float | None):
        return value
    if isinstance(value, str):
        return redacted_text(value)
    if depth >= _MAX_DEPTH:
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            str(key): HIDDEN
            if _is_hidden(str(key), inner, hide_spoken=hide_spoken)
            else redacted(inner, hide_spoken=hide_spoken, depth=depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(inner, hide_spoken=hide_spoken, depth=depth + 1) for inner in value]
    return redacted_text(repr(value))


def _is_hidden(key: str, value: Any, *, hide_spoken: bool) -> bool:
    # How many there are, or that there is none, is no secret.
    if value is None or isinstance(value, bool | int | float):
        return False
    return is_secret_key(key) or (hide_spoken and key in SPOKEN_KEYS)


class Redaction:
    """A structlog processor; it stands last before the rendering, so that traces pass it too."""

    def __init__(self, *, hide_spoken: bool) -> None:
        self._hide_spoken = hide_spoken

    def __call__(
        self, _logger: structlog.typing.WrappedLogger, _name: str, line: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        """Return the line without secrets."""
        clean: dict[str, Any] = redacted(line, hide_spoken=self._hide_spoken)
        return clean
