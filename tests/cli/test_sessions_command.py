"""`voice-agent sessions` against servers of every kind: what it asks, what it says, and what it exits with."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from voice_agent.cli import exit_codes, sessions_client, sessions_follow
from voice_agent.cli.sessions_command import sessions_group

Answer = Callable[[httpx.Request], httpx.Response]
ID = "b1946ac92492d2347c6235b4d2611184"
CLIENT = httpx.AsyncClient


class Server:
    """Answers requests one after the other, and keeps them."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command against a server that answers as given."""
    monkeypatch.setattr(sessions_follow, "FIRST_PAUSE_SECONDS", 0.001)

    def run_with(server: Server, *arguments: str, env: dict[str, str] | None = None) -> Result:
        transport = httpx.MockTransport(server)
        monkeypatch.setattr(sessions_client.httpx, "AsyncClient", partial(CLIENT, transport=transport))
        return CliRunner().invoke(sessions_group, arguments, env=env or {})

    return run_with


def page(*ids: str, cursor: str | None = None) -> httpx.Response:
    sessions = [{"id": name, "key": "k", "tenant": "default", "state": "live"} for name in ids]
    return httpx.Response(200, json={"sessions": sessions, "next": cursor})


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    return httpx.Response(
        status,
        json={"status": status, "code": code, "detail": "Because."},
        headers={"content-type": "application/problem+json", **headers},
    )


def events(*blocks: tuple[int | None, str, dict[str, Any]]) -> httpx.Response:
    lines = [": listening\n\n"]
    for number, kind, told in blocks:
        lines.append("" if number is None else f"id: {number}\n")
        lines.append(f"event: {kind}\ndata: {json.dumps(told)}\n\n")
    return httpx.Response(200, text="".join(lines), headers={"content-type": "text/event-stream"})


def test_list_asks_for_what_is_wanted(run: Any) -> None:
    """Filters go to the server; pages are read until there are as many as wanted; the rest is mentioned."""
    server = Server(page(*"abc", cursor="x1"), page("d", "e", cursor="x2"))
    done = run(server, "list", "--limit", "5", "--wire", "webrtc", "--key", "ops-1", "--json")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list("abcde")
    assert "more than 5" in done.stderr
    first, second = (dict(request.url.params) for request in server.requests)
    assert first == {"wire": "webrtc", "key": "ops-1", "limit": "5"}
    assert second == {"wire": "webrtc", "key": "ops-1", "limit": "2", "cursor": "x1"}


@pytest.mark.parametrize(
    ("since", "expected"),
    [("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00+00:00"), ("15m", None), ("2d", None)],
)
def test_since_is_a_moment(run: Any, since: str, expected: str | None) -> None:
    """A time as in RFC 3339, or how long ago."""
    server = Server(page())
    assert run(server, "list", "--since", since).exit_code == 0
    sent = server.requests[0].url.params["opened_since"]
    assert expected in {None, sent}
    assert sent.endswith("+00:00")


def test_nodes_that_are_silent_are_named(run: Any) -> None:
    """On standard error, each once; the table shows whose each session is, where there are several."""

    def answer(name: str, node: str, cursor: str | None, silent: list[str]) -> httpx.Response:
        session = {"id": name, "node": node, "key": "k", "tenant": "default", "state": "live"}
        return httpx.Response(200, json={"sessions": [session], "next": cursor, "silent_nodes": silent})

    done = run(Server(answer("s1", "n1", "x", ["n3"]), answer("s2", "n2", None, ["n3", "n4"])), "list")
    assert done.exit_code == 0
    assert "n3, n4" in done.stderr
    heading, first, _ = done.stdout.splitlines()
    assert heading.split()[2] == "NODE"
    assert first.split()[:3] == ["s1", "k", "n1"]
    assert "NODE" not in run(Server(answer("s1", "n1", None, [])), "list").stdout


def test_nothing_is_said_in_words(run: Any) -> None:
    """An empty list is no error; standard output stays empty for who counts lines."""
    done = run(Server(page()), "list")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No sessions.\n")


