"""Drain: how a server stops without losing words.

1. No new calls; the listener closes. Every caller is told.
2. Calls go on for at most the grace time.
3. What is left is ended: last words are recognised, callers are closed with 1012.
4. What is still left is cancelled by the scopes around it.
"""

import structlog
import trio

from voice_agent.core.events import CloseReason, Notice
from voice_agent.server.calls import CallDesk
from voice_agent.settings.schema import Settings

log = structlog.get_logger(__name__)


async def drain(desk: CallDesk, settings: Settings) -> None:
    """Let the open calls finish, then end what is left; the caller has stopped accepting already."""
    grace_seconds = settings.server.grace_seconds
    desk.is_open = False
    log.info("drain_began", calls=len(desk.registry), grace_seconds=grace_seconds)
    await desk.registry.tell_all(
        Notice(
            code="draining",
            message="The server is shutting down; finish within the grace time and call again.",
            detail={"grace_seconds": grace_seconds},
        )
    )
    with trio.move_on_after(grace_seconds):
        await desk.registry.wait_empty()
    if len(desk.registry):
        log.info("drain_grace_over", calls=len(desk.registry))
        desk.registry.end_all(CloseReason.DRAIN)
        with trio.move_on_after(
            settings.session.finish_timeout_seconds + 2 * settings.session.close_timeout_seconds
        ):
            await desk.registry.wait_empty()
    log.info("drain_ended", calls_cancelled=len(desk.registry))
