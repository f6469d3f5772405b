"""`voice-agent journals` against servers of every kind: what it asks, what it says, what it writes, what it exits with."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from voice_agent.cli import exit_codes, journals_command, sessions_client
from voice_agent.cli.journals_command import journals_group
from voice_agent.cli.journals_display import length

ID = "b1946ac92492d2347c6235b4d2611184"
CLIENT = httpx.AsyncClient
RECORD = {
    "id": ID,
    "key": "kiosk",
    "tenant": "default",
    "wire": "webrtc",
    "state": "ended",
    "close_reason": "stopped",
    "opened_at": "2026-01-31T12:00:00.000Z",
    "ended_at": "2026-01-31T12:05:00.000Z",
    "delete_at": "2126-01-31T12:05:00.000Z",
}


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

    def run_with(server: Server, *arguments: str, typed: str | None = None) -> Result:
        transport = httpx.MockTransport(server)
        monkeypatch.setattr(sessions_client.httpx, "AsyncClient", partial(CLIENT, transport=transport))
        return CliRunner().invoke(journals_group, arguments, input=typed, env={})

    return run_with


def page(*ids: str, cursor: str | None = None) -> httpx.Response:
    return httpx.Response(200, json={"journals": [{**RECORD, "id": name} for name in ids], "next": cursor})


def problem(status: int, code: str) -> httpx.Response:
    return httpx.Response(
        status,
        json={"status": status, "code": code, "detail": "Because."},
        headers={"content-type": "application/problem+json"},
    )


def lines(*told: dict[str, Any]) -> httpx.Response:
    text = "".join(json.dumps(one) + "\n" for one in told)
    return httpx.Response(200, text=text, headers={"content-type": "application/x-ndjson"})


WHOLE = (
    {"record": RECORD},
    {"entry": {"number": 1, "body": {"text": "Straße\u2028"}}},
    {"entry": {"number": 2, "body": {}}},
    {"end": {"entries": 2}},
)


def test_list_reads_page_by_page(run: Any) -> None:
    """Filters go to the server; the rest is mentioned."""
    server = Server(page(*"abc", cursor="1.0:c"), page("d", "e", cursor="1.0:e"))
    done = run(server, "list", "--limit", "5", "--state", "ended", "--key", "kiosk", "--json")
    assert done.exit_code == 0, done.output
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list("abcde")
    assert "more than 5" in done.stderr
    first, second = (dict(request.url.params) for request in server.requests)
    assert first == {"state": "ended", "key": "kiosk", "limit": "5"}
    assert second == {"state": "ended", "key": "kiosk", "limit": "2", "cursor": "1.0:c"}


def test_the_table_has_what_matters(run: Any) -> None:
    """Id, key, how it ended, how long it lasted, when it goes; nothing is said in words."""
    done = run(Server(page(ID)), "list")
    for words in (ID, "kiosk", "webrtc", "ended", "stopped", "5 min", " d"):
        assert words in done.stdout
    done = run(Server(page()), "list")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "Nothing is kept.\n")


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0 s"), (59, "59 s"), (300, "5 min"), (5_400, "1.5 h"), (864_000, "10 d")]
)
def test_lengths_of_time_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    """Seconds to days."""
    assert length(seconds) == text


def test_show_prints_the_record_or_what_was_said(run: Any) -> None:
    """The id is quoted in the address, whatever it is; control characters don't reach the terminal."""
    server = Server(httpx.Response(200, json=RECORD))
    done = run(server, "show", "a/../b?c")
    assert done.exit_code == 0
    assert f"id: {ID}\n" in done.stdout
    assert server.requests[0].url.raw_path == b"/v1/journals/a%2F..%2Fb%3Fc"
    server = Server(httpx.Response(200, text="One.\n\x1b[2JTwo.\n", headers={"content-type": "text/plain"}))
    done = run(server, "show", "--transcript", ID)
    assert done.stdout.splitlines()[0] == "One."
    assert "\x1b" not in done.stdout
    assert dict(server.requests[0].url.params) == {"format": "text"}
    done = run(
        Server(httpx.Response(200, json={"id": ID, "lines": []})), "show", "--transcript", "--json", ID
    )
    assert json.loads(done.stdout) == {"id": ID, "lines": []}


