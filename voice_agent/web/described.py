"""What a route takes and answers, stated at its view; ``openapi.py`` makes the API's description of it.

A view says :func:`described` in the same breath as who may call it (``scopes.py``), so that the description can't be
forgotten when the route changes: a test holds the two together.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final, TypeVar

import attrs

from voice_agent.core.errors import VoiceAgentError

JSON: Final = "application/json"

ViewT = TypeVar("ViewT", bound=Callable[..., Any])

_OPERATION: Final = "_voice_agent_operation"


@attrs.frozen(kw_only=True)
class Answer:
    """One way in which a route answers when it serves the request.

    ``body`` is the attrs class that is sent as JSON, a JSON schema (a dict), or None where there is no body.
    """

    why: str
    status: HTTPStatus = HTTPStatus.OK
    body: Any = None
    content_type: str = JSON
    headers: dict[str, str] = attrs.field(factory=dict)
    """Names of headers that matter, with what they are for."""


@attrs.frozen(kw_only=True)
class Header:
    """A request header that a route reads."""

    name: str
    why: str
    schema: dict[str, Any] = attrs.field(factory=lambda: {"type": "string"})
    is_required: bool = False


@attrs.frozen(kw_only=True)
class Body:
    """What a route reads of a request's body."""

    content_type: str
    why: str
    schema: dict[str, Any]
    example: str | None = None


@attrs.frozen(kw_only=True)
class Operation:
    """One method of one address."""

    summary: str
    tag: str
    answers: tuple[Answer, ...]
    errors: tuple[type[VoiceAgentError], ...] = ()
    """Errors of the route's own; those that any request can meet are added by ``openapi.py``."""
    query: type[Any] | None = None
    """An attrs class of :func:`voice_agent.web.query.parameter` fields."""
    headers: tuple[Header, ...] = ()
    body: Body | None = None


def described(operation: Operation) -> Callable[[ViewT], ViewT]:
    """State what a view takes and answers."""

    def mark(view: ViewT) -> ViewT:
        setattr(view, _OPERATION, operation)
        return view

    return mark


def operation_of(view: Callable[..., Any]) -> Operation | None:
    """Return what was stated; None for a view that says nothing."""
    found = getattr(view, _OPERATION, None)
    return found if isinstance(found, Operation) else None
