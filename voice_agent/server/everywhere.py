"""Everywhere: the list of sessions of all nodes, merged by the node that is asked.

Each node tells a page of its own, below the same cursor; the newest of all of them are the page. So a page is right
whichever node makes it, and a session that stays is never missed or told twice. Who does not answer in time is named.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import attrs
import structlog
import trio

from voice_agent.cluster.beat import Beat
from voice_agent.core.request_errors import NodeAwayError, NodeSilentError
from voice_agent.web.query import read_query
from voice_agent.web.session_cursor import Place, cursor_of, place_of
from voice_agent.web.session_routes import SessionQuery

MAX_ASKED: Final = 64
"""Nodes that are asked for one page; the others are named as silent."""

Ask = Callable[[Beat], Awaitable[tuple[int, bytes]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

log = structlog.get_logger(__name__)


@attrs.define
class Captured:
    """An answer of the application on this node, kept instead of sent."""

    start: Mapping[str, Any] = attrs.field(factory=dict)
    body: bytearray = attrs.field(factory=bytearray, repr=False)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Take a message of the application (ASGI)."""
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    @property
    def is_page(self) -> bool:
        """Whether it is what was asked for, and no problem."""
        return self.start.get("status") == HTTPStatus.OK

    async def pass_on(self, send: Send, body: bytes | None = None) -> None:
        """Send it, with another body where one is given."""
        told = bytes(self.body) if body is None else body
        headers = [
            (name, value) for name, value in self.start["headers"] if name.lower() != b"content-length"
        ]
        headers.append((b"content-length", str(len(told)).encode()))
        await send({**self.start, "headers": headers})
        await send({"type": "http.response.body", "body": told})


async def merged_page(own: bytes, query: bytes, others: Sequence[Beat], ask: Ask) -> bytes:
    """Return the page of all nodes, made of this node's own and of those that the others tell."""
    pages: list[dict[str, Any]] = [json.loads(own)]
    silent: list[str] = [other.node for other in others[MAX_ASKED:]]

    async def look(other: Beat) -> None:
        try:
            pages.append(_page(*await ask(other)))
        except (NodeAwayError, NodeSilentError, ValueError, KeyError, TypeError) as error:
            log.warning("node_silent", node=other.node, reason=str(error))
            silent.append(other.node)

    async with trio.open_nursery() as nursery:
        for other in others[:MAX_ASKED]:
            nursery.start_soon(look, other)
    limit = read_query(SessionQuery, parse_qsl(query.decode(), keep_blank_values=True)).limit
    found = sorted((session for page in pages for session in page["sessions"]), key=_place, reverse=True)
    has_more = len(found) > limit or any(page["next"] for page in pages)
    page = found[:limit]
    return json.dumps(
        {
            "sessions": page,
            "next": cursor_of(_place(page[-1])) if has_more and page else None,
            "silent_nodes": sorted(silent),
        }
    ).encode()


def _page(status: int, body: bytes) -> dict[str, Any]:
    """Return what another node told.

    Raises:
        ValueError: that is no page; so do KeyError and TypeError.
    """
    if status != HTTPStatus.OK:
        raise ValueError(f"it answers {status}")
    page: dict[str, Any] = json.loads(body)
    for session in page["sessions"]:
        _place(session)
    return {"sessions": page["sessions"], "next": page["next"]}


def _place(session: Mapping[str, Any]) -> Place:
    return place_of(datetime.fromisoformat(session["opened_at"]), session["id"])
