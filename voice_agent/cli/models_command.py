"""``voice-agent models``: which model files are used, and whether they are the right ones and load."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.table import Table

from voice_agent.cli import exit_codes
from voice_agent.cli.settings_command import config_option
from voice_agent.core.errors import SettingsError
from voice_agent.settings.load import load_settings
from voice_agent.speech.models import ModelCheck, check_models

_SHORT_SUM_CHARACTERS: Final = 12
_MEGABYTE: Final = 1e6
_WIDTH_OF_A_FILE: Final = 10_000
"""Characters; what is not a terminal gets one line a model, however long its path."""


@click.command(short_help="List the speech models, and whether they load.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with full checksums.")
def models(config_files: tuple[Path, ...], as_json: bool) -> None:
    """List the speech models: file, size, checksum, licence, and whether each loads.

    Exit codes: 0 all are right and load, 2 wrong usage, 78 a setting or a model file is wrong; the errors are on
    stderr.
    """
    try:
        settings = load_settings(files=config_files or None).settings
    except SettingsError as error:
        click.echo(error.message, err=True)
        sys.exit(exit_codes.SETTINGS)
    checks = check_models(settings)
    if as_json:
        click.echo(json.dumps({"models": [_as_json(check) for check in checks]}, indent=2))
    else:
        _print_table(checks)
    problems = [check.error.message for check in checks if check.error is not None]
    for problem in problems:
        click.echo(problem, err=True)
    sys.exit(exit_codes.SETTINGS if problems else exit_codes.OK)


def _as_json(check: ModelCheck) -> dict[str, object]:
    file = check.file
    return {
        "name": check.name,
        "file": None if file is None else str(file.path),
        "size_bytes": None if file is None else file.size,
        "sha256": None if file is None else file.sha256,
        "licence": check.licence,
        "setting": check.setting,
        "loads": check.error is None,
        "error": None if check.error is None else check.error.message,
    }


def _print_table(checks: Sequence[ModelCheck]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("model", "size", "sha256", "licence", "loads"):
        table.add_column(column, no_wrap=True)
    # Folded, not cut: a path that lost its middle is no path.
    table.add_column("file", overflow="fold")
    for check in checks:
        file = check.file
        table.add_row(
            check.name,
            "-" if file is None else f"{file.size / _MEGABYTE:.1f} MB",
            "-" if file is None else file.sha256[:_SHORT_SUM_CHARACTERS],
            check.licence,
            "yes" if check.error is None else "no",
            "-" if file is None else str(file.path),
        )
    is_terminal = sys.stdout.isatty()
    Console(width=None if is_terminal else _WIDTH_OF_A_FILE).print(table)
