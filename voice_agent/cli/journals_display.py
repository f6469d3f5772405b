"""How ``voice-agent journals`` shows what is kept: a table on a terminal, columns in a pipe."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from voice_agent.cli.call_display import printable
from voice_agent.cli.sessions_display import PIPE_WIDTH, Json

SECONDS_A_MINUTE: Final = 60
SECONDS_AN_HOUR: Final = 3600
SECONDS_A_DAY: Final = 86_400
_STYLES: Final = {"open": "green", "detached": "yellow", "ended": "dim"}


def show_journals(journals: Sequence[Json], out: TextIO, *, now: datetime | None = None) -> None:
    """Write a table, a session a row."""
    is_terminal = out.isatty()
    moment = now or datetime.now(UTC)
    has_tenants = any(journal.get("tenant") != "default" for journal in journals)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("SESSION", "KEY", *(["TENANT"] if has_tenants else []), "WIRE", "STATE", "REASON"):
        table.add_column(heading, no_wrap=True)
    for heading in ("OPENED", "LASTED", "DELETED"):
        table.add_column(heading, justify="right", no_wrap=True)
    for journal in journals:
        opened, ended, deleted = (
            _moment(journal.get(name)) for name in ("opened_at", "ended_at", "delete_at")
        )
        state = str(journal.get("state"))
        names = ["id", "key", *(["tenant"] if has_tenants else []), "wire"]
        table.add_row(
            *(Text(printable(str(journal.get(name)))) for name in names),
            Text(printable(state), style=_STYLES.get(state, "")),
            Text(printable(str(journal.get("close_reason") or "-"))),
            "?" if opened is None else f"{length((moment - opened).total_seconds())} ago",
            "-" if opened is None or ended is None else length((ended - opened).total_seconds()),
            "-" if deleted is None else f"in {length((deleted - moment).total_seconds())}",
        )
    Console(file=out, highlight=False, width=None if is_terminal else PIPE_WIDTH).print(table)


def length(seconds: float) -> str:
    """Return a length of time in the unit that fits: ``42 s``, ``5 min``, ``3.5 h``, ``12 d``."""
    seconds = max(0.0, seconds)
    if seconds < SECONDS_A_MINUTE:
        return f"{seconds:.0f} s"
    if seconds < SECONDS_AN_HOUR:
        return f"{seconds / SECONDS_A_MINUTE:.0f} min"
    if seconds < 2 * SECONDS_A_DAY:
        return f"{seconds / SECONDS_AN_HOUR:.1f} h"
    return f"{seconds / SECONDS_A_DAY:.0f} d"


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
