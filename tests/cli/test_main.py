"""The command group: it loads what is asked for, and ends without a trace."""

import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from voice_agent.cli import main as main_module
from voice_agent.cli.main import main


def test_the_help_names_every_command_with_a_whole_sentence() -> None:
    """A newcomer chooses from this list; a summary that is cut off in the middle helps nobody."""
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    listed = result.output.split("Commands:\n")[1].strip().splitlines()
    assert [line.split()[0] for line in listed] == [
        "serve",
        "call",
        "transcribe",
        "say",
        "talk",
        "keys",
        "sessions",
        "nodes",
        "journals",
        "models",
        "settings",
    ]
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


@pytest.mark.parametrize("name", ["serve", "call", "transcribe", "keys", "nodes", "models", "settings"])
def test_every_command_has_help_that_names_its_exit_codes(name: str) -> None:
    """What a script branches on is documented where it is looked for."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0
    assert "Exit codes:" in result.output


def test_an_unknown_command_is_wrong_usage() -> None:
    """Exit code 2, and the name in the message."""
    result = CliRunner().invoke(main, ["sing"])
    assert result.exit_code == 2
    assert "No such command 'sing'" in result.output


def test_ctrl_c_outside_a_program_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a command reads its files, for instance."""

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        main, "get_command", lambda _ctx, _name: click.Command("models", callback=interrupted)
    )
    assert CliRunner().invoke(main, ["models"]).exit_code == 130


def test_loading_a_command_leaves_the_signal_handler_as_it_was() -> None:
    """An embedding program, or pytest, keeps its Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    assert CliRunner().invoke(main, ["models", "--help"]).exit_code == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_a_foreign_signal_handler_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ignores Ctrl-C for us (nohup, a shell's background) means it."""
    seen = []
    monkeypatch.setattr(
        main_module, "import_module", lambda _name: seen.append(signal.getsignal(signal.SIGINT))
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(AttributeError):
            main.get_command(click.Context(main), "models")
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIG_IGN]


def test_ctrl_c_while_modules_load_ends_the_process_by_the_signal() -> None:
    """No page of trace from the middle of an import."""
    program = (
        "import signal, sys\n"
        "from voice_agent.cli import main as module\n"
        "module.import_module = lambda _name: signal.raise_signal(signal.SIGINT)\n"
        "sys.argv = ['voice-agent', 'models']\n"
        "module.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_an_output_that_can_not_be_written_is_one_line_and_exit_code_70() -> None:
    """A full disk is no defect of ours."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "voice_agent", "settings", "reference"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 70
    assert done.stderr == "voice-agent: the output can't be written: No space left on device\n"