def test_show_prints_one_session(run: Any) -> None:
    """Its members; the id is quoted in the address, whatever it is."""
    server = Server(httpx.Response(200, json={"id": ID, "stages": ["send"]}))
    done = run(server, "show", "a/../b?c")
    assert (done.exit_code, done.stdout) == (0, f"id: {ID}\nstages: send\n")
    assert server.requests[0].url.raw_path == b"/v1/sessions/a%2F..%2Fb%3Fc"


def test_end_ends_each(run: Any) -> None:
    """One line for each; the one that had ended is no error."""
    server = Server(httpx.Response(202, json={"id": "a", "state": "ending"}), httpx.Response(204))
    done = run(server, "end", "a", "b")
    assert (done.exit_code, done.stdout) == (0, "a: ending\nb: had ended already\n")
    assert [(request.method, request.url.path) for request in server.requests] == [
        ("DELETE", "/v1/sessions/a"),
        ("DELETE", "/v1/sessions/b"),
    ]


def test_the_key_is_shown_to_the_server_and_to_nobody_else(run: Any, tmp_path: Path) -> None:
    """From a file or the environment, as Bearer; not in what is printed."""
    file = tmp_path / "key"
    file.write_text("va_k_secret\n")
    for arguments, env in ((["--key-file", str(file)], {}), ([], {"VOICE_AGENT_KEY": "va_k_secret"})):
        server = Server(problem(403, "forbidden"))
        done = run(server, "list", *arguments, env=env)
        assert server.requests[0].headers["authorization"] == "Bearer va_k_secret"
        assert "va_k_secret" not in done.output


def test_a_key_in_the_clear_is_warned_of(run: Any) -> None:
    """To another machine, over http."""
    done = run(
        Server(page()), "list", "--server", "http://voice.example.org", env={"VOICE_AGENT_KEY": "va_k_x"}
    )
    assert "unencrypted" in done.stderr


