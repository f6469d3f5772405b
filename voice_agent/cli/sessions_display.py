"""How ``voice-agent sessions`` shows sessions and events: a table on a terminal, columns in a pipe, JSON for machines."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from voice_agent.cli.call_display import printable

PIPE_WIDTH: Final = 200
"""Columns of a table that goes to a file or another program: no id may be cut."""
SECONDS_A_MINUTE: Final = 60

Json = dict[str, Any]

_STYLES: Final = {"live": "green", "ending": "yellow", "ended": "dim"}


def show_sessions(sessions: Sequence[Json], out: TextIO, *, now: datetime | None = None) -> None:
    """Write a table, a session a row."""
    is_terminal = out.isatty()
    moment = now or datetime.now(UTC)
    table = Table(box=None, pad_edge=False, header_style="bold")
    has_tenants = any(session.get("tenant") != "default" for session in sessions)
    has_nodes = len({session.get("node") for session in sessions}) > 1
    optional = (*(["NODE"] if has_nodes else []), *(["TENANT"] if has_tenants else []))
    for heading in ("SESSION", "KEY", *optional, "WIRE", "STATE"):
        table.add_column(heading, no_wrap=True)
    for heading in ("OPENED", "LASTS", "AUDIO", "FINALS"):
        table.add_column(heading, justify="right", no_wrap=True)
    for session in sessions:
        state = str(session.get("state"))
        names = [session.get("id"), session.get("key")]
        names += [session.get("node")] if has_nodes else []
        names += [session.get("tenant")] if has_tenants else []
        table.add_row(
            *(_plain(name) for name in (*names, session.get("wire"))),
            Text(printable(state), style=_STYLES.get(state, "")),
            _plain(_ago(session.get("opened_at"), moment)),
            *(_plain(_clock(session.get(name))) for name in ("duration_seconds", "audio_seconds")),
            _plain(session.get("transcripts")),
        )
    Console(file=out, highlight=False, width=None if is_terminal else PIPE_WIDTH).print(table)


def show_session(session: Json, out: TextIO) -> None:
    """Write a line for each member, and for each member of what is inside."""
    for name, value in session.items():
        if isinstance(value, dict):
            out.write(f"{printable(name)}:\n")
            out.writelines(f"  {printable(inner)}: {_value(told)}\n" for inner, told in value.items())
        else:
            out.write(f"{printable(name)}: {_value(value)}\n")


def show_json(value: Json, out: TextIO) -> None:
    """Write one line."""
    out.write(json.dumps(value) + "\n")
    out.flush()


def describe_event(kind: str, told: Json) -> str:
    """Return one line for people: when, what, and the words where they are told."""
    position = told.get("position_ms")
    at = _clock(position / 1000) if type(position) is int else ""
    match kind:
        case "partial" | "final":
            what = told.get("text", "(words are shown to the scope admin)")
        case "notice" | "error":
            what = f"[{told.get('code')}] {told.get('message')}"
        case "closed":
            what = f"{told.get('reason')}, {_clock(told.get('duration_seconds'))}, {told.get('transcripts')} finals"
        case "speech_started" | "speech_stopped":
            what = f"utterance {told.get('utterance')}"
        case _:
            what = ""
    return printable(f"{at:>7}  {kind:<14}  {what}").rstrip()


def _plain(value: object) -> Text:
    """Return text that is taken as it is: what a server says is no markup."""
    return Text(printable(str(value)))


def _value(value: object) -> str:
    return printable(
        "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    )


def _clock(seconds: object) -> str:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return "?"
    minutes, rest = divmod(round(seconds), SECONDS_A_MINUTE)
    hours, minutes = divmod(minutes, SECONDS_A_MINUTE)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _ago(text: object, now: datetime) -> str:
    try:
        opened = datetime.fromisoformat(str(text))
        return f"{_clock(max(0.0, (now - opened).total_seconds()))} ago"
    except (ValueError, TypeError):
        return "?"
