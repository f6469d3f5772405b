"""The API's description is made from the routes: none is missing, none is made up, and what it refers to exists."""

import json
import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import attrs
import pytest
import schemathesis
from quart import Blueprint
from quart_trio import QuartTrio

from voice_agent.core import request_errors  # noqa: F401 - its classes are found below their root
from voice_agent.core.errors import VoiceAgentError
from voice_agent.core.identity import Scope
from voice_agent.observability.metrics import Metrics
from voice_agent.transports.webrtc.signalling import parse_options
from voice_agent.web.app import Readiness, create_app
from voice_agent.web.described import Answer, Operation, described
from voice_agent.web.journal_routes import create_journal_routes
from voice_agent.web.json_schema import Schemas
from voice_agent.web.openapi import describe_api
from voice_agent.web.operations_routes import create_operations_routes
from voice_agent.web.query import parameter
from voice_agent.web.scopes import need_of, needs, public
from voice_agent.web.session_routes import SessionQuery, create_session_routes
from voice_agent.web.ticket_routes import create_ticket_routes
from voice_agent.web.webrtc_described import CallQuery
from voice_agent.web.webrtc_routes import create_webrtc_routes


def make_app(*more: Blueprint) -> QuartTrio:
    anything: Any = None
    return create_app(
        metrics=Metrics(),
        readiness=lambda: Readiness(is_ready=True, detail={}),
        routes=[
            create_session_routes(anything),
            create_operations_routes(anything),
            create_journal_routes(anything),
            create_webrtc_routes(anything),
            create_ticket_routes(anything, anything),
            *more,
        ],
    )


@pytest.fixture(scope="module")
def app() -> QuartTrio:
    return make_app()


@pytest.fixture(scope="module")
def document(app: QuartTrio) -> dict[str, Any]:
    return describe_api(app)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_route_is_described_and_no_other(app: QuartTrio, document: dict[str, Any]) -> None:
    """Address by address and method by method the description is the URL map."""
    served = set()
    for rule in app.url_map.iter_rules():
        if rule.endpoint != "static":
            methods = set(rule.methods or ())
            written = methods if methods == {"OPTIONS"} else methods - {"HEAD", "OPTIONS"}
            path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
            served |= {(path, method.lower()) for method in written}
    assert {(path, method) for path, method, _ in operations(document)} == served
    assert ("/v1/sessions/{session_id}", "delete") in served


def test_who_may_call_is_described_as_it_is_enforced(app: QuartTrio, document: dict[str, Any]) -> None:
    """A public route needs nothing; any other its scope, by key or token."""
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        need = need_of(app.view_functions[rule.endpoint])
        for method in (rule.methods or set()) - {"HEAD"}:
            path = document["paths"][re.sub(r"<(\w+)>", r"{\1}", rule.rule)]
            if method.lower() in path:
                operation = path[method.lower()]
                expected = [] if need is None else [{"bearer": [need.value]}, {"api_key": [need.value]}]
                assert operation["security"] == expected
                assert ("401" in operation["responses"]) == (need is not None)


def test_what_is_referred_to_exists_and_is_used(document: dict[str, Any]) -> None:
    """No reference leads nowhere, and no component is left over."""
    kinds = {
        f"#/components/{kind}/{name}"
        for kind in ("schemas", "responses")
        for name in document["components"][kind]
    }
    assert set(references(document)) == kinds


def test_the_document_is_openapi(document: dict[str, Any]) -> None:
    """It holds to the specification's own schema."""
    schemathesis.openapi.from_dict(json.loads(json.dumps(document))).validate()


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    """Generated clients have a function for each."""
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))


def test_codes_of_problems_are_of_the_error_tree(document: dict[str, Any]) -> None:
    """Each status names the codes that it can come with."""

    def codes(kind: type[VoiceAgentError] = VoiceAgentError) -> dict[str, int]:
        found = {kind.code: int(kind.status)}
        for child in kind.__subclasses__():
            found |= codes(child)
        return found

    tree = codes()
    for response in document["components"]["responses"].values():
        [content] = response["content"].values()
        told = content["schema"]["allOf"][1]["properties"]
        for code in told["code"]["enum"]:
            assert tree[code] == told["status"]["const"]


