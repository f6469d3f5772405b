"""docs/admin.md lists every request of the administration with its scope, every filter, and figures that are true."""

import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from voice_agent.core.identity import Scope
from voice_agent.session.registry import REMEMBERED_ENDED, REMEMBERED_SECONDS
from voice_agent.session.summary import SessionSummary
from voice_agent.session.tap import KEPT_EVENTS, MAX_LISTENERS
from voice_agent.web.event_stream import CUT_OFF, HEARTBEAT_SECONDS
from voice_agent.web.journal_routes import MAX_ENTRIES, EntryQuery, JournalQuery, create_journal_routes
from voice_agent.web.journal_routes import MAX_LIMIT as JOURNALS_AT_ONCE
from voice_agent.web.journal_views import KeptSession
from voice_agent.web.node_routes import NodeList, NodeSummary, create_node_routes
from voice_agent.web.operations_routes import DrainBegun, create_operations_routes
from voice_agent.web.scopes import need_of
from voice_agent.web.session_routes import MAX_LIMIT, SessionPage, SessionQuery, create_session_routes

DOCUMENT = (Path(__file__).parents[2] / "docs/admin.md").read_text()


def test_every_request_stands_in_the_table_with_its_scope() -> None:
    """Method, address and scope are those of the code."""
    routes: dict[str, Scope | None] = {}
    nobody: Any = None
    for blueprint in (
        create_session_routes(nobody),
        create_operations_routes(nobody),
        create_journal_routes(nobody),
        create_node_routes(nobody),
    ):
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
    """The queries' parameters are those of the code."""
    _, *tables = DOCUMENT.split("| query parameter |")
    for table, kind in zip(tables, (SessionQuery, JournalQuery), strict=True):
        named = re.findall(r"^\| `(\w+)` \|", table.split("\n\n")[0], re.MULTILINE)
        assert named == [field.name for field in attrs.fields(kind)]


def test_the_examples_have_the_members_that_are_sent() -> None:
    """A client can be written from the page."""
    page, kept, nodes, drain = (
        json.loads(text) for text in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)
    )
    assert list(page) == [field.name for field in attrs.fields(SessionPage)]
    assert list(nodes) == [field.name for field in attrs.fields(NodeList)]
    assert list(nodes["nodes"][0]) == [field.name for field in attrs.fields(NodeSummary)]
    assert list(page["sessions"][0]) == [field.name for field in attrs.fields(SessionSummary)]
    assert list(kept["journals"][0]) == [field.name for field in attrs.fields(KeptSession)]
    assert list(drain) == [field.name for field in attrs.fields(DrainBegun)]


@pytest.mark.parametrize(
    "words",
    [
        f"1 to {MAX_LIMIT}, {SessionQuery().limit} by default",
        f"1 to {JOURNALS_AT_ONCE}, {JournalQuery().limit} by default",
        f"`limit` entries (1 to {MAX_ENTRIES}, {EntryQuery().limit} by default)",
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