def test_an_export_goes_to_standard_output_or_a_file(run: Any, tmp_path: Path) -> None:
    """Line by line as it came; the file is its owner's alone, and no other file is overwritten."""
    done = run(Server(lines(*WHOLE)), "export", ID)
    assert (done.exit_code, done.stderr) == (0, "2 entries\n")
    assert [json.loads(line) for line in done.stdout.split("\n")[:-1]] == list(WHOLE)
    path = tmp_path / "call.ndjson"
    done = run(Server(lines(*WHOLE)), "export", ID, "-o", str(path), "--json")
    assert (done.exit_code, done.stdout) == (0, "")
    assert json.loads(done.stderr) == {"id": ID, "entries": 2}
    assert [json.loads(line) for line in path.read_text().split("\n")[:-1]] == list(WHOLE)
    assert path.stat().st_mode & 0o777 == 0o600
    done = run(Server(), "export", ID, "-o", str(path))
    assert (done.exit_code, "exists" in done.stderr) == (exit_codes.CANT_CREATE, True)
    done = run(Server(), "export", ID, "-o", str(tmp_path / "nowhere" / "x"))
    assert done.exit_code == exit_codes.CANT_CREATE


class BrokenStream(httpx.AsyncByteStream):
    """Some bytes, and then the connection is gone."""

    async def __aiter__(self) -> Any:
        yield json.dumps(WHOLE[0]).encode() + b"\n"
        raise httpx.ReadError("reset by peer")


@pytest.mark.parametrize(
    ("answer", "exit_code", "words"),
    [
        (lines(*WHOLE[:-1]), exit_codes.FAILED, "last line is missing"),
        (lines(), exit_codes.FAILED, "last line is missing"),
        (
            lines(*WHOLE[:2], {"error": {"code": "journals_unavailable", "message": "Try again."}}),
            exit_codes.FAILED,
            "not complete: Try again",
        ),
        (httpx.Response(200, stream=BrokenStream()), exit_codes.FAILED, "broke off: "),
        (problem(404, "not_found"), exit_codes.NOT_FOUND, "journals list"),
        (problem(403, "forbidden"), exit_codes.NOT_PERMITTED, "whose scopes"),
        (problem(503, "journals_unavailable"), exit_codes.SERVER_UNREACHABLE, "Because"),
        (httpx.ConnectError("refused"), exit_codes.SERVER_UNREACHABLE, "is the server running?"),
    ],
)
def test_an_export_that_is_cut_short_leaves_no_file(
    run: Any, tmp_path: Path, answer: Any, exit_code: int, words: str
) -> None:
    """It is told in a line, with an exit code of its own, and half of a journal never looks like one."""
    done = run(Server(answer), "export", ID, "-o", str(tmp_path / "call.ndjson"))
    assert done.exit_code == exit_code
    assert words in done.stderr
    assert done.stderr.startswith("voice-agent journals: ")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_deleted_unasked(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """--yes, or somebody at a terminal who says so; each deleted one is a line."""
    server = Server(httpx.Response(204), httpx.Response(204))
    done = run(server, "delete", "--yes", "a", "b")
    assert (done.exit_code, done.stdout) == (0, "a: deleted\nb: deleted\n")
    assert [(request.method, request.url.path) for request in server.requests] == [
        ("DELETE", "/v1/journals/a"),
        ("DELETE", "/v1/journals/b"),
    ]
    assert run(Server(), "delete", "a").exit_code == exit_codes.USAGE

    monkeypatch.setattr(journals_command, "_is_somebody_there", lambda: True)
    assert run(Server(), "delete", "a", typed="n\n").exit_code == exit_codes.INTERRUPTED
    server = Server(httpx.Response(204))
    assert run(server, "delete", "a", "--json", typed="y\n").exit_code == 0
    assert len(server.requests) == 1


def test_a_running_call_is_not_deleted(run: Any) -> None:
    """What to do first stands in the line."""
    done = run(Server(problem(409, "session_running")), "delete", "--yes", ID)
    assert done.exit_code == exit_codes.SERVER_UNREACHABLE
    assert "sessions end" in done.stderr


def commands(group: click.Group) -> Iterator[click.Command]:
    yield group
    yield from group.commands.values()


def test_the_help_names_every_exit_code() -> None:
    """Of the group and of each command; every option says what it is for."""
    for command in commands(journals_group):
        assert command.epilog is not None
        told = set(map(int, re.findall(r"^  (\d+) ", command.epilog, re.MULTILINE)))
        assert told == {0, 1, 2, 69, 70, 73, 77, 130}
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help
