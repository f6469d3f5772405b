"""Following one session to its end, over broken connections."""

import json
from collections.abc import Callable
from typing import Any, Final

import click
import trio

from voice_agent.cli.sessions_client import RequestRefusedError, SessionsClient
from voice_agent.core.errors import DependencyError, ServerUnreachableError, SessionClosedError
from voice_agent.core.event_lines import ServerSentEvent
from voice_agent.core.request_errors import EventsGoneError
from voice_agent.core.units import SECONDS

CUT_OFF: Final = "cut_off"
CLOSED: Final = "closed"
MAX_FAILURES: Final = 5
"""Connections in a row that bring nothing."""
FIRST_PAUSE_SECONDS: Final = 0.5 * SECONDS
"""Before the second try; each further one waits twice as long."""


class BrokenStreamError(DependencyError):
    """The stream of a session's events broke off, and could not be taken up again."""

    code = "broken_stream"


def read_event(event: ServerSentEvent) -> dict[str, Any]:
    """Return what an event tells.

    Raises:
        BrokenStreamError: it is no JSON object, so the server is none of ours.
    """
    try:
        told = json.loads(event.data)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise BrokenStreamError("the server sends events that are no JSON objects")
    return told


class Following:
    """One session that is followed; ``show`` is given each event once, in order."""

    def __init__(
        self, session_id: str, *, after: int | None, show: Callable[[ServerSentEvent], None]
    ) -> None:
        self._session_id = session_id
        self._after = "" if after is None else str(after)
        self._show = show
        self._has_begun = False
        self._is_over = False
        self._failures = 0

    async def run(self, client: SessionsClient) -> None:
        """Follow to the end.

        Raises:
            ServerUnreachableError: the server can't be reached at the first try, or refuses.
            BrokenStreamError: it could be, and can't be any more.
        """
        while not self._is_over:
            try:
                await client.follow(self._session_id, self._after, self._take)
            except RequestRefusedError as error:
                if not self._has_begun:
                    raise
                self._go_on_after(error)
                continue
            except ServerUnreachableError:
                if not self._has_begun:
                    raise
            if not self._is_over:
                await self._pause()

    def _take(self, event: ServerSentEvent) -> None:
        self._has_begun = True
        self._failures = 0
        if event.kind == CUT_OFF:
            return  # the stream ends now; what was missed comes with the next one
        self._after = event.id
        self._is_over = event.kind == CLOSED
        self._show(event)

    def _go_on_after(self, error: RequestRefusedError) -> None:
        if error.told == EventsGoneError.code:
            click.echo("(some events were missed, and are no longer kept)", err=True)
            self._after = ""
        elif error.told == SessionClosedError.code:
            click.echo("(the session ended meanwhile; `voice-agent sessions show` tells how)", err=True)
            self._is_over = True
        else:
            raise error

    async def _pause(self) -> None:
        if self._failures >= MAX_FAILURES:
            raise BrokenStreamError("the stream broke off, and can't be taken up again")
        await trio.sleep(FIRST_PAUSE_SECONDS * 2**self._failures)
        self._failures += 1
