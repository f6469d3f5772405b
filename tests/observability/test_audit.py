"""The audit stream: every line, in order, where it belongs, and without secrets."""

import io
import json
import stat
from pathlib import Path

import pytest

from voice_agent.core.errors import SettingsError
from voice_agent.observability.audit import Outcome, audit, open_audit
from voice_agent.observability.logs import configure_logging


def test_a_line_is_one_object_with_its_fields() -> None:
    """Time, actor, action, target, outcome, address, and what else was given."""
    stream = io.StringIO()
    open_audit("", stream)
    audit(
        actor="desk-1", action="session_end", outcome=Outcome.DONE, target="abc", address="192.0.2.7", calls=3
    )
    [line] = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert list(line) == ["time", "event", "actor", "action", "target", "outcome", "address", "calls"]
    assert line["time"].endswith("+00:00")
    del line["time"]
    assert line == {
        "event": "audit",
        "actor": "desk-1",
        "action": "session_end",
        "target": "abc",
        "outcome": "done",
        "address": "192.0.2.7",
        "calls": 3,
    }


def test_what_a_caller_sends_can_not_forge_a_line() -> None:
    """Line breaks and quotes stay inside of their value; secrets do not stay at all."""
    stream = io.StringIO()
    open_audit("", stream)
    audit(
        actor='x"}\n{"actor": "root"',
        action="authenticate",
        outcome=Outcome.REFUSED,
        target="/v1/ws?ticket=s3cr3t",
        token="s3cr3t",  # noqa: S106 (it is what must not be seen)
    )
    [line] = stream.getvalue().splitlines()
    assert json.loads(line)["actor"] == 'x"}\n{"actor": "root"'
    assert "s3cr3t" not in line


def test_a_file_is_appended_to_and_private(tmp_path: Path) -> None:
    """A restart keeps what is there; only the owner reads it; odd text is no reason to lose a line."""
    path = tmp_path / "audit.jsonl"
    path.write_text("before\n")
    path.unlink()
    open_audit(str(path))
    audit(actor="a", action="one", outcome=Outcome.DONE, target="\udcff")
    open_audit(str(path))
    audit(actor="a", action="two", outcome=Outcome.FAILED)
    assert [json.loads(text)["action"] for text in path.read_text().splitlines()] == ["one", "two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    """Rotation needs no signal, and no line is lost in it."""
    path = tmp_path / "audit.jsonl"
    open_audit(str(path))
    audit(actor="a", action="one", outcome=Outcome.DONE)
    path.rename(tmp_path / "audit.1")
    audit(actor="a", action="two", outcome=Outcome.DONE)
    assert json.loads((tmp_path / "audit.1").read_text())["action"] == "one"
    assert json.loads(path.read_text())["action"] == "two"


def test_a_file_that_can_not_be_opened_is_the_operators_error(tmp_path: Path) -> None:
    """The server doesn't start without the audit that it was told to keep; the message names the setting."""
    with pytest.raises(SettingsError, match="audit_path") as caught:
        open_audit(str(tmp_path / "missing" / "audit.jsonl"))
    assert caught.value.field == "logging.audit_path"


def test_a_line_that_can_not_be_written_goes_to_the_log() -> None:
    """A full disk loses no line silently, and breaks no call."""
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    open_audit("/dev/full")
    audit(actor="a", action="drain", outcome=Outcome.DONE)
    [line] = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert line["event"] == "audit_unwritable"
    assert json.loads(line["line"])["action"] == "drain"
    assert "No space left" in line["reason"]


def test_no_level_hides_a_line() -> None:
    """``logging.level = "error"`` is about the log."""
    stream = io.StringIO()
    configure_logging("error", "json", io.StringIO())
    open_audit("", stream)
    audit(actor="a", action="drain", outcome=Outcome.DONE)
    assert json.loads(stream.getvalue())["action"] == "drain"
