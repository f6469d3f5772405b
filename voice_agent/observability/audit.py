"""The audit stream: who did what to what, from where, and whether it was allowed; one JSON object a line.

It is apart from the log: no level hides a line, no limit on repetition drops one, and it can go to a file of its own.
Lines are appended and handed to the operating system one by one, before :func:`audit` returns; they survive the
process. They are not synced to the disk, because that would stop every call for milliseconds at each line; who must
survive a power cut ships the lines to another machine.
"""

import json
import logging
import logging.handlers
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from io import TextIOWrapper
from typing import Any, Final, TextIO

import structlog

from voice_agent.core.errors import SettingsError
from voice_agent.observability.redaction import redacted

OWNER_ONLY: Final = 0o600

log = structlog.get_logger(__name__)

_stream: Final = logging.getLogger("voice_agent.audit")
_stream.setLevel(logging.INFO)


class Outcome(StrEnum):
    """What became of an action."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    """It was allowed, and did not work."""


def audit(
    *,
    actor: str,
    action: str,
    outcome: Outcome,
    target: str = "",
    address: str = "",
    **detail: str | float | None,
) -> None:
    """Write one line.

    ``actor`` is a key's id (``anonymous``, ``operator`` for signals and files, ``unknown`` for whoever showed nothing
    that is known); ``action`` is a name such as ``authenticate``, ``session_end``, ``drain``; ``target`` is what it
    was done to, a session's id for instance; ``address`` is the client's, behind the proxies that are trusted. More
    goes into ``detail``; secrets never go anywhere.

    Never raises and never waits for anything but the operating system. In a program that has not called
    :func:`open_audit`, lines go to the standard library's logger ``voice_agent.audit``.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "event": "audit",
        "actor": actor,
        "action": action,
        "target": target,
        "outcome": str(outcome),
        "address": address,
        **{key: value for key, value in detail.items() if value is not None},
    }
    _stream.info("%s", json.dumps(redacted(line), ensure_ascii=False))


def open_audit(path: str, stream: TextIO | None = None) -> None:
    """Send the lines to the file at ``path``, or, when that is empty, to ``stream`` (standard error when ``None``).

    A file is made readable for its owner only. When it has been moved or deleted, by logrotate for instance, the next
    line begins a new one.

    Raises:
        SettingsError: the file can't be opened.
    """
    if path:
        try:
            handler: logging.Handler = _AuditFile(path)
        except OSError as error:
            raise SettingsError(
                f"logging.audit_path = {path!r} can't be opened ({error.strerror or error}); "
                "make its folder writable for the server, or choose another path",
                field="logging.audit_path",
            ) from error
    else:
        handler = _AuditStream(sys.stderr if stream is None else stream)
    for old in _stream.handlers[:]:
        _stream.removeHandler(old)
        old.close()
    _stream.addHandler(handler)
    _stream.propagate = False


def _tell_lost(record: logging.LogRecord) -> None:
    """A line that can't be written where it belongs is not lost silently: it goes to the log, with the reason."""
    log.error("audit_unwritable", line=record.getMessage(), reason=str(sys.exc_info()[1]))


class _AuditFile(logging.handlers.WatchedFileHandler):
    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> TextIOWrapper:
        return open(
            self.baseFilename,
            "a",
            encoding="utf-8",
            errors="backslashreplace",
            opener=lambda path, flags: os.open(path, flags, OWNER_ONLY),
        )

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in logging
        _tell_lost(record)

    def close(self) -> None:
        # What a full disk did not take was told in the log, line by line.
        with suppress(OSError):
            super().close()


class _AuditStream(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in logging
        _tell_lost(record)
