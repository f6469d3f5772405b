"""``voice-agent nodes``: a table for people, JSON for machines, the reason and an exit code where there is neither."""

import json
from functools import partial
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from voice_agent.cli import sessions_client
from voice_agent.cli.nodes_command import nodes

CLIENT = httpx.AsyncClient


def node(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "node": name,
        "is_self": False,
        "state": "open",
        "version": "1.2.3",
        "calls": 3,
        "capacity": 100,
        "load": 0.254,
        "age_seconds": 1.26,
        "address": "http://10.0.0.8:8080",
        **changes,
    }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the command against a server that answers as given."""

    def run_with(answer: httpx.Response, *arguments: str) -> Result:
        def serve(request: httpx.Request) -> httpx.Response:
            assert (request.method, request.url.path) == ("GET", "/v1/nodes")
            return answer

        transport = httpx.MockTransport(serve)
        monkeypatch.setattr(sessions_client.httpx, "AsyncClient", partial(CLIENT, transport=transport))
        return CliRunner().invoke(nodes, arguments)

    return run_with


def told(*found: dict[str, Any], is_directory_away: bool = False) -> httpx.Response:
    return httpx.Response(200, json={"nodes": list(found), "is_directory_away": is_directory_away})


def test_nodes_stand_in_a_table(run: Any) -> None:
    """A row each; who answers is marked; what a server says is no markup and moves no cursor."""
    done = run(told(node("a", is_self=True, address=""), node("b[red]\x1b[31m", state="draining", load="?")))
    assert done.exit_code == 0, done.output
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["NODE", "STATE", "CALLS", "OF", "LOAD", "HEARD", "VERSION", "ADDRESS"]
    assert first.split() == ["a", "open", "3", "100", "25%", "self", "1.2.3", "-"]
    assert "b[red]" in second
    assert "\x1b" not in second
    assert "1.3 s ago" in second
    assert done.stderr == ""


def test_nodes_for_machines(run: Any) -> None:
    """An object a line, as the server sent it; that the directory is away goes to standard error."""
    done = run(told(node("a"), node("b"), is_directory_away=True), "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [node("a"), node("b")]
    assert "away" in done.stderr


@pytest.mark.parametrize(("status", "code", "exit_code"), [(403, "forbidden", 77), (503, "closing", 69)])
def test_a_refusal_has_its_exit_code(run: Any, status: int, code: str, exit_code: int) -> None:
    """And a line that names the command."""
    answer = httpx.Response(
        status,
        json={"code": code, "detail": "Because."},
        headers={"content-type": "application/problem+json"},
    )
    done = run(answer)
    assert done.exit_code == exit_code
    assert done.stderr.startswith("voice-agent nodes: ")
