"""Logs: structlog, JSON unless somebody watches a terminal; context variables put the session id on every line.

What a line passes: context, level, time, the limit on repetition, its trace as data, redaction, and the rendering. No
trace holds the values of local variables: in this program these are what callers said, and their keys.
"""

import logging
import sys
from contextlib import suppress
from typing import Final, TextIO, cast

import attrs
import structlog

from voice_agent.observability.redaction import Redaction
from voice_agent.observability.repeats import RepeatFilter, RepeatLimiter, tell_suppressed

MAX_REPEATS_PER_MINUTE: Final = 60

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


@attrs.frozen
class _Worker:
    """Says in each line which of several processes it is from."""

    number: int

    def __call__(
        self, _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**event, "worker": self.number}


@attrs.define
class _Process:
    """What a process has one of, as structlog's own configuration is."""

    limiter: RepeatLimiter = attrs.field(factory=lambda: RepeatLimiter(MAX_REPEATS_PER_MINUTE))


_process: Final = _Process()


def repeat_limiter() -> RepeatLimiter:
    """Return the limiter that is in force."""
    return _process.limiter


def configure_logging(
    level: str,
    form: str,
    stream: TextIO | None = None,
    *,
    transcripts: bool = False,
    max_repeats_per_minute: int = MAX_REPEATS_PER_MINUTE,
    worker: int | None = None,
) -> None:
    """Set up structlog for a process; lines go to ``stream``, standard error when ``None``.

    ``worker`` is the process's number among several, and stands on each of its lines.

    The parameters take the values of the settings of the section ``logging``. Standard output stays free for what a
    command prints for its user. May be called again.
    """
    target = sys.stderr if stream is None else stream
    is_console = form == "console" or (form == "auto" and target.isatty())
    tell_suppressed(_process.limiter, all_of_them=True)
    limiter = _process.limiter = RepeatLimiter(max_repeats_per_minute)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        shared.append(_Worker(worker))
    redaction = Redaction(hide_spoken=not transcripts)
    if is_console:
        rendering: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            redaction,
            structlog.dev.ConsoleRenderer(
                colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    else:
        rendering = [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            redaction,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    structlog.configure(
        processors=[limiter, *shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        # A line and its end in one write: several workers have one standard error.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _UnfailingStream(target))),
        cache_logger_on_first_use=False,
    )
    _adopt_standard_logging(shared, rendering, _LEVELS[level], target, limiter)


def _adopt_standard_logging(
    shared: list[structlog.typing.Processor],
    rendering: list[structlog.typing.Processor],
    level: int,
    target: TextIO,
    limiter: RepeatLimiter,
) -> None:
    """Give libraries' own log lines (Hypercorn's, Quart's) the same form."""
    handler = logging.StreamHandler(cast("TextIO", _UnfailingStream(target)))
    handler.addFilter(RepeatFilter(limiter))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
