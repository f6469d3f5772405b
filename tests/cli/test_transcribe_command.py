"""``voice-agent transcribe`` as a user runs it, with a session that the test plays; and once with the real one."""

import importlib.util
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile
import trio
from click.testing import CliRunner, Result

from voice_agent.cli import transcribe_command
from voice_agent.cli.transcribe_command import show_progress, transcribe
from voice_agent.cli.transcribe_run import TranscribeJob
from voice_agent.core.errors import ModelFileError
from voice_agent.core.events import CloseReason, CloseRecord, SessionClosed, SessionEvent, Transcript
from voice_agent.core.frames import AudioFrame
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.settings.schema import Settings

PROCESS_SECONDS = 120


class PlayedSession:
    """Hears "so many seconds", once, at the end."""

    def __init__(self, reason: CloseReason = CloseReason.STOPPED) -> None:
        self._reason = reason
        self._seconds = 0.0
        self._send, self._receive = trio.open_memory_channel[SessionEvent](10)

    async def send_audio(self, frame: AudioFrame) -> None:
        """Count."""
        await trio.lowlevel.checkpoint()
        self._seconds += frame.duration_seconds

    def events(self) -> AsyncIterator[SessionEvent]:
        """Return the reader's end."""
        return self._receive

    async def finish(self) -> None:
        """Say how many."""
        result = TranscriptResult(
            text=f"{self._seconds:g} seconds", is_final=True, start=0.0, end=self._seconds, utterance=1
        )
        record = CloseRecord(
            session_id="x",
            reason=self._reason,
            error_code=None,
            duration_seconds=1.0,
            audio_seconds=1.0,
            dropped_audio_ms=0,
            transcripts=1,
            close_seconds=0.0,
            stage_waited_for="",
            tasks_left=0,
        )
        await self._send.send(Transcript(result=result))
        await self._send.send(SessionClosed(record=record))
        self._send.close()


Play = Callable[[], PlayedSession]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Play], None]:
    """Choose the session that the command opens; runs in an empty folder, and leaves logging alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transcribe_command, "configure_logging", lambda _level, _form: None)

    def choose(make: Play) -> None:
        @asynccontextmanager
        async def open_hearing(_settings: Settings) -> AsyncIterator[Any]:
            @asynccontextmanager
            async def open_one() -> AsyncIterator[PlayedSession]:
                yield make()

            async with trio.open_nursery():  # as the services do: what is raised comes out in a group
                yield open_one

        monkeypatch.setattr(transcribe_command, "open_hearing", open_hearing)

    choose(PlayedSession)
    return choose


def wav(path: Path, seconds: float) -> Path:
    """Write silence."""
    soundfile.write(path, np.zeros(round(seconds * 16_000)), 16_000)
    return path


def run(*args: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(transcribe, [str(arg) for arg in args])


@pytest.mark.usefixtures("play")
def test_the_words_go_to_standard_output_and_nothing_else_does(tmp_path: Path) -> None:
    """No progress, no log lines: a pipe gets text."""
    result = run(wav(tmp_path / "a.wav", 2.5))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "2.5 seconds\n", "")


@pytest.mark.usefixtures("play")
def test_several_texts_are_told_apart_by_headings_and_several_json_objects_by_their_file(
    tmp_path: Path,
) -> None:
    """As head and tail do it."""
    files = [wav(tmp_path / "a.wav", 1), wav(tmp_path / "b.wav", 2)]
    assert run(*files).stdout == "==> a.wav <==\n1 seconds\n==> b.wav <==\n2 seconds\n"
    lines = [json.loads(line) for line in run("--format", "json", *files).stdout.splitlines()]
    assert [(line["file"], line["duration_seconds"], line["text"]) for line in lines] == [
        (str(files[0]), 1.0, "1 seconds"),
        (str(files[1]), 2.0, "2 seconds"),
    ]


@pytest.mark.usefixtures("play")
def test_output_names_the_file_and_its_suffix_the_form(tmp_path: Path) -> None:
    """Nothing on standard output then."""
    result = run("--output", tmp_path / "talk.srt", wav(tmp_path / "a.wav", 1))
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "talk.srt").read_text() == "1\n00:00:00,000 --> 00:00:01,000\n1 seconds\n"


@pytest.mark.usefixtures("play")
def test_a_headerless_file_is_read_in_its_stated_format(tmp_path: Path) -> None:
    """8000 bytes of 8 kHz mu-law are a second."""
    path = tmp_path / "a.raw"
    path.write_bytes(b"\xff" * 8000)
    assert run("--raw", "mulaw:8000", path).stdout == "1 seconds\n"


@pytest.mark.usefixtures("play")
@pytest.mark.parametrize(
    "args",
    [[], ["--format", "doc", "a.wav"], ["--output", "x.txt", "a.wav", "b.wav"], ["--raw", "mp3", "a.wav"]],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    """Before anything is read."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert "Usage:" in result.stderr


