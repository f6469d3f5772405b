"""``POST /v1/tickets``: a ticket for a WebSocket that is about to be opened by somebody who can't set headers."""

import json
from http import HTTPStatus
from typing import Final, Protocol

from quart import Blueprint, Response, request

from voice_agent.access.admitted import admitted
from voice_agent.access.presented import TICKET_PARAMETER, TICKET_PROTOCOL
from voice_agent.core.errors import UnauthenticatedError
from voice_agent.core.identity import Identity, Scope
from voice_agent.settings.current import CurrentSettings
from voice_agent.web.scopes import needs

PATH: Final = "/v1/tickets"


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
    async def give_ticket() -> Response:
        who = admitted(request.scope)
        if who.identity is None:
            raise UnauthenticatedError("Show a key or a token.")
        ticket = office.issue_ticket(who.identity, address=who.address)
        body = {
            "ticket": ticket,
            "expires_in_seconds": current.now.access.ticket_seconds,
            "subprotocol": f"{TICKET_PROTOCOL}{ticket}",
            "query": f"{TICKET_PARAMETER}={ticket}",
        }
        response = Response(json.dumps(body), HTTPStatus.CREATED, content_type="application/json")
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes
