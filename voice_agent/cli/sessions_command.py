"""``voice-agent sessions``: see the calls of a running server, follow one, end one."""

import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from voice_agent.cli import exit_codes
from voice_agent.cli.running import run_program
from voice_agent.cli.server_access import (
    ServerAccess,
    clear_text_risk,
    read_access,
    server_access_options,
)
from voice_agent.cli.sessions_client import RequestRefusedError, SessionsClient, open_sessions_client
from voice_agent.cli.sessions_display import describe_event, show_json, show_session, show_sessions
from voice_agent.cli.sessions_follow import BrokenStreamError, Following, read_event
from voice_agent.core.errors import SessionClosedError, VoiceAgentError
from voice_agent.core.event_lines import EventTooLargeError, ServerSentEvent
from voice_agent.core.transport import Wire
from voice_agent.session.summary import SessionState
from voice_agent.web.session_routes import SessionQuery

DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
MAX_LISTED: Final = 10_000
EXIT_CODES: Final = """\b
Exit codes:
  0    done
  1    there is no such session, or it ended a while ago
  2    the command line is wrong
  69   the server can't be reached, or refuses for now
  70   the stream broke off
  77   the key is missing, wrong, or may not do that
  130  Ctrl-C
"""

Command = TypeVar("Command", bound=Callable[..., Any])
ResultT = TypeVar("ResultT")

