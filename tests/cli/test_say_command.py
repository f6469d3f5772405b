"""``voice-agent say``: a WAV file, or one line that says why not."""

from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from voice_agent.cli.main import main


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["say", *arguments])
    return result.exit_code, result.output


def test_what_is_said_stands_in_the_file() -> None:
    """With its rate, and how long it took."""
    code, told = run("--voice", "piper", "How may I help you?", "-o", "help.wav")
    assert code == 0, told
    described = soundfile.info("help.wav")
    assert (described.samplerate, described.channels) == (22_050, 1)
    assert 0.5 < described.duration < 5
    assert "the first of it after" in told


def test_each_mistake_has_its_exit_code_and_leaves_no_file() -> None:
    """No voice chosen, nothing to say, nowhere to write, and a voice that is not there."""
    assert run("x", "-o", "a.wav")[0] == 2
    assert run("--voice", "piper", "   ", "-o", "a.wav")[0] == 70
    assert run("--voice", "piper", "x", "-o", "none/a.wav")[0] == 73
    Path("voice.toml").write_text('[voice]\nkind = "piper"\nmodel_path = "none.onnx"\n')
    code, told = run("--config", "voice.toml", "x", "-o", "a.wav")
    assert code == 78
    assert "is no file" in told
    assert not Path("a.wav").exists()
