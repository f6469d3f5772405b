"""``voice-agent settings``: check them before a start, show those in force, print the reference file."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from voice_agent.cli import exit_codes
from voice_agent.core.errors import SettingsError
from voice_agent.settings.changes import differences
from voice_agent.settings.layers import LayerKind, Source
from voice_agent.settings.load import LoadedSettings, load_settings
from voice_agent.settings.write import render_reference, render_settings

config_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--config",
    "config_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Read this settings file; repeat for more, later wins. Replaces ./settings.toml and ./settings.local.toml.",
)
"""The option of every command that reads settings; gives ``config_files``, a tuple of paths."""


@click.group("settings")
def settings_group() -> None:
    """Check, show and explain the settings.

    Later wins: defaults, ./settings.toml, ./settings.local.toml, environment variables like
    VOICE_AGENT__SERVER__PORT, flags.

    Exit codes: 0 fine, 2 wrong usage, 78 the settings are wrong.
    """


@settings_group.command("check", short_help="Check the settings and name all that is wrong.")
@click.option(
    "--against",
    "against",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Tell what would change for a server that runs with this settings file: at once, or with a restart.",
)
@config_option
def check(config_files: tuple[Path, ...], against: Path | None) -> None:
    """Check every setting of every layer and name all that is wrong.

    Exit codes: 0 all settings are right, 2 wrong usage, 78 they are not; the errors are on stderr.
    """
    loaded = _load_or_exit(config_files)
    sources = loaded.sources
    counts = Counter(map(_layer_name, sources.values()))
    summary = ", ".join(f"{name} ({count})" for name, count in counts.items())
    click.echo(f"settings ok: {len(sources)} values, sources: {summary}")
    if against is not None:
        _tell_changes(_load_or_exit((against,)), loaded)


@settings_group.command("show", short_help="Print the settings in force, each with its source.")
@config_option
def show(config_files: tuple[Path, ...]) -> None:
    """Print the settings in force as TOML, each with its source; secrets are redacted.

    Exit codes: 0 fine, 2 wrong usage, 78 the settings are wrong; the errors are on stderr.
    """
    click.echo(render_settings(_load_or_exit(config_files)), nl=False)


@settings_group.command("reference", short_help="Print a file with every setting and its default.")
def reference() -> None:
    """Print a settings file with every setting, its default, unit, range and purpose.

    Exit codes: 0 fine, 2 wrong usage.
    """
    click.echo(render_reference(), nl=False)


def _tell_changes(running: LoadedSettings, wanted: LoadedSettings) -> None:
    differing = differences(running.settings, wanted.settings)
    for field in differing:
        click.echo(f"{field.key}: {'at once' if field.live else 'with a restart'}")
    if not differing:
        click.echo("nothing would change")


def _load_or_exit(config_files: tuple[Path, ...]) -> LoadedSettings:
    try:
        return load_settings(files=config_files or None)
    except SettingsError as error:
        click.echo(error.message, err=True)
        raise SystemExit(exit_codes.SETTINGS) from None


def _layer_name(source: Source) -> str:
    if source.kind is LayerKind.FILE:
        return source.name
    if source.kind is LayerKind.MOUNTED_FILE:
        return LayerKind.ENVIRONMENT.value
    return source.kind.value