_DURATION: Final = re.compile(r"(?P<count>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class ServerUrl(click.ParamType[str]):
    """The address of a server: scheme, host, port."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address, or fail with what is wrong about it."""
        text = str(value)
        try:
            parts = urlsplit(text)
            is_complete = bool(parts.hostname) and parts.port != 0
        except ValueError as error:
            self.fail(f"{text!r}: {error}", param, ctx)
        if parts.scheme not in {"http", "https"}:
            self.fail(f"{text!r} does not begin with http:// or https://", param, ctx)
        if not is_complete or not text.isascii() or not text.isprintable() or " " in text:
            self.fail(f"{text!r} names no host or port", param, ctx)
        if parts.username is not None or parts.query or parts.fragment:
            self.fail("give scheme, host and port, and the key with --key-file", param, ctx)
        return text.rstrip("/")


class Since(click.ParamType[datetime]):
    """A moment: ``15m`` (ago), or a time as in RFC 3339."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return the moment, or fail with what it may look like."""
        if (ago := _DURATION.fullmatch(str(value))) is not None:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not like 15m, 2h or 2026-01-31T12:00:00Z", param, ctx)
        return moment.astimezone(UTC)


def server_options(command: Command) -> Command:
    """Add what every command here needs: which server, which key, and whether the output is for machines."""
    for option in (
        click.option("--json", "is_json", is_flag=True, help="One JSON object a line."),
        server_access_options,
        click.option(
            "--server",
            type=ServerUrl(),
            default=DEFAULT_SERVER,
            envvar="VOICE_AGENT_SERVER",
            show_default=True,
            show_envvar=True,
            help="The server.",
        ),
    ):
        command = option(command)
    return command


@click.group("sessions", short_help="See, follow and end calls of a running server.", epilog=EXIT_CODES)
def sessions_group() -> None:
    """See the calls of a running server, follow one, end one.

    The key needs the scope "observe"; "admin" to end a call, and to read the words of one that is followed.
    """


@sessions_group.command("list", epilog=EXIT_CODES)
@click.option("--key", "key_id", help="Only calls of this key, or of this subject of a token.")
@click.option(
    "--wire", type=click.Choice([str(wire) for wire in Wire]), help="Only calls that came this way."
)
@click.option(
    "--state",
    type=click.Choice([str(state) for state in SessionState]),
    help="Only sessions in this state; without it those that are not over.",
)
@click.option(
    "--since", type=Since(), help="Only those opened since then: 15m, 2h, or a time as in RFC 3339."
)
@click.option(
    "--limit",
    type=click.IntRange(1, MAX_LISTED),
    default=SessionQuery().limit,
    show_default=True,
    help="How many at most, the newest first.",
)
@server_options
def list_sessions(
    key_id: str | None,
    wire: str | None,
    state: str | None,
    since: datetime | None,
    limit: int,
    server: str,
    key_file: Path | None,
    ca_file: Path | None,
    is_json: bool,
) -> None:
    """List sessions, the newest first."""
    filters = {
        "key": key_id,
        "wire": wire,
        "state": state,
        "opened_since": None if since is None else since.isoformat(),
    }
    given = {name: value for name, value in filters.items() if value is not None}
    with told_errors():
        listed = ask(server, read_access(key_file, ca_file), lambda client: client.sessions(given, limit))
    if is_json:
        for session in listed.sessions:
            show_json(session, sys.stdout)
    elif listed.sessions:
        show_sessions(listed.sessions, sys.stdout)
    else:
        click.echo("No sessions.", err=True)
    if listed.silent_nodes:
        click.echo(f"Without those of nodes that do not answer: {', '.join(listed.silent_nodes)}.", err=True)
    if listed.has_more:
        click.echo(f"There are more than {limit}: raise --limit, or filter.", err=True)


@sessions_group.command("show", epilog=EXIT_CODES)
@click.argument("session_id", metavar="SESSION")
@server_options
def show(session_id: str, server: str, key_file: Path | None, ca_file: Path | None, is_json: bool) -> None:
    """Show all that is known of a session; for ten minutes after its end too."""
    with told_errors():
        session = ask(server, read_access(key_file, ca_file), lambda client: client.session(session_id))
    (show_json if is_json else show_session)(session, sys.stdout)


@sessions_group.command("end", epilog=EXIT_CODES)
@click.argument("session_ids", metavar="SESSION...", nargs=-1, required=True)
@server_options
def end(
    session_ids: tuple[str, ...], server: str, key_file: Path | None, ca_file: Path | None, is_json: bool
) -> None:
    """End sessions in order: what was said is recognised and told, then they are closed."""

    async def end_all(client: SessionsClient) -> None:
        for session_id in session_ids:
            ended = await client.end(session_id)
            if is_json:
                show_json(ended or {"id": session_id, "state": "ended"}, sys.stdout)
            else:
                click.echo(f"{session_id}: {'ending' if ended else 'had ended already'}")

    with told_errors():
        ask(server, read_access(key_file, ca_file), end_all)


@sessions_group.command("tail", epilog=EXIT_CODES)
@click.argument("session_id", metavar="SESSION")
@click.option(
    "--after", type=click.IntRange(0), help="Begin behind this event's number, if it is still kept."
)
@server_options
def tail(
    session_id: str,
    after: int | None,
    server: str,
    key_file: Path | None,
    ca_file: Path | None,
    is_json: bool,
) -> None:
    """Follow a session's events to its end.

    When the connection breaks, it is opened again, and goes on where it was.
    """
    following = Following(session_id, after=after, show=_show_json_event if is_json else _show_event)
    with told_errors():
        ask(server, read_access(key_file, ca_file), following.run)


def ask(
    server: str,
    access: ServerAccess,
    question: Callable[[SessionsClient], Awaitable[ResultT]],
    *,
    command: str = "sessions",
) -> ResultT:
    """Ask a server, and return what it says; ``command`` is who warns of a key in the clear."""
    if access.key is not None and (risk := clear_text_risk(server)) is not None:
        click.echo(f"voice-agent {command}: {risk}", err=True)

    async def program() -> ResultT:
        async with open_sessions_client(server, access) as client:
            return await question(client)

    return run_program(program)


@contextmanager
def told_errors(command: str = "sessions") -> Iterator[None]:
    """Tell what went wrong in a line that begins with the command, and exit with the code that fits."""
    try:
        yield
    except VoiceAgentError as error:
        click.echo(f"voice-agent {command}: {error.message}", err=True)
        sys.exit(_exit_code(error))


def _exit_code(error: VoiceAgentError) -> int:
    match error:
        case RequestRefusedError(answered=HTTPStatus.NOT_FOUND):
            return exit_codes.NOT_FOUND
        case RequestRefusedError(told=SessionClosedError.code):
            return exit_codes.NOT_FOUND
        case RequestRefusedError(answered=HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN):
            return exit_codes.NOT_PERMITTED
        case BrokenStreamError() | EventTooLargeError():
            return exit_codes.FAILED
    return exit_codes.SERVER_UNREACHABLE


def _show_event(event: ServerSentEvent) -> None:
    click.echo(describe_event(event.kind, read_event(event)))


def _show_json_event(event: ServerSentEvent) -> None:
    show_json(read_event(event), sys.stdout)
