"""A real server that is loaded refuses new calls on both wires, says so where a load balancer looks, and takes them again."""

import contextlib
import http.client
import json
from typing import Any

import pytest
import trio

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def ask(
    server: Any, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, str | None, dict[str, Any]]:
    """Status, Retry-After, and what the body says."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request(method, path, body=body, headers=named)
        answer = connection.getresponse()
        told = {} if answer.status == 101 else json.loads(answer.read())
        return answer.status, answer.headers["retry-after"], told


async def test_a_loaded_server_refuses_the_next_call(start_server: Any, connect: Any) -> None:
    """With a first call that is taken to fill the workers: 503 `overloaded` for the second, and its turn comes."""
    server = start_server(
        admission__enabled=True, admission__expected_call_load=1.5, admission__min_refusing_seconds=0.5
    )
    assert ask(server, "/readyz")[0] == 200
    async with connect(server.url) as caller:
        await caller.send_message('{"type":"start"}')
        assert json.loads(await caller.get_message())["type"] == "ready"
        status, retry_after, problem = ask(server, "/v1/ws", **HANDSHAKE)
        assert (status, retry_after, problem["code"]) == (503, "5", "overloaded")
        status, retry_after, problem = ask(
            server, "/v1/webrtc", method="POST", body=b"garbage", Content_Type="application/sdp"
        )
        assert (status, retry_after, problem["code"]) == (503, "5", "overloaded")
        status, _, state = ask(server, "/readyz")
        assert (status, state["overloaded"], state["full"]) == (503, True, False)
        assert ask(server, "/healthz")[0] == 200
        # The call that runs is served as if nothing were.
        await caller.send_message('{"type":"ping","id":"1"}')
        assert json.loads(await caller.get_message())["id"] == "1"
        await caller.send_message('{"type":"stop"}')
    with trio.fail_after(60):
        while ask(server, "/v1/ws", **HANDSHAKE)[0] != 101:  # noqa: ASYNC110 (another process tells nobody)
            await trio.sleep(0.1)
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert '"admission_refusing"' in server.log()
    assert '"admission_resumed"' in server.log()
