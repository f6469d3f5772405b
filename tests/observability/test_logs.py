"""Logs: JSON lines with their context, and a quiet library."""

import io
import json
import logging
import subprocess
import sys

import pytest
import structlog

from voice_agent.observability.logs import configure_logging, repeat_limiter
from voice_agent.observability.repeats import tell_suppressed


def test_lines_are_json_with_the_context_of_the_call() -> None:
    """Each line is one object; what was bound around it stands in it; lesser levels are left out."""
    stream = io.StringIO()
    configure_logging("info", "auto", stream)
    with structlog.contextvars.bound_contextvars(session="abc"):
        structlog.get_logger().info("call_opened", calls=1)
        structlog.get_logger().debug("unheard")
    logging.getLogger("library").warning("theirs")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert lines[0]["event"] == "call_opened"
    assert (lines[0]["session"], lines[0]["calls"], lines[0]["level"]) == ("abc", 1, "info")
    assert lines[1]["event"] == "theirs"
    assert len(lines) == 2


def test_a_trace_is_data_not_lines() -> None:
    """An exception stays on its line."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    structlog.get_logger().error("stage_crashed", exc_info=ValueError("broken"))
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["exception"][0]["exc_type"] == "ValueError"


class ForgetfulError(Exception):
    pass


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_trace_holds_no_values(form: str) -> None:
    """What a caller said, or a key, stands in local variables when something breaks; the trace doesn't show them."""

    def hear(said: str) -> None:
        password = "hunter" + str(len(said))
        raise ForgetfulError(f"broken after {len(password)} letters")

    stream = io.StringIO()
    configure_logging("info", form, stream)
    said = "my card number is four two"
    try:
        hear(said)
    except ForgetfulError:
        structlog.get_logger().exception("stage_crashed")
    text = stream.getvalue()
    assert "ForgetfulError" in text
    assert "broken after" in text
    assert "my card number" not in text
    assert "hunter26" not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_are_redacted_whoever_logs_them(form: str) -> None:
    """Ours and a library's lines, values and messages, and what an exception says."""
    stream = io.StringIO()
    configure_logging("info", form, stream)
    log = structlog.get_logger()
    log.info("request", authorization="Bearer s3cr3t-one", path="/v1/ws?ticket=s3cr3t-two&rate=8000")
    log.error("crashed", exc_info=ValueError("refused Authorization: Bearer s3cr3t-three"))
    logging.getLogger("library").warning("sent %s", {"X-API-Key": "s3cr3t-four"})
    logging.getLogger("library").warning("fetching https://me:s3cr3t-five@keys.example/jwks")
    assert "s3cr3t" not in stream.getvalue()
    assert stream.getvalue().count("[redacted]") == 5


def test_what_was_said_is_shown_only_where_that_was_chosen() -> None:
    """``transcripts`` lets a text through; without it even a line that has one doesn't show it."""
    for transcripts in (False, True):
        stream = io.StringIO()
        configure_logging("info", "json", stream, transcripts=transcripts)
        structlog.get_logger().info("transcript", text="hello there", transcripts=3)
        line = json.loads(stream.getvalue())
        assert line["text"] == ("hello there" if transcripts else "[redacted]")
        assert line["transcripts"] == 3


def test_a_repeated_warning_is_counted_not_repeated() -> None:
    """So many lines a minute of one event, ours or a library's; other events and lesser levels go on."""
    stream = io.StringIO()
    configure_logging("info", "json", stream, max_repeats_per_minute=3)
    for number in range(50):
        structlog.get_logger().warning("partial_failed", number=number)
        logging.getLogger("library").warning("retry %d", number)
        structlog.get_logger().info("call_opened")
    structlog.get_logger().error("other")
    tell_suppressed(repeat_limiter(), all_of_them=True)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("partial_failed") == 3
    assert [event for event in events if event.startswith("retry")] == ["retry 0", "retry 1", "retry 2"]
    assert events.count("call_opened") == 50
    assert events.count("other") == 1
    assert {(line["of"], line["lines"]) for line in lines if line["event"] == "lines_suppressed"} == {
        ("partial_failed", 47),
        ("library: retry %d", 47),
    }


def test_odd_text_does_not_stop_a_line() -> None:
    """An unpaired surrogate out of a header is no reason to fail."""
    code = (
        "import structlog; from voice_agent.observability.logs import configure_logging;"
        "configure_logging('info', 'json'); structlog.get_logger().info('odd', path='/\\udcff\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr)["event"] == "odd"
    assert done.stderr.count("\n") == 1


def test_the_console_form_is_for_people() -> None:
    """No JSON where a person asked for text."""
    stream = io.StringIO()
    configure_logging("info", "console", stream)
    structlog.get_logger().info("hello", number=7)
    assert "hello" in stream.getvalue()
    assert "number" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_an_embedded_library_prints_nothing() -> None:
    """Importing and logging below a warning leaves both outputs to the program."""
    code = "import voice_agent, structlog; structlog.get_logger('voice_agent').info('call_opened')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
