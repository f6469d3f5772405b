"""What `voice-agent sessions` shows: ids are never cut, and a server can't steer the terminal."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from voice_agent.cli.sessions_display import describe_event, show_json, show_session, show_sessions

NOW = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)
SESSION = {
    "id": "b1946ac92492d2347c6235b4d2611184",
    "key": "ops-1",
    "tenant": "default",
    "wire": "webrtc",
    "state": "live",
    "opened_at": "2026-01-31T12:00:00.000Z",
    "duration_seconds": 1800.2,
    "audio_seconds": 3725.0,
    "transcripts": 14,
    "stages": ["send", "listen"],
    "close": None,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def rows(sessions: list[dict[str, Any]], out: io.StringIO) -> list[list[str]]:
    show_sessions(sessions, out, now=NOW)
    return [line.split() for line in out.getvalue().splitlines()]


def test_a_session_is_a_row() -> None:
    """Who, how, since when, how much."""
    heading, row = rows([SESSION], io.StringIO())
    assert heading == ["SESSION", "KEY", "WIRE", "STATE", "OPENED", "LASTS", "AUDIO", "FINALS"]
    assert row == [SESSION["id"], "ops-1", "webrtc", "live", "30:00", "ago", "30:00", "1:02:05", "14"]


def test_tenants_are_shown_where_there_are_some() -> None:
    """A server with one tenant needs no column for it."""
    heading, row, other = rows([SESSION, {**SESSION, "tenant": "acme"}], io.StringIO())
    assert heading[2] == "TENANT"
    assert (row[2], other[2]) == ("default", "acme")


def test_what_goes_to_a_pipe_is_whole_and_plain() -> None:
    """No escape sequences, and long names are not cut."""
    out = io.StringIO()
    show_sessions([{**SESSION, "key": "k" * 64}], out, now=NOW)
    assert "k" * 64 in out.getvalue()
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()])
def test_a_server_can_t_steer_the_terminal(out: io.StringIO) -> None:
    """Control characters and markup of a server are shown as what they are."""
    evil = {
        **SESSION,
        "key": "\x1b[2J[red]x[/red]\x07",
        "state": "\x1b]0;x",
        "opened_at": "\x1b",
        "wire": None,
    }
    show_sessions([evil], out, now=NOW)
    show_session({**evil, "network": {"a\x1b": "\x1b[31m"}}, out)
    text = out.getvalue()
    assert "\x1b[2J" not in text
    assert "\x1b]0" not in text
    assert "\x1b[31m" not in text
    assert "\x07" not in text
    assert "[red]x[/red]" in text


def test_one_session_is_shown_member_by_member() -> None:
    """What is inside of a member stands below it."""
    out = io.StringIO()
    show_session({**SESSION, "close": {"reason": "stopped", "error_code": None}}, out)
    assert out.getvalue().splitlines()[-4:] == [
        "stages: send, listen",
        "close:",
        "  reason: stopped",
        "  error_code: -",
    ]


def test_json_is_one_line() -> None:
    """What the server said, for other programs."""
    out = io.StringIO()
    show_json(SESSION, out)
    assert json.loads(out.getvalue()) == SESSION
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "told", "line"),
    [
        (
            "final",
            {"position_ms": 61_400, "text": "It was\x1b[2J"},
            "   1:01  final           It was\ufffd[2J",
        ),
        (
            "partial",
            {"position_ms": 0},
            "   0:00  partial         (words are shown to the scope admin)",
        ),
        (
            "notice",
            {"position_ms": 1, "code": "draining", "message": "Soon."},
            "   0:00  notice          [draining] Soon.",
        ),
        (
            "closed",
            {"position_ms": 5000, "reason": "stopped", "duration_seconds": 5.1, "transcripts": 2},
            "   0:05  closed          stopped, 0:05, 2 finals",
        ),
        ("speech_started", {"utterance": 3}, "         speech_started  utterance 3"),
        ("pong", {"position_ms": 0, "id": "x"}, "   0:00  pong"),
        ("new\nkind", {"position_ms": True}, "         new\ufffdkind"),
    ],
)
def test_an_event_is_a_line(kind: str, told: dict[str, Any], line: str) -> None:
    """When, what, and what there is to say; an unknown kind is shown by its name."""
    assert describe_event(kind, told) == line
