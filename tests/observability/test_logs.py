"""Logs: JSON lines with their context, and a quiet library."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from voice_agent.observability.logs import configure_logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave structlog and the root logger as they were."""
    config = structlog.get_config()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**config)
    root.handlers[:] = handlers
    root.setLevel(level)


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
