"""Which web pages may use the server: the same-origin rule, and what the operator adds to it (CORS, Fetch standard).

A browser lets any page send requests and open WebSockets anywhere; it says in ``Origin`` which page it is. So a page of
a stranger is refused here, on both wires: it could use what the server allows to this machine, or to whoever the
browser's user is (cross-site request forgery, cross-site WebSocket hijacking).
"""

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Any, Final

import attrs

from voice_agent.access.client import Client
from voice_agent.access.refusal import Headers, Refusal
from voice_agent.core.origin import Origin
from voice_agent.core.request_errors import ForbiddenOriginError

ALLOWED_HEADERS: Final = (
    "Authorization, Content-Type, If-Match, traceparent, tracestate, Voice-Agent-Resume, X-API-Key"
)
EXPOSED_HEADERS: Final = "ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, WWW-Authenticate"
PREFLIGHT_SECONDS: Final = 600
"""How long a browser may keep what a preflight told; a change of the settings reaches it by then."""


class Standing(Enum):
    """What a request's ``Origin`` makes of it."""

    NO_PAGE = auto()
    """None is told: it comes from no web page, or from a plain link."""
    OWN = auto()
    """A page of this very server."""
    ALLOWED = auto()
    """A page of an origin that the operator allows."""
    FOREIGN = auto()
    """Any other, and what can't be read."""


@attrs.frozen
class AllowedOrigins:
    """The origins that may use the server beside its own."""

    origins: frozenset[Origin] = frozenset()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "AllowedOrigins":
        """Read them; raises ValueError."""
        return cls(frozenset(map(Origin.parse, texts)))

    def standing(self, scope: Mapping[str, Any], client: Client) -> Standing:
        """Judge the request of an ASGI scope."""
        told = [value for name, value in scope["headers"] if name == b"origin"]
        if not told:
            return Standing.FOREIGN if _is_embedded(scope) else Standing.NO_PAGE
        origin = _parse(told[0].decode("latin-1")) if len(told) == 1 else None
        if origin is None:
            return Standing.FOREIGN
        if origin in self.origins:
            return Standing.ALLOWED
        return Standing.OWN if origin == own_origin(client) else Standing.FOREIGN


def own_origin(client: Client) -> Origin | None:
    """Return what the server's own pages have for an origin, as the client sees it; None when it names no host."""
    return _parse(f"{client.scheme}://{client.host}")


def may_insist_on_tls(client: Client) -> bool:
    """Whether the answer may tell browsers to come back by TLS alone (RFC 6797).

    It came by TLS, the server's or a trusted proxy's; and the host is not this machine's own name, for browsers would
    refuse whatever else is developed there without TLS.
    """
    server = own_origin(client)
    return client.scheme == "https" and server is not None and not server.is_loopback


def is_preflight(scope: Mapping[str, Any]) -> bool:
    """Whether a browser asks beforehand what a page may send."""
    return (
        scope["type"] == "http"
        and scope["method"] == "OPTIONS"
        and any(name == b"access-control-request-method" for name, _ in scope["headers"])
    )


def cors_headers(scope: Mapping[str, Any], answer: Headers) -> Headers:
    """Return what the answer to an allowed page needs; a preflight is told the methods that the answer itself names."""
    origin = next(value for name, value in scope["headers"] if name == b"origin")
    headers = [(b"access-control-allow-origin", origin)]
    if not is_preflight(scope):
        return [*headers, (b"access-control-expose-headers", EXPOSED_HEADERS.encode())]
    methods = b", ".join(value for name, value in answer if name.lower() == b"allow")
    return [
        *headers,
        (b"access-control-allow-methods", methods),
        (b"access-control-allow-headers", ALLOWED_HEADERS.encode()),
        (b"access-control-max-age", str(PREFLIGHT_SECONDS).encode()),
    ]


def foreign() -> Refusal:
    """Return the answer to a stranger's page."""
    return Refusal(
        error=ForbiddenOriginError(
            "Pages of this origin may not use the server; its operator can allow it in access.allowed_origins.",
            field="Origin",
        )
    )


def _is_embedded(scope: Mapping[str, Any]) -> bool:
    """Whether a page of another site embeds the answer, as an image for instance: such requests have no ``Origin``.

    Browsers tell so in Fetch Metadata. A link that is followed, which is a navigation, is nobody's embedding.
    """
    told = {name: value for name, value in scope["headers"] if name in {b"sec-fetch-site", b"sec-fetch-mode"}}
    return (
        told.get(b"sec-fetch-site") in {b"cross-site", b"same-site"}
        and told.get(b"sec-fetch-mode") != b"navigate"
    )


def _parse(text: str) -> Origin | None:
    try:
        return Origin.parse(text)
    except ValueError:
        return None
