"""``/v1/drain`` and ``/v1/settings``: what concerns the process as a whole."""

from datetime import datetime
from http import HTTPStatus
from typing import Final, Protocol

import attrs
from quart import Blueprint, Response, request

from voice_agent.core.errors import ForbiddenError
from voice_agent.core.identity import Scope
from voice_agent.observability.audit import Outcome, audit
from voice_agent.settings.effective import EffectiveSettings
from voice_agent.web.described import Answer, Operation, described
from voice_agent.web.json_answers import json_answer
from voice_agent.web.scopes import needs
from voice_agent.web.sender import Sender, sender

DRAIN_PATH: Final = "/v1/drain"
SETTINGS_PATH: Final = "/v1/settings"
_TAG: Final = "operations"


@attrs.frozen(kw_only=True)
class DrainBegun:
    """The server is shutting down."""

    calls: int
    """Calls that are open, and may finish."""
    deadline: datetime
    """When those that still go on are ended."""


class ServerControl(Protocol):
    """The process, as somebody may look at it and stop it."""

    def begin_drain(self, who: Sender) -> DrainBegun:
        """Shut down as at SIGTERM, and return at once; asked again, it changes nothing."""
        ...

    def settings_in_force(self) -> EffectiveSettings:
        """Return the settings, redacted."""
        ...


@attrs.frozen
class OperationsRoutes:
    """The requests that concern the process; :func:`create_operations_routes` gives them their addresses."""

    control: ServerControl

    @described(
        Operation(
            summary="Shut the server down, as SIGTERM does: calls may finish within the grace time.",
            tag=_TAG,
            answers=(Answer(why="The drain has begun.", status=HTTPStatus.ACCEPTED, body=DrainBegun),),
        )
    )
    async def drain(self) -> Response:
        """Begin the drain."""
        return json_answer(self.control.begin_drain(who_runs_the_server()), HTTPStatus.ACCEPTED)

    @described(
        Operation(
            summary="Read the settings in force, each with its source; secrets are redacted.",
            tag=_TAG,
            answers=(Answer(why="The settings.", body=EffectiveSettings),),
        )
    )
    async def show_settings(self) -> Response:
        """Answer with the settings."""
        who_runs_the_server()
        return json_answer(self.control.settings_in_force())


def create_operations_routes(control: ServerControl) -> Blueprint:
    """Make the routes."""
    answers = OperationsRoutes(control)
    routes = Blueprint("operations", __name__)
    routes.add_url_rule(DRAIN_PATH, "POST /v1/drain", needs(Scope.ADMIN)(answers.drain), methods=["POST"])
    routes.add_url_rule(
        SETTINGS_PATH, "GET /v1/settings", needs(Scope.OBSERVE)(answers.show_settings), methods=["GET"]
    )
    return routes


def who_runs_the_server() -> Sender:
    """Return the sender.

    Raises:
        ForbiddenError: it belongs to a tenant, and what is asked for concerns all of them.
    """
    who = sender()
    if not who.identity.may_run_server:
        audit(
            actor=who.identity.key_id,
            action="run_server",
            outcome=Outcome.REFUSED,
            target=f"{request.method} {request.path}",
            address=who.address,
        )
        raise ForbiddenError(
            f"This concerns the whole server, and the tenant {who.identity.tenant!r} has calls in it only."
        )
    return who
