"""What a run of calls shows while it lasts: live lines on a terminal, plain lines in a pipe, JSON for machines.

Finals go to standard output and everything else to standard error, so that a pipe holds the words only.
"""

import json
import re
import time
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from voice_agent.cli.call_report import CallReport
from voice_agent.cli.call_result import ConnectionNews, ReceivedMessage, Reconnecting
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.core.units import MS

REFRESH_SECONDS: Final = 50 * MS
"""A terminal is redrawn at most so often."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class CallDisplay(Protocol):
    """Told of everything that happens; must not block."""

    def __enter__(self) -> Self:
        """Take the screen."""
        ...

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the screen back."""
        ...

    def show_message(self, call: int, received: ReceivedMessage) -> None:
        """Show a server's message of call number ``call``."""
        ...

    def show_news(self, call: int, news: ConnectionNews) -> None:
        """Show that the connection of call number ``call`` was lost, or is there again."""
        ...

    def show_remark(self, text: str) -> None:
        """Show a line of our own."""
        ...

    def show_report(self, report: CallReport) -> None:
        """Show how it all ended; comes once, after leaving the context."""
        ...


def printable(text: str) -> str:
    """Return the text without control characters and half characters: a server must not steer the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


@attrs.define
class _Display:
    """What displays have in common: ``call_count`` decides whether lines name their call."""

    out: TextIO
    err: TextIO
    call_count: int

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def show_news(self, call: int, news: ConnectionNews) -> None:
        """Remark it."""
        self.show_remark(f"{self._name(call)}{printable(news.words)}")

    def show_remark(self, text: str) -> None:
        """Write a line of our own to standard error."""
        self.err.write(f"{text}\n")
        self.err.flush()

    def _name(self, call: int) -> str:
        return f"{call:>{len(str(self.call_count))}}  " if self.call_count > 1 else ""


@attrs.define
class JsonDisplay(_Display):
    """One JSON object a line: each message with its call and its receive time, the summary at the end.

    Between the messages stand what became of the connection: ``reconnecting`` and ``resumed``.

    ``received_at`` is wall-clock time in seconds since 1970; ``latency_seconds`` stands with partials and finals.
    """

    def show_message(self, call: int, received: ReceivedMessage) -> None:
        """Write the message's line."""
        line: dict[str, Any] = {"call": call, "received_at": round(time.time(), 6)}
        if received.latency_seconds is not None:
            line["latency_seconds"] = round(received.latency_seconds, 4)
        self._write(line | {"message": received.message})

    def show_news(self, call: int, news: ConnectionNews) -> None:
        """Write it as a line of its own kind, ``reconnecting`` or ``resumed``."""
        kind = "reconnecting" if isinstance(news, Reconnecting) else "resumed"
        fields = {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in attrs.asdict(news).items()
        }
        self._write({"call": call, "received_at": round(time.time(), 6), kind: fields})

    def show_report(self, report: CallReport) -> None:
        """Write the summary's line."""
        self._write({"summary": report.to_dict()})

    def _write(self, line: dict[str, Any]) -> None:
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()


@attrs.define
class PlainDisplay(_Display):
    """A line for each final; notices and errors on standard error."""

    def show_message(self, call: int, received: ReceivedMessage) -> None:
        """Write a final, or remark a notice or an error."""
        name = self._name(call)
        if received.transcript is not None:
            if received.transcript.is_final:
                self.out.write(f"{name}{printable(received.transcript.text)}\n")
                self.out.flush()
        elif (remark := _remark(received.message)) is not None:
            self.err.write(f"{name}{remark}\n")

    def show_report(self, report: CallReport) -> None:
        """Write the closing lines."""
        for line in report.lines():
            self.err.write(printable(line) + "\n")


@attrs.define
class _Row:
    """The live line of one call."""

    is_speaking: bool = False
    partial: TranscriptResult | None = None


@attrs.define
class LiveDisplay(_Display):
    """On a terminal: finals scroll, and below them stands a line for each call with what is being said now.

    Of a partial, the prefix that will not change is bright and the rest is dim.
    """

    _console: Console = attrs.field(init=False)
    _live: Live = attrs.field(init=False)
    _rows: dict[int, _Row] = attrs.field(init=False, factory=dict)
    _redrawn_at: float = attrs.field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._console = Console(file=self.out, highlight=False)
        # Without rich's refresh thread: every redraw follows a message.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._rows = {call: _Row() for call in range(1, self.call_count + 1)}

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show_message(self, call: int, received: ReceivedMessage) -> None:
        """Let a final scroll up, or redraw the call's line."""
        row = self._rows[call]
        transcript = received.transcript
        if transcript is None:
            self._show_event(call, row, received.message)
        elif transcript.is_final:
            row.partial = None
            place = f"{self._name(call)}{_clock(transcript.start)}  "
            self._console.print(Text.assemble((place, "dim"), printable(transcript.text)))
        else:
            row.partial = transcript
        if received.received_at >= self._redrawn_at + REFRESH_SECONDS or row.partial is None:
            self._redrawn_at = received.received_at
            self._live.update(self._render(), refresh=True)

    def show_news(self, call: int, news: ConnectionNews) -> None:
        """Let it scroll up; what was being said is told anew by another connection."""
        self._rows[call] = _Row()
        self._live.update(self._render(), refresh=True)
        super().show_news(call, news)

    def show_remark(self, text: str) -> None:
        """Let a line of our own scroll up."""
        self._console.print(Text(text, style="yellow"))

    def show_report(self, report: CallReport) -> None:
        """Print the closing lines."""
        for line in report.lines():
            self._console.print(Text(printable(line), style="dim"))

    def _show_event(self, call: int, row: _Row, message: dict[str, Any]) -> None:
        match message["type"]:
            case "speech_started":
                row.is_speaking = True
            case "speech_stopped":
                row.is_speaking = False
        if (remark := _remark(message)) is not None:
            self._console.print(Text(f"{self._name(call)}{remark}", style="yellow"))

    def _render(self) -> Group:
        return Group(*(self._render_row(call, row) for call, row in self._rows.items()))

    def _render_row(self, call: int, row: _Row) -> Text:
        line = Text.assemble((f"{self._name(call)}{'●' if row.is_speaking else '○'} ", "dim"))
        if row.partial is not None:
            stable = printable(row.partial.stable)
            line.append(stable, style="bold")
            line.append(printable(row.partial.text)[len(stable) :], style="dim")
        return line


def open_display(*, out: TextIO, err: TextIO, call_count: int, is_json: bool) -> CallDisplay:
    """Return the display that fits where the output goes."""
    if is_json:
        return JsonDisplay(out, err, call_count)
    if out.isatty():
        return LiveDisplay(out, err, call_count)
    return PlainDisplay(out, err, call_count)


def _remark(message: dict[str, Any]) -> str | None:
    kind = message["type"]
    if kind not in ("notice", "error"):
        return None
    return printable(f"{kind} [{message.get('code')}]: {message.get('message')}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds * 10), 600)
    return f"{minutes:02}:{rest / 10:04.1f}"
