"""``/openapi.json``: the API's description (OpenAPI 3.1), made from the routes themselves.

Addresses and methods come from the application's URL map, who may call from ``scopes.py``, parameters and answers from
``described.py``. What every request can meet (too large, too slow, too many, no such address) is added here.
"""

import json
import re
import typing
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Final

import attrs
from quart import Blueprint, Quart, Response
from werkzeug.routing import Rule

from voice_agent.core.errors import (
    ForbiddenError,
    InternalError,
    UnauthenticatedError,
    VoiceAgentError,
)
from voice_agent.core.identity import Scope
from voice_agent.core.problem import NO_TYPE, PROBLEM_TYPE
from voice_agent.core.request_errors import (
    AmbiguousCredentialsError,
    BodyTimeoutError,
    BodyTooLargeError,
    ForbiddenOriginError,
    HeadersTooLargeError,
    MethodNotAllowedError,
    NotFoundError,
    RateLimitedError,
    RequestError,
    ServerClosingError,
    TokenKeysUnavailableError,
    TooManyFailuresError,
    UnavailableError,
)
from voice_agent.web.described import JSON, Answer, Operation, described, operation_of
from voice_agent.web.json_schema import Schema, Schemas, parameter_schema
from voice_agent.web.scopes import need_of, public

PATH: Final = "/openapi.json"
OPENAPI_VERSION: Final = "3.1.0"

_AUTOMATIC: Final = frozenset({"HEAD", "OPTIONS"})
"""Methods that the framework adds to what a route says."""

_ALWAYS: Final[tuple[type[VoiceAgentError], ...]] = (
    RequestError,
    AmbiguousCredentialsError,
    ForbiddenOriginError,
    BodyTimeoutError,
    BodyTooLargeError,
    RateLimitedError,
    HeadersTooLargeError,
    InternalError,
    UnavailableError,
    ServerClosingError,
)
"""What a request can be answered with at any address."""
_BEHIND_A_KEY: Final[tuple[type[VoiceAgentError], ...]] = (
    UnauthenticatedError,
    ForbiddenError,
    TooManyFailuresError,
    TokenKeysUnavailableError,
)
"""What it can be answered with besides, where a scope is needed."""

_PROBLEM: Final = "Problem"
_SECURITY: Final[dict[str, Schema]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT (RFC 6750)."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}


def create_openapi(document: Callable[[], bytes]) -> Blueprint:
    """Make the route; ``document`` is asked at each request, since the routes are not all there yet."""
    routes = Blueprint("openapi", __name__)

    @routes.get(PATH)
    @public
    @described(
        Operation(
            summary="Read this description.",
            tag="operations",
            answers=(Answer(why="The OpenAPI document.", body={"type": "object"}),),
        )
    )
    async def show() -> Response:
        return Response(document(), content_type=JSON, headers={"Cache-Control": "no-cache"})

    return routes


def describe_api(app: Quart) -> dict[str, Any]:
    """Return the OpenAPI document of an application.

    Raises:
        TypeError: a view doesn't say what it takes and answers.
    """
    writer = _Writer()
    paths: dict[str, dict[str, Any]] = {}
    for rule, view in sorted(_rules(app), key=lambda pair: pair[0].rule):
        operation = operation_of(view)
        if operation is None:
            raise TypeError(
                f"the view of {rule.rule} doesn't say what it takes and answers: put "
                "@described(Operation(…)) of voice_agent.web.described below its scope"
            )
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - _automatic(rule)):
            paths.setdefault(path, {})[method.lower()] = writer.write(
                rule, method, operation, need_of(view), path
            )
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "voice_agent",
            "version": version("voice-agent"),
            "description": "Calls over WebRTC, and what operators see and do. HEAD is answered where GET is. The "
            "messages of a WebSocket call are described in docs/protocol.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted({**writer.schemas.components, _PROBLEM: _problem_schema()}.items())),
            "responses": dict(sorted(writer.problems.items())),
            "securitySchemes": _SECURITY,
        },
    }


def encode_api(app: Quart) -> bytes:
    """Return the document as it is sent."""
    return json.dumps(describe_api(app), ensure_ascii=False, separators=(",", ":")).encode()


def _rules(app: Quart) -> Iterator[tuple[Rule, Callable[..., Any]]]:
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static":
            yield rule, app.view_functions[rule.endpoint]


def _automatic(rule: Rule) -> frozenset[str]:
    """Return the methods that nobody wrote down for a rule; a rule for OPTIONS alone was written down."""
    return frozenset() if rule.methods == {"OPTIONS"} else _AUTOMATIC