def test_parameters_are_those_that_are_read(document: dict[str, Any]) -> None:
    """Names, bounds and defaults come from the class that reads them; WebRTC's from what its parser knows."""
    listed = {
        parameter["name"]: parameter["schema"]
        for parameter in document["paths"]["/v1/sessions"]["get"]["parameters"]
    }
    assert list(listed) == [field.name for field in attrs.fields(SessionQuery)]
    assert listed["limit"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    assert listed["opened_since"] == {"type": "string", "format": "date-time"}
    assert listed["state"] == {"$ref": "#/components/schemas/SessionState"}
    names = [field.name for field in attrs.fields(CallQuery)]
    values = {"language": "en", "partials": "true", "microphone": "raw"}
    assert parse_options([(name, values[name]) for name in names]).partials
    assert names == list(values)


async def test_everybody_can_read_it(app: QuartTrio, document: dict[str, Any]) -> None:
    """The description is public, and is what describe_api() returns."""
    answer = await app.test_client().get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert json.loads(await answer.get_data()) == document


def test_a_route_that_says_nothing_can_t_be_served() -> None:
    """An application with such a view can't be made, and the error says what to write."""
    silent = Blueprint("silent", __name__)

    @silent.get("/silent")
    @public
    async def view() -> str:
        return ""

    with pytest.raises(TypeError, match=r"/silent doesn't say .*@described"):
        make_app(silent)


class Colour(StrEnum):
    """What it looks like."""

    RED = "red"


@attrs.frozen
class Thing:
    """Something with ``parts``; see :class:`voice_agent.core.frames.AudioFrame`."""

    colour: Colour
    parts: tuple["Thing", ...]
    note: str | None
    size: float | None
    owner: "Thing | None"
    labels: dict[str, int]


def test_a_class_is_described_by_its_fields() -> None:
    """Text, numbers, choices, lists, maps, what may be null, and a class that holds itself."""
    schemas = Schemas()
    assert schemas.of(Thing) == {"$ref": "#/components/schemas/Thing"}
    assert schemas.components["Colour"] == {
        "type": "string",
        "enum": ["red"],
        "description": "What it looks like.",
    }
    thing = schemas.components["Thing"]
    assert thing["description"] == "Something with `parts`; see voice_agent.core.frames.AudioFrame."
    assert thing["required"] == ["colour", "parts", "note", "size", "owner", "labels"]
    itself = {"$ref": "#/components/schemas/Thing"}
    assert thing["properties"] == {
        "colour": {"$ref": "#/components/schemas/Colour"},
        "parts": {"type": "array", "items": itself},
        "note": {"type": ["string", "null"]},
        "size": {"type": ["number", "null"]},
        "owner": {"anyOf": [itself, {"type": "null"}]},
        "labels": {"type": "object", "additionalProperties": {"type": "integer"}},
    }


@pytest.mark.parametrize("kind", [bytes, set[int], tuple[int, str], dict[int, str], object, complex])
def test_what_has_no_json_is_refused(kind: Any) -> None:
    """A field that can't be described is noticed when the application is made, and not by a reader."""
    with pytest.raises(TypeError, match="no JSON schema"):
        Schemas().of(kind)


def test_two_classes_of_one_name_are_refused() -> None:
    """One would be described as the other."""
    other = attrs.make_class("Thing", {"x": attrs.field(type=int)})
    schemas = Schemas()
    schemas.of(Thing)
    with pytest.raises(TypeError, match="two classes are named Thing"):
        schemas.of(other)


def test_an_operation_says_all_there_is() -> None:
    """Answers of one status are told together, by their types; headers and queries stand among the parameters."""

    @attrs.frozen(kw_only=True)
    class Wanted:
        name: str = parameter("x", "Whose.", minimum=1, maximum=3, pattern="[a-z]+")

    routes = Blueprint("more", __name__)

    @routes.get("/more/<number>")
    @needs(Scope.OBSERVE)
    @described(
        Operation(
            summary="More.",
            tag="more",
            query=Wanted,
            answers=(
                Answer(why="It.", body={"type": "string"}, content_type="text/plain"),
                Answer(why="It.", body=Thing, headers={"ETag": "Its tag."}),
            ),
        )
    )
    async def view(number: str) -> str:
        return number

    more = describe_api(make_app(routes))["paths"]["/more/{number}"]["get"]
    assert more["parameters"] == [
        {
            "name": "number",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
        },
        {
            "name": "name",
            "in": "query",
            "description": "Whose.",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": 3,
                "pattern": "^[a-z]+$",
                "default": "x",
            },
        },
    ]
    assert more["responses"]["200"] == {
        "description": "It.",
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Thing"}},
        },
        "headers": {"ETag": {"description": "Its tag.", "schema": {"type": "string"}}},
    }
    assert {"401", "403", "404", "405"} <= more["responses"].keys()
