"""``voice-agent models``."""

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from voice_agent.cli.models_command import models


def run(*arguments: str, **environment: str) -> Result:
    """Run the command with these variables."""
    return CliRunner().invoke(models, arguments, env=environment)


def test_the_table_has_a_line_for_each_model() -> None:
    """Name, size, the start of the checksum, licence, whether it loads, and the whole path."""
    result = run()
    assert result.exit_code == 0
    _, *lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [
        "moonshine-encoder",
        "moonshine-decoder",
        "moonshine-vocabulary",
        "silero-vad",
    ]
    for line in lines:
        path = Path(line.split()[-1])
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:12] in line
        assert " MIT " in line
        assert " yes " in line
        assert f"{path.stat().st_size / 1e6:.1f} MB" in line


def test_json_has_everything() -> None:
    """Machines get full checksums, bytes and the setting that chooses the file."""
    result = run("--json")
    assert result.exit_code == 0
    listed = json.loads(result.stdout)["models"]
    assert [model["setting"] for model in listed] == ["recogniser.model_dir"] * 3 + ["vad.model_path"]
    for model in listed:
        content = Path(model["file"]).read_bytes()
        assert model["sha256"] == hashlib.sha256(content).hexdigest()
        assert model["size_bytes"] == len(content)
        assert (model["loads"], model["error"], model["licence"]) == (True, None, "MIT")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_model_that_does_not_load(tmp_path: Path, as_json: bool) -> None:
    """The others are listed as well; the error is on stderr and the exit code says that the set-up is wrong."""
    gone = str(tmp_path / "gone.onnx")
    result = run(*(["--json"] if as_json else []), VOICE_AGENT__VAD__MODEL_PATH=gone)
    assert result.exit_code == 78
    assert result.stderr.startswith(f"vad.model_path: {gone} is missing; ")
    if as_json:
        *others, silero = json.loads(result.stdout)["models"]
        assert all(model["loads"] for model in others)
        assert (silero["loads"], silero["file"], silero["sha256"]) == (False, None, None)
        assert silero["error"] == result.stderr.strip()
    else:
        assert result.stdout.splitlines()[-1].split() == ["silero-vad", "-", "-", "MIT", "no", "-"]


def test_settings_come_from_the_file_given(tmp_path: Path) -> None:
    """``--config`` names the settings file, as in every command."""
    config = tmp_path / "own.toml"
    config.write_text('[vad]\nmodel_path = "/no/such/model.onnx"\n')
    result = run("--config", str(config))
    assert result.exit_code == 78
    assert "/no/such/model.onnx is missing" in result.stderr


def test_wrong_settings_are_told() -> None:
    """A mistake in the settings is the settings' error, with the same exit code."""
    result = run(VOICE_AGENT__VAD__THRESHOLD="loud")
    assert result.exit_code == 78
    assert "vad.threshold" in result.stderr
    assert result.stdout == ""
