"""The HTTP application, without a server: what a load balancer and an SRE get."""

import json

import pytest
from quart import request
from quart_trio import QuartTrio

from voice_agent.observability.metrics import Metrics
from voice_agent.web.app import MAX_BODY_BYTES, Readiness, create_app
from voice_agent.web.scopes import public

pytestmark = pytest.mark.usefixtures("everybody")


def app(*, is_ready: bool = True) -> QuartTrio:
    return create_app(
        metrics=Metrics(), readiness=lambda: Readiness(is_ready, {"draining": not is_ready, "calls": 3})
    )


async def test_alive() -> None:
    """The event loop turns: 200."""
    answer = await app().test_client().get("/healthz")
    assert answer.status_code == 200
    assert await answer.get_json() == {"status": "ok"}


async def test_ready_and_not() -> None:
    """200 while calls are taken, else 503; the body says why."""
    answer = await app().test_client().get("/readyz")
    assert answer.status_code == 200
    answer = await app(is_ready=False).test_client().get("/readyz")
    assert answer.status_code == 503
    assert await answer.get_json() == {"ready": False, "draining": True, "calls": 3}


async def test_metrics_are_in_the_text_format() -> None:
    """Prometheus can scrape it."""
    answer = await app().test_client().get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"voice_agent_active_sessions 0.0" in await answer.get_data()


async def test_problems_are_documents() -> None:
    """404, 405 and 413 are RFC 9457 problems, with no word about the inside; 405 says what is allowed."""
    web = app()

    @web.post("/reads")
    @public
    async def reads() -> str:
        return str(len(await request.get_data()))

    client = web.test_client()
    answer = await client.get("/nowhere")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert json.loads(await answer.get_data())["status"] == 404
    answer = await client.post("/healthz")
    assert answer.status_code == 405
    assert "GET" in answer.headers["allow"]
    answer = await client.post("/reads", data=b"x" * MAX_BODY_BYTES)
    assert (answer.status_code, await answer.get_data()) == (200, str(MAX_BODY_BYTES).encode())
    answer = await client.post("/reads", data=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_call_without_an_upgrade_is_told_what_it_needs() -> None:
    """Who opens the call's address in a browser does not read that it does not exist."""
    answer = await app().test_client().get("/v1/ws")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "WebSocket client" in json.loads(await answer.get_data())["detail"]


async def test_a_defect_is_a_problem_without_a_trace() -> None:
    """Whatever a route raises, the caller gets 500 and no stack trace."""
    broken = create_app(metrics=Metrics(), readiness=lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    answer = await broken.test_client().get("/readyz")
    assert answer.status_code == 500
    assert b"ZeroDivision" not in await answer.get_data()


@pytest.mark.parametrize("path", ["/static/x", "/static/../app.py", "/static/"])
async def test_the_framework_serves_no_folder_of_its_own(path: str) -> None:
    """What no route of ours serves does not exist."""
    assert (await app().test_client().get(path)).status_code == 404