@pytest.mark.parametrize(
    ("answer", "exit_code", "words"),
    [
        (problem(401, "unauthenticated"), exit_codes.NOT_PERMITTED, "--key-file"),
        (problem(403, "forbidden"), exit_codes.NOT_PERMITTED, "whose scopes"),
        (problem(404, "not_found"), exit_codes.NOT_FOUND, "sessions list"),
        (problem(410, "session_closed"), exit_codes.NOT_FOUND, "Because"),
        (
            problem(429, "rate_limited", **{"retry-after": "7"}),
            exit_codes.SERVER_UNREACHABLE,
            "try again in 7 s",
        ),
        (httpx.Response(502, text="<html>"), exit_codes.SERVER_UNREACHABLE, "something before it"),
        (httpx.Response(200, text="<html>"), exit_codes.SERVER_UNREACHABLE, "not as a voice_agent"),
        (httpx.Response(200, json=[1]), exit_codes.SERVER_UNREACHABLE, "not as a voice_agent"),
        (httpx.ConnectError("refused"), exit_codes.SERVER_UNREACHABLE, "is the server running?"),
        (httpx.ReadTimeout("slow"), exit_codes.SERVER_UNREACHABLE, "does not answer"),
        (httpx.RemoteProtocolError("no HTTP"), exit_codes.SERVER_UNREACHABLE, "no HTTP"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(run: Any, answer: Any, exit_code: int, words: str) -> None:
    """What it is, and what to do next; the exit code says which kind."""
    done = run(Server(answer), "show", ID)
    assert done.exit_code == exit_code
    assert words in done.stderr
    assert done.stderr.startswith("voice-agent sessions: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--server", "ws://x"],
        ["list", "--server", "http://"],
        ["list", "--server", "http://x:99999"],
        ["list", "--server", "http://user:pw@x"],
        ["list", "--server", "http://x/?key=1"],
        ["list", "--server", "http://exa mple"],
        ["list", "--since", "yesterday"],
        ["list", "--since", "0m"],
        ["list", "--limit", "0"],
        ["list", "--wire", "pigeon"],
        ["show"],
        ["end"],
        ["tail", ID, "--after", "-1"],
    ],
)
def test_a_wrong_command_line_is_refused(run: Any, arguments: list[str]) -> None:
    """Exit code 2, and nothing is asked of a server."""
    server = Server()
    assert run(server, *arguments).exit_code == exit_codes.USAGE
    assert server.requests == []


CLOSED = {"type": "closed", "reason": "stopped", "position_ms": 0}


def test_tail_prints_events_to_the_end(run: Any) -> None:
    """A line an event; with --json what the server said."""
    told = [(1, "ready", {"type": "ready", "position_ms": 0}), (2, "closed", CLOSED)]
    done = run(Server(events(*told)), "tail", ID)
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["ready", "closed"]
    done = run(Server(events(*told)), "tail", ID, "--json")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [told[0][2], CLOSED]
    assert done.exit_code == 0


def test_tail_goes_on_where_it_was(run: Any) -> None:
    """After a broken connection, a refused one and a cut, each event is shown once, in order."""
    server = Server(
        events((4, "pong", {"position_ms": 0})),
        httpx.ConnectError("refused"),
        events((5, "pong", {"position_ms": 0}), (None, "cut_off", {"type": "cut_off"})),
        events((6, "closed", CLOSED)),
    )
    done = run(server, "tail", ID, "--after", "3")
    assert done.exit_code == 0, done.output
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["pong", "pong", "closed"]
    asked = [request.headers.get("last-event-id") for request in server.requests]
    assert asked == ["3", "4", "4", "5"]


def test_tail_says_what_it_missed(run: Any) -> None:
    """Events that are no longer kept are a remark, and not a silent hole."""
    server = Server(
        events((4, "pong", {"position_ms": 0})),
        problem(410, "events_gone"),
        events((400, "closed", CLOSED)),
    )
    done = run(server, "tail", ID)
    assert "some events were missed" in done.stderr
    assert "last-event-id" not in server.requests[2].headers
    assert done.exit_code == 0


def test_tail_ends_when_the_session_ended_meanwhile(run: Any) -> None:
    """There is nothing more to come."""
    server = Server(events((4, "pong", {"position_ms": 0})), problem(410, "session_closed"))
    done = run(server, "tail", ID)
    assert (done.exit_code, "ended meanwhile" in done.stderr) == (0, True)


@pytest.mark.parametrize(
    ("answers", "exit_code"),
    [
        ([problem(404, "not_found")], exit_codes.NOT_FOUND),
        ([problem(410, "session_closed")], exit_codes.NOT_FOUND),
        ([problem(410, "events_gone")], exit_codes.SERVER_UNREACHABLE),
        ([httpx.ConnectError("refused")], exit_codes.SERVER_UNREACHABLE),
        ([events((1, "pong", {})), *([httpx.ConnectError("refused")] * 9)], exit_codes.FAILED),
        ([events((1, "pong", {})), problem(404, "not_found")], exit_codes.NOT_FOUND),
        ([events()] * 9, exit_codes.FAILED),
        ([httpx.Response(200, text="data: no json\n\n")], exit_codes.FAILED),
        ([httpx.Response(200, text="data: [1]\n\n")], exit_codes.FAILED),
        ([httpx.Response(200, text="data: " + "x" * 2**21 + "\n\n")], exit_codes.FAILED),
    ],
)
def test_tail_gives_up_in_bounded_time(run: Any, answers: list[Any], exit_code: int) -> None:
    """A server that is gone for good, or none of ours, ends it with a line and a code."""
    done = run(Server(*answers), "tail", ID)
    assert done.exit_code == exit_code, done.output
    assert done.stderr.count("voice-agent sessions: ") == 1


def test_the_help_names_every_exit_code() -> None:
    """Who writes a script finds them."""
    with click.Context(sessions_group) as context:
        text = sessions_group.get_help(context)
    for code in (0, 1, 2, 69, 70, 77, 130):
        assert re.search(rf"^ +{code} ", text, re.MULTILINE), code
