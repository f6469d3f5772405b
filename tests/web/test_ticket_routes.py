"""POST /v1/tickets: who may call gets a ticket, told how to use it; nobody keeps the answer."""

from collections.abc import Callable
from typing import Any

import pytest
from quart_trio import QuartTrio

from voice_agent.core.identity import Identity, Scope
from voice_agent.observability.metrics import Metrics
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import AccessSettings, Settings
from voice_agent.web.app import Readiness, create_app
from voice_agent.web.ticket_routes import create_ticket_routes

CALLER = Identity(key_id="kiosk", tenant="acme", scopes=frozenset({Scope.CALL}))
OBSERVER = Identity(key_id="grafana", tenant="acme", scopes=frozenset({Scope.OBSERVE}))


class Office:
    def __init__(self) -> None:
        self.asked: list[tuple[Identity, str]] = []

    def issue_ticket(self, identity: Identity, *, address: str) -> str:
        self.asked.append((identity, address))
        return "t0k3n"


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
def app(office: Office) -> QuartTrio:
    current = CurrentSettings(Settings(access=AccessSettings(ticket_seconds=12.5)))
    return create_app(
        metrics=Metrics(),
        readiness=lambda: Readiness(is_ready=True, detail={}),
        routes=[create_ticket_routes(office, current)],
    )


async def test_a_caller_gets_a_ticket_and_is_told_how_to_use_it(
    app: QuartTrio, office: Office, client_of: Callable[..., Any]
) -> None:
    """The answer holds the ticket as it stands in a subprotocol and in a query, and no cache keeps it."""
    answer = await client_of(app, CALLER).post("/v1/tickets")
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    assert await answer.get_json() == {
        "ticket": "t0k3n",
        "expires_in_seconds": 12.5,
        "subprotocol": "voice-agent.ticket.t0k3n",
        "query": "ticket=t0k3n",
    }
    assert [who for who, _ in office.asked] == [CALLER]


@pytest.mark.parametrize(("who", "status"), [(None, 401), (OBSERVER, 403)])
async def test_who_may_not_call_gets_no_ticket(
    app: QuartTrio, office: Office, client_of: Callable[..., Any], who: Identity | None, status: int
) -> None:
    """A ticket is for somebody who is known and may call."""
    assert (await client_of(app, who).post("/v1/tickets")).status_code == status
    assert office.asked == []


async def test_a_ticket_is_asked_for_by_post_alone(app: QuartTrio, client_of: Callable[..., Any]) -> None:
    """A link or an image must not make tickets."""
    assert (await client_of(app, CALLER).get("/v1/tickets")).status_code == 405
