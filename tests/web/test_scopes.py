"""What a route needs is stated at the route, and refused by default."""

from collections.abc import Callable
from typing import Any

import pytest
from quart_trio import QuartTrio

from voice_agent.core.errors import UnauthenticatedError
from voice_agent.core.identity import Identity, Scope
from voice_agent.core.request_errors import TooManyFailuresError, UnavailableError
from voice_agent.web.scopes import enforce_scopes, needs, public


def identity(*scopes: Scope) -> Identity:
    return Identity(key_id="k1", tenant="t1", scopes=frozenset(scopes))


def app() -> QuartTrio:
    app = QuartTrio("voice_agent", static_folder=None)

    @app.get("/open")
    @public
    async def is_open() -> str:
        return "open"

    @app.get("/calls/<name>")
    @needs(Scope.CALL)
    async def calls(name: str) -> str:
        return name

    enforce_scopes(app)
    return app


@pytest.mark.parametrize(
    ("path", "who", "status", "challenge"),
    [
        ("/open", None, 200, None),
        ("/open", identity(), 200, None),
        ("/calls/a", None, 401, 'Bearer realm="voice_agent"'),
        (
            "/calls/a",
            identity(Scope.ADMIN),
            403,
            'Bearer realm="voice_agent", error="insufficient_scope", scope="call"',
        ),
        ("/calls/a", identity(Scope.CALL), 200, None),
        ("/nowhere", None, 404, None),
    ],
)
async def test_who_may_pass(
    client_of: Callable[..., Any], path: str, who: Identity | None, status: int, challenge: str | None
) -> None:
    """Public routes let everybody in, others who has the scope; 401 and 403 tell how to come in (RFC 6750)."""
    answer = await client_of(app(), who).get(path)
    assert answer.status_code == status
    assert answer.headers.get("WWW-Authenticate") == challenge


@pytest.mark.parametrize(
    ("fault", "status", "headers"),
    [
        (
            UnauthenticatedError("no"),
            401,
            {"WWW-Authenticate": 'Bearer realm="voice_agent", error="invalid_token"'},
        ),
        (TooManyFailuresError("no", retry_after_seconds=6.2), 429, {"Retry-After": "7"}),
        (UnavailableError("no"), 503, {"Retry-After": "5"}),
    ],
)
async def test_who_showed_something_that_makes_them_nobody_is_told_so(
    client_of: Callable[..., Any], fault: Any, status: int, headers: dict[str, str]
) -> None:
    """The fault of the credentials is the answer; a public route serves them like everybody."""
    client = client_of(app(), None, fault=fault)
    answer = await client.get("/calls/a")
    assert answer.status_code == status
    assert (await answer.get_json(force=True))["code"] == fault.code
    assert {name: answer.headers[name] for name in headers} == headers
    assert (await client.get("/open")).status_code == 200


async def test_which_methods_there_are_is_told_to_everybody(client_of: Callable[..., Any]) -> None:
    """A browser asks beforehand and can't show a key then (Fetch standard, CORS preflight)."""
    answer = await client_of(app(), None).options("/calls/a")
    assert answer.status_code == 200
    assert {"GET", "HEAD", "OPTIONS"} == set(answer.headers["Allow"].split(", "))


async def test_a_request_that_passed_no_door_is_nobody_s() -> None:
    """Without the door's word a route with a scope answers 401."""
    assert (await app().test_client().get("/calls/a")).status_code == 401


async def test_a_route_that_says_nothing_is_refused_at_the_start() -> None:
    """An application with such a view can't be made."""
    silent = QuartTrio("voice_agent", static_folder=None)

    @silent.get("/silent")
    async def view() -> str:
        return ""

    with pytest.raises(TypeError, match="neither public"):
        enforce_scopes(silent)
