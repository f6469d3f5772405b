"""``POST /v1/tickets``: a ticket for a WebSocket that is about to be opened by somebody who can't set headers."""

from http import HTTPStatus
from typing import Final, Protocol

import attrs
from quart import Blueprint, Response, request

from voice_agent.access.admitted import admitted
from voice_agent.access.presented import TICKET_PARAMETER, TICKET_PROTOCOL
from voice_agent.core.errors import UnauthenticatedError
from voice_agent.core.identity import Identity, Scope
from voice_agent.settings.current import CurrentSettings
from voice_agent.web.described import Answer, Operation, described
from voice_agent.web.json_answers import json_answer
from voice_agent.web.scopes import needs

PATH: Final = "/v1/tickets"


@attrs.frozen(kw_only=True)
class Ticket:
    """What opens one WebSocket call."""

    ticket: str = attrs.field(repr=False)
    expires_in_seconds: float
    subprotocol: str = attrs.field(repr=False)
    """To be offered beside the protocol's own."""
    query: str = attrs.field(repr=False)
    """Or to be put into the address."""


class TicketOffice(Protocol):
    """Gives tickets."""

    def issue_ticket(self, identity: Identity, *, address: str) -> str:
        """Give one to somebody who is known."""
        ...


def create_ticket_routes(office: TicketOffice, current: CurrentSettings) -> Blueprint:
    """Make the route; the app has to be behind the door, which says who asks."""
    routes = Blueprint("tickets", __name__)

    @routes.post(PATH)
    @needs(Scope.CALL)
    @described(
        Operation(
            summary="Get a ticket, which opens one WebSocket call for somebody who can't set headers.",
            tag="calls",
            answers=(
                Answer(why="A ticket that works once, and soon.", status=HTTPStatus.CREATED, body=Ticket),
            ),
        )
    )
    async def give_ticket() -> Response:
        who = admitted(request.scope)
        if who.identity is None:
            raise UnauthenticatedError("Show a key or a token.")
        ticket = office.issue_ticket(who.identity, address=who.address)
        return json_answer(
            Ticket(
                ticket=ticket,
                expires_in_seconds=current.now.access.ticket_seconds,
                subprotocol=f"{TICKET_PROTOCOL}{ticket}",
                query=f"{TICKET_PARAMETER}={ticket}",
            ),
            HTTPStatus.CREATED,
        )

    return routes
