"""``voice-agent talk``: a conversation with the configured agent in the terminal, in text."""

import sys
from pathlib import Path
from typing import Any, Final

import click

from voice_agent.agent.agents import make_agent
from voice_agent.agent.diagram import draw
from voice_agent.cli import exit_codes
from voice_agent.cli.running import run_program
from voice_agent.cli.settings_command import config_option
from voice_agent.cli.talk_run import TalkView, Terminal
from voice_agent.core.errors import OperatorError
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.origin import SettingsOrigin

EPILOG: Final = """\b
Exit codes:
  0    the talk ended: the agent said goodbye, or the input was over
  2    the command line is wrong
  78   a setting is wrong, or names no agent
  130  Ctrl-C
"""


@click.command(epilog=EPILOG, short_help="Talk with the configured agent in the terminal, in text.")
@click.option(
    "--agent",
    metavar="NAME",
    help="none, echo, gold_loan, chat, or package.module:factory; as agent.factory.",
)
@click.option("--facts", is_flag=True, help="After each answer, show the stage and what is known.")
@click.option("--spoken", is_flag=True, help="Show what a voice would be given to say.")
@click.option("--timed", is_flag=True, help="Let silence and the stages' time limits count, as in a call.")
@click.option(
    "--draw", "draws", is_flag=True, help="Print the agent's table as a page with a diagram, and end."
)
@config_option
def talk(
    agent: str | None, facts: bool, spoken: bool, timed: bool, draws: bool, config_files: tuple[Path, ...]
) -> None:
    """Talk with the agent of the setting agent.factory: type a line, read the answer. No server, no sound.

    The end of the input (Ctrl-D) is a caller who hangs up. Settings are followed while the talk goes on.
    """
    flags: dict[str, object] = {"agent.factory": agent}
    origin = SettingsOrigin(files=config_files or None, flags=flags)
    try:
        current = CurrentSettings(origin.load().settings)
        if draws:
            click.echo(draw(_table_of(make_agent(lambda: current.now))), nl=False)
            return
        view = TalkView(out=sys.stdout, shows_facts=facts, is_spoken=spoken)
        terminal = Terminal(origin, current, view, is_timed=timed)
        run_program(terminal.run)
    except OperatorError as error:
        click.echo(error.message, err=True)
        raise SystemExit(exit_codes.SETTINGS) from None


def _table_of(agent: Any) -> Any:
    table = getattr(agent, "table", None)
    if table is None:
        raise click.UsageError("this agent follows no table; there is nothing to draw")
    return table
