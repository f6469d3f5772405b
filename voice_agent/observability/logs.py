"""Logs: structlog, JSON unless somebody watches a terminal; context variables put the session id on every line."""

import logging
import sys
from contextlib import suppress
from typing import Final, TextIO, cast

import structlog

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def adopt_quiet_default() -> None:
    """Send log events to the standard library's loggers, unless the program has configured structlog.

    structlog's own default prints to standard output, which belongs to the embedding program; the standard library's
    shows warnings only. A program that calls ``structlog.configure`` later has its way.
    """
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.stdlib.filter_by_level,
                structlog.stdlib.render_to_log_kwargs,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
            logger_factory=structlog.stdlib.LoggerFactory(),
        )


class _UnfailingStream:
    """A log whose disk is full, or whose reader went away, loses lines; the calls go on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure_logging(level: str, form: str, stream: TextIO | None = None) -> None:
    """Set up structlog for a process; lines go to ``stream``, standard error when ``None``.

    ``level`` and ``form`` take the values of the settings ``logging.level`` and ``logging.format``.
    Standard output stays free for what a command prints for its user.
    """
    target = sys.stderr if stream is None else stream
    is_console = form == "console" or (form == "auto" and target.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if is_console:
        rendering: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer(colors=target.isatty())]
    else:
        rendering = [
            structlog.processors.dict_tracebacks,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _UnfailingStream(target))),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(shared, rendering, _LEVELS[level], target)


def _adopt_standard_logging(
    shared: list[structlog.typing.Processor],
    rendering: list[structlog.typing.Processor],
    level: int,
    target: TextIO,
) -> None:
    """Give libraries' own log lines (Hypercorn's, Quart's) the same form."""
    handler = logging.StreamHandler(cast("TextIO", _UnfailingStream(target)))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