class _Writer:
    """Writes operations, and collects the schemas that they refer to."""

    def __init__(self) -> None:
        self.schemas = Schemas()
        self.problems: dict[str, dict[str, Any]] = {}

    def write(
        self, rule: Rule, method: str, operation: Operation, need: Scope | None, path: str
    ) -> dict[str, Any]:
        arguments = sorted(rule.arguments)
        written: dict[str, Any] = {
            "operationId": _operation_id(method, path),
            "summary": operation.summary,
            "tags": [operation.tag],
            "security": [] if need is None else [{name: [need.value]} for name in _SECURITY],
            "responses": self._responses(
                operation, [*self._errors(operation, need, has_arguments=bool(arguments))]
            ),
        }
        parameters = [*self._path_parameters(arguments), *self._query(operation), *self._headers(operation)]
        if parameters:
            written["parameters"] = parameters
        if operation.body is not None:
            content: dict[str, Any] = {"schema": operation.body.schema}
            if operation.body.example is not None:
                content["example"] = operation.body.example
            written["requestBody"] = {
                "description": operation.body.why,
                "required": True,
                "content": {operation.body.content_type: content},
            }
        return written

    def _errors(
        self, operation: Operation, need: Scope | None, *, has_arguments: bool
    ) -> Iterator[type[VoiceAgentError]]:
        yield from operation.errors
        yield from _ALWAYS
        if need is not None:
            yield from _BEHIND_A_KEY
        if has_arguments:
            # What stands in the address may lead nowhere, or to another route.
            yield from (NotFoundError, MethodNotAllowedError)

    def _responses(self, operation: Operation, errors: Iterable[type[VoiceAgentError]]) -> dict[str, Any]:
        responses: dict[str, Any] = {}
        for answer in operation.answers:
            response = responses.setdefault(str(int(answer.status)), {"description": answer.why})
            if answer.body is not None:
                response.setdefault("content", {})[answer.content_type] = {
                    "schema": self.schemas.of(answer.body)
                }
            if answer.headers:
                response["headers"] = {
                    name: {"description": why, "schema": {"type": "string"}}
                    for name, why in answer.headers.items()
                }
        codes: dict[int, set[str]] = {}
        for error in errors:
            codes.setdefault(int(error.status), set()).add(error.code)
        for status, told in codes.items():
            problem = self._problem(status, sorted(told))
            if str(status) in responses:
                # This route also answers so when all is well.
                responses[str(status)]["content"] |= problem["content"]
            else:
                name = ".".join(sorted(told))
                self.problems[name] = problem
                responses[str(status)] = {"$ref": f"#/components/responses/{name}"}
        return dict(sorted(responses.items()))

    def _problem(self, status: int, codes: list[str]) -> dict[str, Any]:
        told = {"properties": {"status": {"const": status}, "code": {"enum": codes}}}
        schema = {"allOf": [{"$ref": f"#/components/schemas/{_PROBLEM}"}, told]}
        return {
            "description": HTTPStatus(status).phrase,
            "content": {PROBLEM_TYPE: {"schema": schema}},
        }

    def _path_parameters(self, arguments: Iterable[str]) -> Iterator[dict[str, Any]]:
        for name in arguments:
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}

    def _query(self, operation: Operation) -> Iterator[dict[str, Any]]:
        if operation.query is None:
            return
        annotations = typing.get_type_hints(operation.query)
        for field in attrs.fields(operation.query):
            yield {
                "name": field.name,
                "in": "query",
                "description": field.metadata["why"],
                "schema": parameter_schema(
                    self.schemas, annotations[field.name], field.metadata, field.default
                ),
            }

    def _headers(self, operation: Operation) -> Iterator[dict[str, Any]]:
        for header in operation.headers:
            yield {
                "name": header.name,
                "in": "header",
                "description": header.why,
                "required": header.is_required,
                "schema": header.schema,
            }


def _operation_id(method: str, path: str) -> str:
    """Return a name for code generators, ``get_v1_sessions_id`` for one."""
    words = re.findall(r"\w+", path) or ["root"]
    return "_".join([method.lower(), *words])


def _problem_schema() -> Schema:
    return {
        "type": "object",
        "description": "What was wrong (RFC 9457). Programs branch on `code`; docs/errors.md lists them all.",
        "properties": {
            "type": {"const": NO_TYPE},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string"},
            "detail": {"type": "string"},
            "field": {"type": ["string", "null"]},
        },
        "required": ["type", "title", "status", "code", "detail", "field"],
    }
