"""Drain: how a server stops without losing words.

1. No new calls. Every caller is told until when the call may go on.
2. The listener stays open for the lame-duck seconds, so that load balancers see ``/readyz`` fail and nobody's
   connection is refused by TCP meanwhile; then it closes.
3. Calls go on until the deadline.
4. What is left is ended: last words are recognised, callers are closed with 1012.
5. What is still left is cancelled by the scopes around it.

The steps after the deadline share :data:`~voice_agent.server.stopping.EXIT_WITHIN_SECONDS`, whatever the settings
allow a call that ends by itself.
"""

from functools import partial
from typing import Final

import structlog
import trio

from voice_agent.core.events import CloseReason, Notice
from voice_agent.core.units import MS, SECONDS
from voice_agent.server.calls import CallDesk
from voice_agent.server.listening import HttpServer
from voice_agent.server.stopping import Stopping

LAST_WORDS_SECONDS: Final = 3 * SECONDS
"""Recognising the last words of all calls."""
GOODBYE_SECONDS: Final = 400 * MS
"""Telling a caller and closing the call; a caller who reads needs a few milliseconds."""
CONNECTIONS_SECONDS: Final = 300 * MS
"""Closing connections, before the rest is reset. Last words, goodbye, this, and a goodbye that is cut short here are
4.1 s; what remains of the five is for the workers and the interpreter."""

log = structlog.get_logger(__name__)


async def drain(desk: CallDesk, stopping: Stopping, server: HttpServer) -> None:
    """Let the open calls finish, then end what is left; returns when connections can be closed."""
    desk.is_open = False
    registry = desk.registry
    log.info("drain_began", calls=len(registry))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_listening, server, stopping.listens_until)
        nursery.start_soon(registry.tell_all, partial(_notice, stopping))
        with trio.CancelScope(deadline=stopping.deadline):
            await registry.wait_empty()
        nursery.cancel_scope.deadline = stopping.deadline
    server.stop_accepting()
    if len(registry):
        log.info("drain_grace_over", calls=len(registry))
        registry.end_all(CloseReason.DRAIN, finish_seconds=LAST_WORDS_SECONDS, close_seconds=GOODBYE_SECONDS)
        with trio.move_on_after(LAST_WORDS_SECONDS + GOODBYE_SECONDS):
            await registry.wait_empty()
    server.hurry(CONNECTIONS_SECONDS)
    log.info("drain_ended", calls_cancelled=len(registry))


async def _stop_listening(server: HttpServer, at: float) -> None:
    await trio.sleep_until(at)
    server.stop_accepting()


def _notice(stopping: Stopping) -> Notice:
    """Return what a caller is told, now or when a handshake that was under way is done."""
    return Notice(
        code="draining",
        message="The server is shutting down; finish by the deadline and call again.",
        detail={
            "grace_seconds": round(max(0.0, stopping.deadline - trio.current_time()), 3),
            "deadline": stopping.deadline_utc.isoformat(timespec="milliseconds"),
        },
    )
