"""The HTTP application: the console page, health, readiness, metrics; problems are told as RFC 9457 documents."""

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, Final

import attrs
from quart import Blueprint, Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from voice_agent.core.errors import CallerError, VoiceAgentError
from voice_agent.core.identity import Scope
from voice_agent.core.request_errors import (
    MethodNotAllowedError,
    UnavailableError,
    UpgradeRequiredError,
    WebSocketVersionError,
    error_of_status,
)
from voice_agent.core.units import KIB
from voice_agent.observability.metrics import Metrics
from voice_agent.transports.websocket.endpoint import PATH as CALL_PATH
from voice_agent.web.console import create_console
from voice_agent.web.described import Answer, Operation, described
from voice_agent.web.openapi import create_openapi, encode_api
from voice_agent.web.problems import problem_of
from voice_agent.web.scopes import enforce_scopes, needs, public

MAX_BODY_BYTES: Final = 64 * KIB

_OBJECT: Final = {"type": "object"}
_HEALTH: Final = Operation(
    summary="See whether the process is alive.",
    tag="health",
    answers=(
        Answer(why="The event loop turns.", body={**_OBJECT, "properties": {"status": {"const": "ok"}}}),
    ),
)
_READINESS: Final = Operation(
    summary="See whether a new call would be taken.",
    tag="health",
    answers=tuple(
        Answer(
            why=why,
            status=status,
            body={
                **_OBJECT,
                "properties": {"ready": {"const": status is HTTPStatus.OK}},
                "required": ["ready"],
            },
        )
        for status, why in (
            (HTTPStatus.OK, "It would."),
            (HTTPStatus.SERVICE_UNAVAILABLE, "It would not; the members say why."),
        )
    ),
)
_METRICS: Final = Operation(
    summary="Read the metrics.",
    tag="health",
    answers=tuple(
        Answer(why="The metrics.", body={"type": "string"}, content_type=content_type)
        for content_type in ("text/plain", "application/openmetrics-text")
    ),
)
_CALL: Final = Operation(
    summary="Open a WebSocket call (RFC 6455); docs/protocol.md says what is spoken on it.",
    tag="calls",
    answers=(Answer(why="The call has begun.", status=HTTPStatus.SWITCHING_PROTOCOLS),),
    errors=(UpgradeRequiredError, WebSocketVersionError),
)


@attrs.frozen
class Readiness:
    """Whether the server takes calls, and why not."""

    is_ready: bool
    detail: dict[str, Any]


def create_app(
    *,
    metrics: Metrics,
    readiness: Callable[[], Readiness],
    routes: Sequence[Blueprint] = (),
    render_all: Callable[[str], Awaitable[tuple[bytes, str]]] | None = None,
) -> QuartTrio:
    """Make the application; ``readiness`` is asked at each ``GET /readyz`` and must not wait.

    ``routes`` are served beside the application's own. ``render_all`` takes the place of ``metrics.render`` where there
    are figures of more than this process.
    """
    # Quart would serve a folder of its own at /static, past the scopes; the page's files have routes of theirs.
    app = QuartTrio("voice_agent", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    for blueprint in (create_console(), create_openapi(lambda: description), *routes):
        app.register_blueprint(blueprint)

    @app.get("/healthz")
    @public
    @described(_HEALTH)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    @public
    @described(_READINESS)
    async def readyz() -> tuple[dict[str, Any], int]:
        state = readiness()
        return {"ready": state.is_ready, **state.detail}, 200 if state.is_ready else 503

    @app.get("/metrics")
    @needs(Scope.OBSERVE)
    @described(_METRICS)
    async def expose_metrics() -> Response:
        accept = request.headers.get("accept", "")
        body, content_type = await render_all(accept) if render_all else metrics.render(accept)
        return Response(body, content_type=content_type, headers={"vary": "accept"})

    @app.get(CALL_PATH)
    @needs(Scope.CALL)
    @described(_CALL)
    async def ask_for_websocket() -> Response:
        # Somebody tried the address in a browser or with curl; RFC 9110 section 15.5.22 wants the Upgrade header.
        # Who may not call gets what a handshake would get: a browser tells scripts nothing of a refused one.
        response = problem_of(UpgradeRequiredError("A call is a WebSocket; open it with a WebSocket client."))
        response.headers["upgrade"] = "websocket"
        return response

    @app.errorhandler(CallerError)
    @app.errorhandler(UnavailableError)
    async def tell_error(error: VoiceAgentError) -> Response:
        return problem_of(error)

    @app.errorhandler(HTTPException)
    async def tell_problem(error: HTTPException) -> Response:
        kind = error_of_status(error.code or HTTPStatus.INTERNAL_SERVER_ERROR)
        response = problem_of(kind(error.description or error.name))
        if kind is MethodNotAllowedError and error.response is None:  # RFC 9110: it names what is allowed
            response.headers.extend([(k, v) for k, v in error.get_headers() if k.lower() == "allow"])
        return response

    enforce_scopes(app)
    description = encode_api(app)
    return app
