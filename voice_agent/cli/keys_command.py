"""``voice-agent keys``: make an API key, and list those that are configured."""

import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import attrs
import click
from rich.console import Console
from rich.table import Table

from voice_agent.access.keys import NewKey, new_key
from voice_agent.cli import exit_codes
from voice_agent.cli.expiry import expiry
from voice_agent.cli.settings_command import config_option
from voice_agent.core.errors import SettingsError
from voice_agent.core.identity import Quotas, Scope
from voice_agent.settings.api_keys import ApiKey, KeysError, checked_key_id, key_line, parse_keys
from voice_agent.settings.identity_values import DEFAULT_TENANT, FaultError, Tenant
from voice_agent.settings.load import load_settings

FILE_VARIABLE: Final = "VOICE_AGENT__ACCESS__KEYS_FILE"
OWNER_ONLY: Final = 0o600
_PLACE: Final = re.compile(r"line 1(, key [^:]*)?: ")
_WIDTH_OF_A_FILE: Final = 10_000
"""Characters; what is not a terminal gets one line a key."""


@click.group("keys")
def keys() -> None:
    """Make API keys, and list those that are configured.

    A key is shown once. The server keeps a line with its hash, in a file that VOICE_AGENT__ACCESS__KEYS_FILE names (or
    in VOICE_AGENT__ACCESS__KEYS itself); never in settings.toml. Several keys are valid at once: to replace one, add
    the new one, move its callers over, and take the old line away. A running server follows.

    Exit codes: 0 fine, 2 wrong usage, 73 the file can't be written, 78 the keys or settings are wrong.
    """


@keys.command("new", short_help="Make a key, show it once, and print its line for the server.")
@click.option(
    "--id", "key_id", metavar="ID", help="Its name in logs and limits, as kiosk-1; random otherwise."
)
@click.option(
    "--scope",
    "scopes",
    type=click.Choice([str(scope) for scope in Scope]),
    multiple=True,
    help="What it may do; repeat for more.  [default: call]",
)
@click.option("--tenant", metavar="NAME", default=str(DEFAULT_TENANT), help="Whose calls it sees.")
@click.option(
    "--expires",
    callback=expiry,
    metavar="WHEN",
    help="A date (2030-01-31), or how long from now (90d, 12h); never otherwise.",
)
@click.option("--max-calls", type=int, metavar="N", help="Calls at once.")
@click.option("--calls-per-minute", type=float, metavar="N", help="New calls.")
@click.option("--requests-per-second", type=float, metavar="N", help="HTTP requests.")
@click.option("--max-duration-seconds", type=float, metavar="SECONDS", help="How long a call may last.")
@click.option(
    "--retention-hours",
    type=float,
    metavar="HOURS",
    help="How long its calls are kept after their end; 0 keeps nothing of them at all.",
)
@click.option(
    "--add-to",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Add the line to this file instead of printing it; a new file is its owner's alone.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def new(
    key_id: str | None,
    scopes: tuple[str, ...],
    tenant: str,
    expires: datetime | None,
    path: Path | None,
    as_json: bool,
    **quotas: Any,
) -> None:
    """Make a key, show it once, and print the line to configure.

    \b
    voice-agent keys new --id kiosk-1 --expires 365d
    voice-agent keys new --id grafana --scope observe --add-to /etc/voice-agent/keys.toml

    The key goes to whoever calls: as "Authorization: Bearer KEY" or "X-API-Key: KEY". The line goes to the server; it
    holds no secret that opens anything, but let nobody write it.

    Exit codes: 0 fine, 2 wrong usage, 73 the file can't be written, 78 it holds something else than keys.
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped
    try:
        key = new_key(None if key_id is None else checked_key_id(key_id))
    except FaultError as error:
        raise click.BadParameter(str(error), param_hint="--id") from None
    known = ApiKey(
        sha256=bytes.fromhex(key.sha256),
        scopes=frozenset(map(Scope, scopes)) or frozenset({Scope.CALL}),
        tenant=Tenant(tenant),
        expires=expires,
        quotas=Quotas(**quotas),
    )
    line = key_line(key.key_id, known)
    try:
        parse_keys(line)
    except KeysError as error:
        raise click.UsageError(_PLACE.sub("", str(error))) from None
    if path is not None:
        _add(line, key, path)
    if as_json:
        click.echo(json.dumps({"id": key.key_id, "key": key.text, "line": line}, indent=2))
    elif path is not None:
        click.echo(f"The key, shown this once:\n\n{key.text}\n\nIts line stands in {path}.")
    else:
        click.echo(
            f"The key, shown this once, for whoever calls:\n\n{key.text}\n\n"
            f"Its line, for the file that {FILE_VARIABLE} names:\n\n{line}"
        )


@keys.command("list", short_help="List the keys that are configured.")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_keys(config_files: tuple[Path, ...], as_json: bool) -> None:
    """List the keys that the settings hold: id, scopes, tenant, expiry, quotas. Hashes are not shown.

    Exit codes: 0 fine, 2 wrong usage, 78 the keys or other settings are wrong; the errors are on stderr.
    """
    try:
        configured = parse_keys(load_settings(files=config_files or None).settings.access.keys)
    except SettingsError as error:
        click.echo(error.message, err=True)
        sys.exit(exit_codes.SETTINGS)
    now = datetime.now(UTC)
    rows = [_row(key_id, key, now) for key_id, key in configured.items()]
    if as_json:
        click.echo(json.dumps({"keys": rows}, indent=2))
        return
    table = Table("id", "scopes", "tenant", "expires", "quotas", box=None, pad_edge=False)
    for row in rows:
        expires = "never" if row["expires"] is None else row["expires"]
        quotas = ", ".join(f"{name} {value:g}" for name, value in row["quotas"].items()) or "-"
        table.add_row(
            row["id"],
            ", ".join(row["scopes"]),
            row["tenant"],
            f"{expires} (expired)" if row["expired"] else expires,
            quotas,
        )
    Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE).print(table)


def _row(key_id: str, key: ApiKey, now: datetime) -> dict[str, Any]:
    return {
        "id": key_id,
        "scopes": sorted(map(str, key.scopes)),
        "tenant": key.tenant,
        "expires": None if key.expires is None else key.expires.isoformat(),
        "expired": key.expires is not None and key.expires <= now,
        "quotas": {name: value for name, value in attrs.asdict(key.quotas).items() if value is not None},
    }


def _add(line: str, key: NewKey, path: Path) -> None:
    """Add a key's line to a file of keys; what stands there stays as it is."""
    try:
        before = path.read_text() if path.exists() else ""
        text = before if before.endswith("\n") or not before else before + "\n"
        parse_keys(text)
        try:
            parse_keys(text + line)
        except KeysError:
            raise click.UsageError(f"{path} has a key {key.key_id} already") from None
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, OWNER_ONLY)
        with os.fdopen(descriptor, "w") as file:
            file.write(text.removeprefix(before) + line + "\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        click.echo(f"{path} can't be written: {reason}", err=True)
        sys.exit(exit_codes.CANT_CREATE)
    except KeysError as error:
        click.echo(f"{path} is left as it is: {error}", err=True)
        sys.exit(exit_codes.SETTINGS)
