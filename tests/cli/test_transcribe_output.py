"""Where transcripts go, and in which form."""

import json
import os
import stat
from pathlib import Path

import pytest

from voice_agent.cli.transcribe_output import (
    FileTranscript,
    Format,
    OutputPlanError,
    choose_format,
    plan_outputs,
    render,
    write_atomically,
)
from voice_agent.core.transcripts import TranscriptResult, Word

TRANSCRIPT = FileTranscript(
    path=Path("talk.wav"),
    duration_seconds=12.3456,
    finals=[
        TranscriptResult(
            text="Good m\u00f6rning.",
            is_final=True,
            start=0.5,
            end=1.5,
            utterance=1,
            confidence=0.98765,
            words=(Word("Good", 0.5, 0.9, 0.99), Word("m\u00f6rning.", 1.0, 1.5, 0.97)),
        ),
        TranscriptResult(
            text="Good night.", is_final=True, start=10.0, end=11.0, utterance=2, confidence=0.5
        ),
    ],
)


def test_text_is_a_line_for_each_final() -> None:
    """Nothing but the words."""
    assert render(TRANSCRIPT, "text") == "Good m\u00f6rning.\nGood night.\n"


def test_json_is_one_line_with_everything() -> None:
    """Words stand where the engine gave them; times to the millisecond."""
    text = render(TRANSCRIPT, "json")
    assert text.count("\n") == 1
    assert json.loads(text) == {
        "file": "talk.wav",
        "duration_seconds": 12.346,
        "text": "Good m\u00f6rning. Good night.",
        "finals": [
            {
                "utterance": 1,
                "text": "Good m\u00f6rning.",
                "start": 0.5,
                "end": 1.5,
                "confidence": 0.988,
                "language": "en",
                "words": [
                    {"text": "Good", "start": 0.5, "end": 0.9, "confidence": 0.99},
                    {"text": "m\u00f6rning.", "start": 1.0, "end": 1.5, "confidence": 0.97},
                ],
            },
            {
                "utterance": 2,
                "text": "Good night.",
                "start": 10.0,
                "end": 11.0,
                "confidence": 0.5,
                "language": "en",
            },
        ],
    }


@pytest.mark.parametrize(
    ("form", "begins"), [("srt", "1\n00:00:00,500 --> "), ("vtt", "WEBVTT\n\n00:00:00.500 --> ")]
)
def test_subtitles_are_rendered(form: Format, begins: str) -> None:
    """The rest is in test_subtitles.py."""
    assert render(TRANSCRIPT, form).startswith(begins)


@pytest.mark.parametrize(
    ("asked", "output", "form"),
    [
        (None, None, "text"),
        (None, Path("x.SRT"), "srt"),
        (None, Path("x.vtt"), "vtt"),
        (None, Path("x.json"), "json"),
        (None, Path("x.doc"), "text"),
        ("json", Path("x.srt"), "json"),
    ],
)
def test_the_form_is_what_was_asked_else_what_the_suffix_says(
    asked: Format | None, output: Path | None, form: Format
) -> None:
    """``--output talk.srt`` alone means subtitles."""
    assert choose_format(asked, output) == form


def test_without_output_everything_goes_to_standard_output() -> None:
    """Several files too, in the forms that can follow one another."""
    assert plan_outputs([Path("a"), Path("b")], None, "json") == [None, None]
    assert plan_outputs([Path("a")], None, "srt") == [None]


def test_a_folder_gets_a_file_for_each_recording(tmp_path: Path) -> None:
    """Named after the recording, with the form's suffix."""
    files = [Path("x/a.wav"), Path("y/b.flac")]
    assert plan_outputs(files, tmp_path, "vtt") == [tmp_path / "a.vtt", tmp_path / "b.vtt"]
    assert plan_outputs(files[:1], tmp_path / "name.txt", "text") == [tmp_path / "name.txt"]


@pytest.mark.parametrize(
    ("files", "output", "form", "reason"),
    [
        (["a.wav", "b.wav"], None, "srt", "can't be one srt"),
        (["a.wav", "b.wav"], "one.txt", "text", "need a folder"),
        (["x/a.wav", "y/a.flac"], ".", "text", "would all be written to"),
        (["talk.txt"], ".", "text", "overwrite the recording"),
        (["a.wav"], "missing/one.txt", "text", "does not exist"),
    ],
)
def test_an_output_that_can_not_be_is_refused_with_the_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    output: str | None,
    form: Format,
    reason: str,
) -> None:
    """Before an hour of work, not after it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputPlanError, match=reason):
        plan_outputs([Path(name) for name in files], None if output is None else Path(output), form)


def test_a_new_file_has_the_usual_rights_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    """A temporary file is private; what it becomes is not."""
    before = os.umask(0o022)
    try:
        new, old = tmp_path / "new.txt", tmp_path / "old.txt"
        old.write_text("before")
        old.chmod(0o640)
        write_atomically(new, "m\u00f6rning\n")
        write_atomically(old, "after\n")
    finally:
        os.umask(before)
    assert new.read_bytes() == "m\u00f6rning\n".encode()
    assert old.read_text() == "after\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (new, old)] == [0o644, 0o640]
    assert sorted(tmp_path.iterdir()) == [new, old]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk in the middle of it."""
    path = tmp_path / "talk.txt"
    path.write_text("before")

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("voice_agent.cli.transcribe_output.os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
