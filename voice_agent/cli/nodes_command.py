"""``voice-agent nodes``: the processes that work as one with a running server, and how they do."""

import sys
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from voice_agent.cli.call_display import printable
from voice_agent.cli.server_access import read_access
from voice_agent.cli.sessions_command import ask, server_options, told_errors
from voice_agent.cli.sessions_display import PIPE_WIDTH, show_json

COMMAND: Final = "nodes"
EXIT_CODES: Final = """\b
Exit codes:
  0    done
  2    the command line is wrong
  69   the server can't be reached, or refuses for now
  77   the key is missing, wrong, or may not do that
  130  Ctrl-C
"""
_COLUMNS: Final = ("NODE", "STATE", "CALLS", "OF", "LOAD", "HEARD", "VERSION", "ADDRESS")
_STYLES: Final = {"open": "green", "starting": "yellow", "draining": "yellow"}


@click.command("nodes", short_help="See the nodes that work as one with a running server.", epilog=EXIT_CODES)
@server_options
def nodes(server: str, key_file: Path | None, ca_file: Path | None, is_json: bool) -> None:
    """See the nodes that work as one with a running server: state, calls, load, and how long ago they were heard.

    The key needs the scope "observe", and must not belong to a tenant with a name of its own.
    """
    with told_errors(COMMAND):
        found = ask(server, read_access(key_file, ca_file), lambda client: client.nodes(), command=COMMAND)
    listed = found.get("nodes", [])
    if is_json:
        for node in listed:
            show_json(node, sys.stdout)
    else:
        _show(listed)
    if found.get("is_directory_away"):
        click.echo("Nothing is heard of other nodes: where they meet is away.", err=True)


def _show(listed: list[dict[str, Any]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in _COLUMNS:
        is_figure = heading in {"CALLS", "OF", "LOAD", "HEARD"}
        table.add_column(heading, justify="right" if is_figure else "left", no_wrap=True)
    for node in listed:
        state = str(node.get("state"))
        heard = "self" if node.get("is_self") else f"{_figure(node, 'age_seconds'):.1f} s ago"
        table.add_row(
            _plain(node.get("node")),
            Text(printable(state), style=_STYLES.get(state, "")),
            *(_plain(node.get(name)) for name in ("calls", "capacity")),
            _plain(f"{_figure(node, 'load'):.0%}"),
            _plain(heard),
            *(_plain(node.get(name) or "-") for name in ("version", "address")),
        )
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def _figure(node: dict[str, Any], name: str) -> float:
    value = node.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _plain(value: object) -> Text:
    return Text(printable(str(value)))
