"""What a run of calls shows."""

import io
import json
from typing import Any

import attrs
import pytest
from rich.console import Console

from voice_agent.cli import call_display
from voice_agent.cli.call_client import ReceivedMessage
from voice_agent.cli.call_display import (
    CallDisplay,
    JsonDisplay,
    LiveDisplay,
    PlainDisplay,
    open_display,
    printable,
)
from voice_agent.cli.call_report import CallReport
from voice_agent.cli.call_result import Reconnecting, Resumed
from voice_agent.core.transcripts import TranscriptResult

REPORT = CallReport(outcomes=[], was_interrupted=False, latency_note="a test")


class Terminal(io.StringIO):
    """Text that says that it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def received(kind: str, *, at: float = 0.0, **fields: Any) -> ReceivedMessage:
    """Make a message as the client hands it on."""
    transcript = None
    if kind in ("partial", "final"):
        transcript = TranscriptResult(
            text=fields["text"],
            is_final=kind == "final",
            start=fields.get("start", 0.0),
            end=fields.get("start", 0.0) + 1,
            utterance=1,
            stable=fields.get("stable", ""),
        )
    return ReceivedMessage(
        message={"type": kind, **fields},
        received_at=at,
        transcript=transcript,
        latency_seconds=0.25 if transcript else None,
    )


def test_a_pipe_holds_the_words_only() -> None:
    """Finals on standard output; partials nowhere; notices and the report on standard error."""
    out, err = io.StringIO(), io.StringIO()
    display = open_display(out=out, err=err, call_count=1, is_json=False)
    with display:
        display.show_message(1, received("ready", session="x"))
        display.show_message(1, received("partial", text="it was"))
        display.show_message(1, received("final", text="It was the best of times."))
        display.show_message(1, received("notice", code="overflow", message="too fast"))
        display.show_remark("hanging up")
    display.show_report(REPORT)
    assert out.getvalue() == "It was the best of times.\n"
    assert err.getvalue() == ("notice [overflow]: too fast\nhanging up\nlatency not measured: a test\n")


def test_lines_of_several_calls_name_their_call() -> None:
    """Otherwise ten conversations would be one."""
    out, err = io.StringIO(), io.StringIO()
    display = PlainDisplay(out, err, 10)
    display.show_message(3, received("final", text="Hello."))
    display.show_message(10, received("error", code="bad_audio", message="odd"))
    assert out.getvalue() == " 3  Hello.\n"
    assert err.getvalue() == "10  error [bad_audio]: odd\n"


def test_json_is_one_object_a_line_with_call_and_receive_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message as it came, then one summary; nothing else, so that each line parses."""
    monkeypatch.setattr("voice_agent.cli.call_display.time.time", lambda: 1_700_000_000.5)
    out, err = io.StringIO(), io.StringIO()
    display = open_display(out=out, err=err, call_count=2, is_json=True)
    with display:
        display.show_message(2, received("ready", session="x\u2028\ud800"))
        display.show_message(1, received("final", text="Hello."))
        display.show_remark("hanging up")
    display.show_report(REPORT)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[:2] == [
        {
            "call": 2,
            "received_at": 1_700_000_000.5,
            "message": {"type": "ready", "session": "x\u2028\ud800"},
        },
        {
            "call": 1,
            "received_at": 1_700_000_000.5,
            "latency_seconds": 0.25,
            "message": {"type": "final", "text": "Hello."},
        },
    ]
    assert lines[2] == {"summary": REPORT.to_dict()}
    assert len(lines) == 3
    assert err.getvalue() == "hanging up\n"


def on_terminal(call_count: int = 1) -> tuple[LiveDisplay, Terminal]:
    """Open a display on a terminal of 60 columns that knows colours."""
    terminal = Terminal()
    display = open_display(out=terminal, err=io.StringIO(), call_count=call_count, is_json=False)
    assert isinstance(display, LiveDisplay)
    display._console = Console(
        file=terminal, force_terminal=True, width=60, highlight=False, color_system="standard"
    )
    display._live = call_display.Live(console=display._console, auto_refresh=False, transient=True)
    return display, terminal


def test_on_a_terminal_the_stable_prefix_is_bright_and_the_rest_dim() -> None:
    """The eye can tell what will not change."""
    display, terminal = on_terminal()
    with display:
        display.show_message(1, received("speech_started", utterance=1, start=0.0, at=1.0))
        display.show_message(1, received("partial", text="it was the best", stable="it was", at=2.0))
        shown = terminal.getvalue()
    assert "\N{BLACK CIRCLE} " in shown
    assert "\x1b[1mit was\x1b[0m" in shown
    assert "\x1b[2m the best\x1b[0m" in shown


