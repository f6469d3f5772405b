"""``voice-agent journals``: what a server keeps of calls, listed, shown, exported, deleted."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, TextIO

import click

from voice_agent.cli import exit_codes
from voice_agent.cli.call_display import printable
from voice_agent.cli.journals_client import JournalsClient
from voice_agent.cli.journals_display import show_journals
from voice_agent.cli.server_access import read_access
from voice_agent.cli.sessions_client import SessionsClient
from voice_agent.cli.sessions_command import MAX_LISTED, ask, server_options, told_errors
from voice_agent.cli.sessions_display import show_json, show_session
from voice_agent.core.journal import RecordState
from voice_agent.web.journal_routes import JournalQuery

COMMAND: Final = "journals"
OWNER_ONLY: Final = 0o600
EXIT_CODES: Final = """\b
Exit codes:
  0    done
  1    nothing is kept of such a session
  2    the command line is wrong
  69   the server can't be reached, or refuses for now: its store is away, or the call still runs
  70   an export broke off; what came of it is no complete one
  73   the file can't be written
  77   the key is missing, wrong, or may not do that
  130  Ctrl-C
"""

_asked: Final = partial(ask, command=COMMAND)


@click.group(
    "journals", short_help="List, read, export and delete what a server keeps of calls.", epilog=EXIT_CODES
)
def journals_group() -> None:
    """List, read, export and delete what a server keeps of calls.

    A server keeps the finals, the notices and the end of each call, for as long as its settings or the caller's key
    say; docs/storage.md has more. "voice-agent sessions" shows the calls that run.

    The key needs the scope "observe"; "admin" to read words, and to delete.

    \b
    voice-agent journals list --state ended
    voice-agent journals show --transcript b1946ac92492d2347c6235b4d2611184
    voice-agent journals export b1946ac92492d2347c6235b4d2611184 -o call.ndjson
    voice-agent journals delete b1946ac92492d2347c6235b4d2611184
    """  # noqa: D301 - click's mark for a paragraph that is not to be wrapped


@journals_group.command("list", short_help="List what is kept, the newest first.", epilog=EXIT_CODES)
@click.option("--key", "key_id", help="Only sessions of this key, or of this subject of a token.")
@click.option(
    "--state",
    type=click.Choice([str(state) for state in RecordState]),
    help="Only sessions in this state; detached ones can still be resumed.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LISTED),
    default=JournalQuery().limit,
    show_default=True,
    help="How many at most, the newest first.",
)
@server_options
def list_journals(
    key_id: str | None,
    state: str | None,
    limit: int,
    server: str,
    key_file: Path | None,
    ca_file: Path | None,
    is_json: bool,
) -> None:
    """List what is kept: sessions, the newest first, and when each will be deleted."""
    filters = {"key": key_id, "state": state}
    given = {name: value for name, value in filters.items() if value is not None}

    async def look(client: SessionsClient) -> tuple[list[dict[str, object]], bool]:
        return await JournalsClient(client).journals(given, limit)

    with told_errors(COMMAND):
        found, has_more = _asked(server, read_access(key_file, ca_file), look)
    if is_json:
        for journal in found:
            show_json(journal, sys.stdout)
    elif found:
        show_journals(found, sys.stdout)
    else:
        click.echo("Nothing is kept.", err=True)
    if has_more:
        click.echo(f"There are more than {limit}: raise --limit, or filter.", err=True)


@journals_group.command("show", short_help="Show a session's record, or what was said.", epilog=EXIT_CODES)
@click.argument("session_id", metavar="SESSION")
@click.option(
    "--transcript", is_flag=True, help="What was said, instead of the record; needs the scope admin."
)
@server_options
def show(
    session_id: str,
    transcript: bool,
    server: str,
    key_file: Path | None,
    ca_file: Path | None,
    is_json: bool,
) -> None:
    """Show the record of a session, or with --transcript what was said in it, a final a line."""

    async def look(client: SessionsClient) -> None:
        journals = JournalsClient(client)
        if transcript:
            text = await journals.transcript(session_id, "json" if is_json else "text")
            for line in text.splitlines():
                click.echo(line if is_json else printable(line))
        else:
            (show_json if is_json else show_session)(await journals.journal(session_id), sys.stdout)

    with told_errors(COMMAND):
        _asked(server, read_access(key_file, ca_file), look)


@journals_group.command("export", epilog=EXIT_CODES)
@click.argument("session_id", metavar="SESSION")
@click.option(
    "--output",
    "-o",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, which must not exist yet and is its owner's alone; standard output otherwise.",
)
@server_options
def export(
    session_id: str,
    path: Path | None,
    server: str,
    key_file: Path | None,
    ca_file: Path | None,
    is_json: bool,
) -> None:
    """Export all that is kept of a session, as lines of JSON.

    The first line has the record, each further one an entry of the journal, the last one says how many entries there
    were. A file stands there only when the export is complete. With --json, a last line on standard error tells that
    to programs.
    """

    async def save(client: SessionsClient) -> None:
        with _writing(path) as write:
            count = await JournalsClient(client).export(session_id, write)
        where = "" if path is None else f" to {path}"
        told = json.dumps({"id": session_id, "entries": count}) if is_json else f"{count} entries{where}"
        click.echo(told, err=True)

    with told_errors(COMMAND):
        _asked(server, read_access(key_file, ca_file), save)


@journals_group.command("delete", epilog=EXIT_CODES)
@click.argument("session_ids", metavar="SESSION...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Don't ask first; needed where nobody sits at a terminal.")
@server_options
def delete(
    session_ids: tuple[str, ...],
    yes: bool,
    server: str,
    key_file: Path | None,
    ca_file: Path | None,
    is_json: bool,
) -> None:
    """Delete all that is kept of sessions, for good.

    A call that still runs is refused; end it first.
    """
    if not yes:
        if not _is_somebody_there():
            raise click.UsageError("nobody can be asked here; say --yes if it is meant")
        if not click.confirm(f"Delete what is kept of {len(session_ids)} session(s), for good?", err=True):
            raise click.exceptions.Exit(exit_codes.INTERRUPTED)

    async def delete_all(client: SessionsClient) -> None:
        for session_id in session_ids:
            await JournalsClient(client).delete(session_id)
            if is_json:
                show_json({"id": session_id, "deleted": True}, sys.stdout)
            else:
                click.echo(f"{session_id}: deleted")

    with told_errors(COMMAND):
        _asked(server, read_access(key_file, ca_file), delete_all)


def _is_somebody_there() -> bool:
    return sys.stdin.isatty()


@contextmanager
def _writing(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Write lines; a file gets its name when all of them are in it."""
    if path is None:
        yield click.echo
        return
    unfinished = path.with_name(f"{path.name}.part")
    with _told_file_errors(path), _new_file(path, unfinished) as file:
        try:
            yield lambda line: print(line, file=file)
            file.flush()
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink()
            raise


def _new_file(path: Path, unfinished: Path) -> TextIO:
    if path.exists():
        raise FileExistsError(None, "it exists already")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, OWNER_ONLY)
    return os.fdopen(descriptor, "w", encoding="utf-8")


@contextmanager
def _told_file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        click.echo(f"voice-agent {COMMAND}: {path} can't be written: {error.strerror}", err=True)
        raise click.exceptions.Exit(exit_codes.CANT_CREATE) from error
