"""What a request shows of itself, taken out of its ASGI scope, so that nobody behind can log it or pass it on."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote_plus

from voice_agent.access.authenticator import Credentials

TICKET_PROTOCOL: Final = "voice-agent.ticket."
"""A browser can't set headers on a WebSocket; it can offer subprotocols, and this one carries a ticket."""
TICKET_PARAMETER: Final = "ticket"

_SECRET_HEADERS: Final = frozenset({b"authorization", b"x-api-key"})
_BEARER: Final = re.compile(r"bearer +(?P<token>[A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)
"""RFC 6750, section 2.1; the scheme's case does not matter (RFC 9110, section 11.1)."""
_UNREADABLE: Final = ""
"""Stands for a credential that has not the form of one; nobody's secret is empty, so it is as wrong as any."""


class AmbiguousError(ValueError):
    """More than one credential is shown."""


def take_credentials(scope: Mapping[str, Any]) -> tuple[Credentials, dict[str, Any]]:
    """Return what is shown, and the scope without it.

    A ticket counts on a WebSocket handshake only. ``Authorization`` of another scheme than Bearer is not for us: a
    proxy before the server may have asked for it.

    Raises:
        AmbiguousError: more than one credential is shown, also where they are the same.
    """
    bearers = [_bearer(value) for name, value in scope["headers"] if name == b"authorization"]
    shown = [("bearer", token) for token in bearers if token is not None]
    shown += [("api_key", _text(value)) for name, value in scope["headers"] if name == b"x-api-key"]
    headers = [(name, value) for name, value in scope["headers"] if name not in _SECRET_HEADERS]
    cleared: dict[str, Any] = {**scope, "headers": headers}
    if scope["type"] == "websocket":
        offered = scope.get("subprotocols") or ()
        tickets = [name.removeprefix(TICKET_PROTOCOL) for name in offered if _is_ticket(name)]
        cleared["subprotocols"] = [name for name in offered if not _is_ticket(name)]
        cleared["headers"] = _without_tickets(headers)
        in_query, cleared["query_string"] = _take_from_query(scope.get("query_string", b""))
        shown += [("ticket", ticket) for ticket in (*tickets, *in_query)]
    if len(shown) > 1:
        raise AmbiguousError("more than one credential is shown")
    return Credentials(**dict(shown)), cleared


def _bearer(value: bytes) -> str | None:
    text = value.decode("latin-1")
    scheme = text.strip().partition(" ")[0]
    if scheme.lower() != "bearer":
        return None
    found = _BEARER.fullmatch(text.strip())
    return _UNREADABLE if found is None else found["token"]


def _text(value: bytes) -> str:
    return value.decode("ascii") if value.isascii() else _UNREADABLE


def _is_ticket(protocol: str) -> bool:
    return protocol.startswith(TICKET_PROTOCOL)


def _without_tickets(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, value in headers:
        if name == b"sec-websocket-protocol":
            pieces = [piece.strip() for piece in value.split(b",")]
            value = b", ".join(piece for piece in pieces if not piece.startswith(TICKET_PROTOCOL.encode()))  # noqa: PLW2901
        kept.append((name, value))
    return kept


def _take_from_query(query: bytes) -> tuple[list[str], bytes]:
    taken, kept = [], []
    for piece in query.split(b"&"):
        name, _, value = piece.partition(b"=")
        if unquote_plus(name.decode("latin-1")) == TICKET_PARAMETER:
            taken.append(unquote_plus(value.decode("latin-1")))
        else:
            kept.append(piece)
    return taken, b"&".join(kept)
