"""Every HTTP error has a code of the error tree, whoever answers: a route, the framework, a handshake, the guard."""

import ast
import json
import re
from http import HTTPStatus
from pathlib import Path

import pytest
from quart import abort, request
from quart_trio import QuartTrio

from voice_agent.core import request_errors  # noqa: F401 - its classes are found below their root
from voice_agent.core.errors import VoiceAgentError
from voice_agent.observability.metrics import Metrics
from voice_agent.web.app import MAX_BODY_BYTES, Readiness, create_app
from voice_agent.web.scopes import public

PACKAGE = Path(__file__).parents[2] / "voice_agent"
ANSWERING = {"problem": 1, "refuse_handshake": None}
"""Functions that take a code as text: where it stands among the arguments; None for by name."""


def codes_of_the_tree(root: type[VoiceAgentError] = VoiceAgentError) -> set[str]:
    return {root.code}.union(*(codes_of_the_tree(kind) for kind in root.__subclasses__()))


def literal_codes() -> set[tuple[str, str]]:
    """Codes that are written out where an answer is made, with their files."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
                continue
            if node.func.id not in ANSWERING:
                continue
            place = ANSWERING[node.func.id]
            written = [word.value for word in node.keywords if word.arg == "code"]
            if place is not None and len(node.args) > place:
                written.append(node.args[place])
            found |= {(word.value, path.name) for word in written if isinstance(word, ast.Constant)}
    return found


def test_codes_that_are_written_out_are_of_the_tree() -> None:
    """A code that some line makes up is a code that nobody documents."""
    tree = codes_of_the_tree()
    assert literal_codes(), "nothing was looked at"
    assert {pair for pair in literal_codes() if pair[0] not in tree} == set()


def test_nobody_writes_problem_documents_by_hand() -> None:
    """There is one way to tell an HTTP error."""
    for path in PACKAGE.rglob("*.py"):
        if path.name != "problem.py":
            assert not re.search(r"about:blank|application/problem", path.read_text()), path


@pytest.fixture
def app() -> QuartTrio:
    app = create_app(metrics=Metrics(), readiness=lambda: Readiness(is_ready=True, detail={}))

    @app.post("/reads")
    @public
    async def reads() -> str:
        return str(len(await request.get_data()))

    @app.get("/aborts/<int:status>")
    @public
    async def aborts(status: int) -> str:
        abort(status)

    @app.get("/fails")
    @public
    async def fails() -> str:
        raise ZeroDivisionError

    @app.get("/typed/<int:number>/")
    @public
    async def typed(number: int) -> str:
        return str(number)

    return app


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/nowhere/\ud55c".encode().decode("latin-1"), 404, "not_found"),
        ("GET", "/typed/x/", 404, "not_found"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("BREW", "/healthz", 405, "method_not_allowed"),
        ("POST", "/reads", 413, "body_too_large"),
        ("GET", "/v1/ws", 401, "unauthenticated"),
        ("GET", "/metrics", 401, "unauthenticated"),
        ("GET", "/fails", 500, "internal_error"),
        *(
            ("GET", f"/aborts/{status}", status, code)
            for status, code in (
                (400, "bad_request"),
                (404, "not_found"),
                (405, "method_not_allowed"),
                (408, "body_timeout"),
                (413, "body_too_large"),
                (415, "unsupported_content_type"),
                (431, "headers_too_large"),
                (501, "transfer_coding"),
                (503, "unavailable"),
                (505, "http_version"),
            )
        ),
    ],
)
async def test_an_error_is_a_document_with_a_code(
    app: QuartTrio, method: str, path: str, status: int, code: str
) -> None:
    """Status, title, code and detail, whether our code, Quart or Werkzeug found the fault."""
    data = b"x" * (MAX_BODY_BYTES + 1) if method == "POST" else None
    answer = await app.test_client().open(path, method=method, data=data)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    told = json.loads(await answer.get_data())
    assert told == {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": told["detail"],
        "field": None,
    }
    assert told["detail"]
    assert "ZeroDivision" not in told["detail"]


@pytest.mark.parametrize("status", [409, 422, 418, 429, 500, 502, 504])
async def test_a_status_that_no_class_has_still_has_a_code(app: QuartTrio, status: int) -> None:
    """What a library makes up is told by the general code of its side, and with that code's status."""
    answer = await app.test_client().get(f"/aborts/{status}")
    told = json.loads(await answer.get_data())
    expected = (400, "bad_request") if status < 500 else (500, "internal_error")
    assert (answer.status_code, told["code"]) == expected
    assert told["status"] == answer.status_code


async def test_a_redirect_is_no_problem(app: QuartTrio) -> None:
    """The framework's redirect to an address with its slash passes as it is."""
    answer = await app.test_client().get("/typed/7")
    assert answer.status_code == 308
    assert answer.headers["Location"].endswith("/typed/7/")