def test_on_a_terminal_a_final_scrolls_up_with_its_time_and_clears_the_partial() -> None:
    """What was said stays in the scroll-back; the live line is free for the next sentence."""
    display, terminal = on_terminal(call_count=2)
    with display:
        display.show_message(2, received("partial", text="hello", at=1.0))
        display.show_message(2, received("final", text="Hello there.", start=75.26, at=1.01))
        display.show_message(2, received("speech_stopped", utterance=1, end=76.0, at=1.02))
        rows = display._rows
        display.show_message(1, received("notice", code="draining", message="the server goes", at=1.03))
        display.show_remark("hanging up")
    display.show_report(REPORT)
    plain = terminal.getvalue()
    assert "\x1b[2m2  01:15.3  \x1b[0mHello there." in plain
    assert "1  notice [draining]: the server goes" in plain
    assert "hanging up" in plain
    assert "latency not measured: a test" in plain
    assert rows[2].partial is None


def test_a_terminal_is_not_redrawn_more_often_than_the_eye_can_see() -> None:
    """Sixty-four calls of partials must not keep the client from sending."""
    display, terminal = on_terminal()
    with display:
        display.show_message(1, received("partial", text="first", at=10.0))
        before = terminal.getvalue()
        display.show_message(1, received("partial", text="first second", at=10.01))
        assert terminal.getvalue() == before
        display.show_message(1, received("partial", text="first second third", at=10.06))
        assert "third" in terminal.getvalue()


def test_a_server_can_not_steer_the_terminal() -> None:
    """Escape sequences, line breaks and half characters of a transcript are shown as what they are: nothing."""
    evil = "a\x1b]0;owned\x07\n\x9b2J\ud800b"
    assert printable(evil) == "a\ufffd]0;owned\ufffd\ufffd\ufffd2J\ufffdb"
    display, terminal = on_terminal()
    out = io.StringIO()
    plain: list[CallDisplay] = [PlainDisplay(out, out, 1), display]
    for each in plain:
        with each:
            each.show_message(1, received("partial", text=evil, stable=evil[:4], at=1.0))
            each.show_message(1, received("final", text=evil, at=2.0))
            each.show_message(1, received("error", code=evil, message=evil, at=3.0))
    assert "\x1b]0" not in terminal.getvalue() + out.getvalue()
    assert "\x9b" not in terminal.getvalue() + out.getvalue()


def test_a_display_does_not_hide_errors() -> None:
    """Leaving the context lets what was raised through."""
    for display in (
        PlainDisplay(io.StringIO(), io.StringIO(), 1),
        JsonDisplay(io.StringIO(), io.StringIO(), 1),
    ):
        with pytest.raises(ZeroDivisionError), display:
            raise ZeroDivisionError


LOST = Reconnecting(reason="close code 1006", attempt=1, wait_seconds=0.2512, url="ws://two/v1/ws")
BACK = Resumed(
    session="abc", url="ws://two/v1/ws", attempts=2, away_seconds=1.26, resent_seconds=4.0, lost_seconds=0.0
)


@pytest.mark.parametrize("terminal", [Terminal, io.StringIO])
def test_a_lost_connection_and_its_return_are_told(terminal: type[io.StringIO]) -> None:
    """In words, whether on a terminal or in a pipe; what was being said is told anew later."""
    out, err = terminal(), io.StringIO()
    display = open_display(out=out, err=err, call_count=1, is_json=False)
    with display:
        display.show_message(1, received("partial", text="it was the", stable="it"))
        display.show_news(1, LOST)
        display.show_news(1, BACK)
        display.show_news(1, attrs.evolve(BACK, lost_seconds=3.14))
    told = out.getvalue() + err.getvalue()
    for line in (
        "connection lost (close code 1006); trying again in 0.3 s",
        "resumed after 1.3 s, nothing lost",
        "resumed after 1.3 s, 3.1 s of sound lost",
    ):
        assert line in told


def test_json_has_lines_of_their_own_for_a_lost_connection_and_its_return() -> None:
    """Programs can tell them from what the server says."""
    out = io.StringIO()
    display = open_display(out=out, err=io.StringIO(), call_count=3, is_json=True)
    with display:
        display.show_news(2, LOST)
        display.show_news(2, BACK)
    lost, back = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lost["call"] == back["call"] == 2
    assert lost["reconnecting"] == {
        "reason": "close code 1006",
        "attempt": 1,
        "wait_seconds": 0.251,
        "url": "ws://two/v1/ws",
    }
    assert back["resumed"] == {
        "session": "abc",
        "url": "ws://two/v1/ws",
        "attempts": 2,
        "away_seconds": 1.26,
        "resent_seconds": 4.0,
        "lost_seconds": 0.0,
    }
