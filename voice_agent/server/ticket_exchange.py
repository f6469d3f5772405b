"""Tickets across nodes: a ticket is used up at the node that gave it, whichever node it is shown to.

So it works once, exactly: only one process ever decides. Where that one is away, the ticket is worth nothing.
"""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import time
from typing import Any, Final, Protocol

import attrs
import cattrs

from voice_agent.access.tickets import Ticket
from voice_agent.cluster.handles import Handles
from voice_agent.cluster.membership import Membership
from voice_agent.cluster.passage import HEADER, Passage, Signer
from voice_agent.cluster.passing import Couriers, Request
from voice_agent.core.request_errors import NodeAwayError

INTERNAL_TICKETS: Final = "/inside/tickets"
"""Where nodes use up each other's tickets; to anybody else there is nothing at this address."""

_METHOD: Final = "POST"
_HERE: Final = "inside"
"""Stands where a client's address would."""
_CONVERTER: Final = cattrs.Converter(unstruct_collection_overrides={frozenset: list})


class TicketDesk(Protocol):
    """Knows the tickets that this node gave."""

    def take_ticket(self, text: str) -> Ticket | None:
        """Use one up."""
        ...


@attrs.frozen
class TicketOffice:
    """Answers other nodes that were shown a ticket of this one."""

    _desk: TicketDesk

    async def answer(self, body: bytes, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        """Tell what the ticket was good for, which uses it up; 404 for none, and for one that was used."""
        ticket = self._desk.take_ticket(body.decode("latin-1"))
        told = b"" if ticket is None else json.dumps(_CONVERTER.unstructure(ticket)).encode()
        status = HTTPStatus.NOT_FOUND if ticket is None else HTTPStatus.OK
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(told)).encode())]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": told})


@attrs.frozen(kw_only=True)
class TicketExchange:
    """Uses up the tickets of other nodes."""

    handles: Handles
    signer: Signer | None
    membership: Membership
    couriers: Couriers
    now: Callable[[], float] = time

    async def redeem(self, text: str) -> Ticket | None:
        """Return what another node's ticket is good for; it is used up then. None for what is no such ticket.

        Raises:
            NodeAwayError: the node that gave it is not there.
            NodeSilentError: it does not answer; the ticket may be used up.
        """
        tag = self.handles.maker_of(text)
        if tag is None or self.signer is None:
            return None
        issuer = self.membership.find_by_tag(tag)
        if issuer is None:
            raise NodeAwayError("The node that gave the ticket is not there; get another ticket.")
        passage = Passage(
            to=issuer.node,
            via=(self.membership.node,),
            at=self.now(),
            address=_HERE,
            scheme="http",
            host=_HERE,
            came_by_proxy=False,
        )
        target = INTERNAL_TICKETS.encode()
        signed = self.signer.sign(passage, method=_METHOD, target=target)
        request = Request(
            method=_METHOD,
            target=target,
            headers=[(b"host", _HERE.encode()), (HEADER.encode(), signed.encode())],
            body=text.encode("latin-1"),
        )
        status, body = await self.couriers.ask(issuer, request)
        if status == HTTPStatus.NOT_FOUND:
            return None
        try:
            return _CONVERTER.structure(json.loads(body), Ticket)
        except (ValueError, TypeError, cattrs.BaseValidationError) as error:
            raise NodeAwayError("The node that gave the ticket does not believe this one.") from error
