"""``/v1/nodes``: the processes that keep their sessions in the same place, as this one hears of them."""

from typing import Final, Protocol

import attrs
from quart import Blueprint, Response

from voice_agent.cluster.beat import NodeState
from voice_agent.core.errors import ForbiddenError
from voice_agent.core.identity import Scope
from voice_agent.web.described import Answer, Operation, described
from voice_agent.web.json_answers import json_answer
from voice_agent.web.operations_routes import who_runs_the_server
from voice_agent.web.scopes import needs

NODES_PATH: Final = "/v1/nodes"


@attrs.frozen(kw_only=True)
class NodeSummary:
    """One node, by its last beat."""

    node: str
    is_self: bool
    """Whether it is the one that answers."""
    state: NodeState
    version: str
    calls: int
    capacity: int
    """Calls that it takes at once."""
    load: float
    """The share of its busiest workers' time that is taken, from 0."""
    age_seconds: float
    """How old the beat is."""
    address: str
    """Where other nodes reach it; empty where they can't, or by a socket of their machine."""


@attrs.frozen(kw_only=True)
class NodeList:
    """The nodes that are not gone, by name."""

    nodes: tuple[NodeSummary, ...]
    is_directory_away: bool
    """Whether nothing has been heard of other nodes for so long that they would be gone."""


class NodeDirectory(Protocol):
    """Knows the nodes."""

    def nodes(self) -> NodeList:
        """Return them as they were heard of last; does not wait."""
        ...


def create_node_routes(directory: NodeDirectory) -> Blueprint:
    """Make the route."""
    routes = Blueprint("nodes", __name__)

    @needs(Scope.OBSERVE)
    @described(
        Operation(
            summary="List the nodes that work as one with this one, and how they do.",
            tag="operations",
            answers=(Answer(why="The nodes.", body=NodeList),),
            errors=(ForbiddenError,),
        )
    )
    async def list_nodes() -> Response:
        who_runs_the_server()
        return json_answer(directory.nodes())

    routes.add_url_rule(NODES_PATH, f"GET {NODES_PATH}", list_nodes, methods=["GET"])
    return routes
