"""docs/admin.md lists every request of the administration with its scope, every filter, and figures that are true."""

import json
import re
from pathlib import Path

import attrs
import pytest

from voice_agent.core.identity import Scope
from voice_agent.session.registry import REMEMBERED_ENDED, REMEMBERED_SECONDS
from voice_agent.session.summary import SessionSummary
from voice_agent.session.tap import KEPT_EVENTS, MAX_LISTENERS
from voice_agent.web.event_stream import CUT_OFF, HEARTBEAT_SECONDS
from voice_agent.web.operations_routes import DrainBegun, create_operations_routes
from voice_agent.web.scopes import need_of
from voice_agent.web.session_routes import MAX_LIMIT, SessionQuery, create_session_routes

DOCUMENT = (Path(__file__).parents[2] / "docs/admin.md").read_text()


def test_every_request_stands_in_the_table_with_its_scope() -> None:
    """Method, address and scope are those of the code."""
    routes: dict[str, Scope | None] = {}
    for blueprint in (create_session_routes(None), create_operations_routes(None)):  # type: ignore[arg-type]
        state = Recorder(routes)
        for function in blueprint.deferred_functions:
            function(state)  # type: ignore[arg-type]
    documented = {
        request: Scope(scope)
        for request, scope in re.findall(r"^\| `([A-Z]+ /[^`]*)` \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    }
    assert documented == routes


@attrs.define
class Recorder:
    """Stands where a blueprint writes its routes."""

    routes: dict[str, Scope | None]

    def add_url_rule(
        self, path: str, endpoint: str, view: object, *, methods: list[str], **_: object
    ) -> None:
        [method] = methods
        self.routes[f"{method} {path.replace('<session_id>', '{id}')}"] = need_of(view)  # type: ignore[arg-type]


def test_every_filter_is_explained_and_no_other() -> None:
    """The query's parameters are those of the code."""
    table = DOCUMENT.split("| query parameter |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == [
        field.name for field in attrs.fields(SessionQuery)
    ]


def test_the_examples_have_the_members_that_are_sent() -> None:
    """A client can be written from the page."""
    page, drain = (json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL))
    assert list(page["sessions"][0]) == [field.name for field in attrs.fields(SessionSummary)]
    assert list(drain) == [field.name for field in attrs.fields(DrainBegun)]


@pytest.mark.parametrize(
    "words",
    [
        f"1 to {MAX_LIMIT}, {SessionQuery().limit} by default",
        f"the last {REMEMBERED_ENDED} are remembered",
        f"the last {KEPT_EVENTS} that are kept",
        f"At most {MAX_LISTENERS} listen",
        f"`{CUT_OFF}`",
        f"Each {HEARTBEAT_SECONDS:g} seconds",
    ],
)
def test_figures_in_the_prose_are_those_of_the_code(words: str) -> None:
    """A limit that changes in the code changes here too."""
    assert words in " ".join(DOCUMENT.split())
    assert REMEMBERED_SECONDS == 600
