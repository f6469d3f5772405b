"""The `settings` commands: output, exit codes, help."""

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from voice_agent.cli.settings_command import _layer_name, settings_group
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.layers import LayerKind, Source
from voice_agent.settings.schema import Settings
from voice_agent.settings.write import render_reference


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, **environ: str) -> Result:
    """Run `voice-agent settings …` with this environment added."""
    return CliRunner().invoke(settings_group, arguments, env=environ)


def test_check_counts_values_and_names_sources(folder: Path) -> None:
    """Good settings: one line on stdout, exit 0."""
    (folder / "settings.toml").write_text("[server]\nport = 1\nmax_calls = 1\n")
    result = run("check", VOICE_AGENT__SERVER__HOST="localhost")
    assert result.exit_code == 0
    count = len(fields_by_key(Settings))
    assert result.stdout == (
        f"settings ok: {count} values, sources: environment (1), settings.toml (2), default ({count - 3})\n"
    )


def test_check_counts_mounted_files_with_the_environment() -> None:
    """A secret's file is named by a variable: one layer, one count."""
    assert _layer_name(Source(LayerKind.MOUNTED_FILE, "VOICE_AGENT__A__B_FILE")) == "environment"


@pytest.mark.parametrize("command", ["check", "show"])
@pytest.mark.usefixtures("folder")
def test_wrong_settings_exit_78_with_every_error_on_stderr(command: str) -> None:
    """EX_CONFIG, nothing on stdout, no traceback."""
    result = run(command, VOICE_AGENT__SERVER__PORT="x", VOICE_AGENT__VAD__THRESHOLD="9")
    assert result.exit_code == 78
    assert result.stdout == ""
    assert result.stderr.startswith("2 errors in the settings:\n  server.port = ")
    assert result.stderr.endswith("\n")


def test_config_replaces_the_usual_files_and_repeats(folder: Path) -> None:
    """`--config a --config b`: later wins, ./settings.toml is not read; a missing one exits 78."""
    (folder / "settings.toml").write_text("broken")
    (folder / "a.toml").write_text("[server]\nport = 1\nmax_calls = 7\n")
    (folder / "b.toml").write_text("[server]\nport = 2\n")
    shown = tomllib.loads(run("show", "--config", "a.toml", "--config", "b.toml").stdout)
    assert (shown["server"]["port"], shown["server"]["max_calls"]) == (2, 7)
    result = run("check", "--config", "a.toml", "--config", "none.toml")
    assert result.exit_code == 78
    assert "none.toml: can't be read" in result.stderr


@pytest.mark.usefixtures("folder")
def test_show_prints_toml_with_sources() -> None:
    """Every value in force, each with its source."""
    result = run("show", VOICE_AGENT__SERVER__PORT="1")
    assert result.exit_code == 0
    assert "port = 1  # environment VOICE_AGENT__SERVER__PORT" in result.stdout
    assert tomllib.loads(result.stdout)["server"]["port"] == 1


def test_reference_prints_the_reference(folder: Path) -> None:
    """It needs no settings, so broken ones don't stop it."""
    (folder / "settings.toml").write_text("broken")
    result = run("reference")
    assert (result.exit_code, result.stdout) == (0, render_reference())


@pytest.mark.parametrize("arguments", [(), ("check",), ("show",), ("reference",)])
def test_help_tells_the_exit_codes(arguments: tuple[str, ...]) -> None:
    """A script's author finds them without reading code."""
    result = run(*arguments, "--help")
    assert result.exit_code == 0
    assert "Exit codes: 0 " in result.stdout
    assert run(*arguments, "--nonsense").exit_code == 2


def test_check_tells_what_a_change_would_do(folder: Path) -> None:
    """`--against` the file of a running server: what takes effect at once, and what waits for a restart."""
    (folder / "running.toml").write_text("[server]\nport = 1\n")
    (folder / "settings.toml").write_text("[server]\nport = 2\nmax_calls = 7\n")
    result = run("check", "--against", "running.toml")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == ["server.port: with a restart", "server.max_calls: at once"]
    same = run("check", "--against", "settings.toml")
    assert same.stdout.splitlines()[1:] == ["nothing would change"]
    assert run("check", "--against", "none.toml").exit_code == 78