@pytest.mark.usefixtures("play")
def test_an_unreadable_file_exits_with_66_before_any_work(tmp_path: Path) -> None:
    """Also when it is the last of several."""
    result = run(wav(tmp_path / "a.wav", 1), tmp_path / "missing.wav")
    assert result.exit_code == 66
    assert result.stdout == ""
    assert result.stderr.startswith(f"voice-agent transcribe: {tmp_path}/missing.wav can't be read: ")


def test_a_session_that_fails_exits_with_70_and_writes_nothing(
    play: Callable[[Play], None], tmp_path: Path
) -> None:
    """No half transcript under the name of a whole one."""
    play(lambda: PlayedSession(CloseReason.INTERNAL_ERROR))
    result = run("--output", tmp_path / "out.txt", wav(tmp_path / "a.wav", 1))
    assert result.exit_code == 70
    assert result.stderr == "voice-agent transcribe: hearing ended after 1.0 s of audio: internal_error\n"
    assert not (tmp_path / "out.txt").exists()


def test_models_that_can_not_be_loaded_exit_with_78(
    monkeypatch: pytest.MonkeyPatch, play: Callable[[Play], None], tmp_path: Path
) -> None:
    """What serve says, transcribe says too."""
    assert callable(play)

    @asynccontextmanager
    async def open_hearing(_settings: Settings) -> AsyncIterator[Any]:
        await trio.lowlevel.checkpoint()
        raise ModelFileError("recogniser.model_dir is empty")
        yield

    monkeypatch.setattr(transcribe_command, "open_hearing", open_hearing)
    result = run(wav(tmp_path / "a.wav", 1))
    assert (result.exit_code, result.stderr) == (
        78,
        "voice-agent transcribe: recogniser.model_dir is empty\n",
    )


@pytest.mark.usefixtures("play")
def test_wrong_settings_exit_with_78(tmp_path: Path) -> None:
    """The settings file in force is read here too."""
    (tmp_path / "settings.toml").write_text("[vad]\nthreshold = 7\n")
    result = run(wav(tmp_path / "a.wav", 1))
    assert result.exit_code == 78
    lines = result.stderr.splitlines()
    assert lines[0] == "voice-agent transcribe: 1 error in the settings:"
    assert lines[1].startswith("  vad.threshold = 7 ")


@pytest.mark.usefixtures("play")
def test_an_output_that_can_not_be_written_exits_with_70(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk became full meanwhile."""

    def fail(_path: Path, _text: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transcribe_command, "write_atomically", fail)
    result = run("--output", tmp_path / "out.txt", wav(tmp_path / "a.wav", 1))
    assert result.exit_code == 70
    assert result.stderr.endswith("out.txt can't be written: No space left on device\n")


def test_ctrl_c_exits_with_130(play: Callable[[Play], None], tmp_path: Path) -> None:
    """And nothing is written."""

    class InterruptedSession(PlayedSession):
        async def send_audio(self, _frame: AudioFrame) -> None:
            signal.raise_signal(signal.SIGINT)
            await trio.sleep_forever()

    play(InterruptedSession)
    result = run("--output", tmp_path / "out.txt", wav(tmp_path / "a.wav", 1))
    assert (result.exit_code, result.output) == (130, "")
    assert not (tmp_path / "out.txt").exists()


def test_the_bar_stands_on_a_terminal_only_and_moves_with_the_audio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half of the audio is 50 %."""
    job = TranscribeJob(path=Path("a\x1b.wav"), duration_seconds=4.0, target=None)
    with show_progress(job) as on_progress:
        on_progress(2.0)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with show_progress(job) as on_progress:
        on_progress(2.0)
    shown = capsys.readouterr().err
    assert "a\ufffd.wav" in shown
    assert "50%" in shown


def test_help_documents_the_exit_codes() -> None:
    """What a script may rely on."""
    text = run("--help").stdout
    for code in ("0 ", "2 ", "66 ", "70 ", "78 ", "130 "):
        assert f"\n    {code}" in text


def speech_file(name: str) -> Path:
    """Return a recording that ships with the models."""
    found = importlib.util.find_spec("moonshine_voice")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "assets" / name


@pytest.mark.e2e
def test_real_speech_becomes_its_words(tmp_path: Path) -> None:
    """The real models, in a process of its own, into a file."""
    target = tmp_path / "beckett.json"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from voice_agent.cli.transcribe_command import transcribe; transcribe()",
            *("--output", str(target), str(speech_file("beckett.wav"))),
        ],
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    heard = json.loads(target.read_text())
    expected = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
    words = jiwer.Compose([jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.ReduceToListOfListOfWords()])
    rate = jiwer.wer(expected, heard["text"], reference_transform=words, hypothesis_transform=words)
    assert rate <= 0.1, heard["text"]
