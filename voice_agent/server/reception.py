"""Reception: what a caller says first decides whether a new session begins or an old one goes on.

Until then there is no session. A caller who says nothing gets one when its time to start is over, and when the server begins
to drain, so that everybody is told of that.
"""

from collections.abc import Mapping
from typing import Any, Final

import attrs
import structlog
import trio

from voice_agent.core.commands import Command, Resume, Start
from voice_agent.core.errors import CallerError, ResumeRefusedError, ResumeUnknownError, TransportBrokenError
from voice_agent.core.events import Notice, SessionEvent
from voice_agent.core.frames import AudioFrame
from voice_agent.core.identity import Identity
from voice_agent.core.transport import Transport
from voice_agent.session.registry import CallRegistry
from voice_agent.session.resuming import Resumed, resume
from voice_agent.session.services import Services

RESUME_PROTOCOL: Final = "voice-agent.resume."
"""A caller who offers this subprotocol, with the session's id behind it, takes the place of the session's former connection."""

log = structlog.get_logger(__name__)


class Overheard:
    """A transport of which the first command has been read already; the session reads it again.

    A :class:`~voice_agent.core.transport.Transport`.
    """

    def __init__(self, transport: Transport, first: Command | Notice | CallerError) -> None:
        self._transport = transport
        self._first: Command | Notice | CallerError | None = first

    async def recv_audio(self) -> AudioFrame:
        """As :meth:`voice_agent.core.transport.Transport.recv_audio`."""
        return await self._transport.recv_audio()

    async def recv_text(self) -> Command | Notice:
        """As :meth:`voice_agent.core.transport.Transport.recv_text`."""
        if self._first is None:
            return await self._transport.recv_text()
        await trio.lowlevel.checkpoint()
        first, self._first = self._first, None
        if isinstance(first, CallerError):
            raise first
        return first

    async def send_audio(self, frame: AudioFrame) -> None:
        """As :meth:`voice_agent.core.transport.Transport.send_audio`."""
        await self._transport.send_audio(frame)

    async def send_text(self, event: SessionEvent) -> None:
        """As :meth:`voice_agent.core.transport.Transport.send_text`."""
        await self._transport.send_text(event)

    async def aclose(self) -> None:
        """As :meth:`voice_agent.core.transport.Transport.aclose`."""
        await self._transport.aclose()


@attrs.frozen
class Received:
    """A caller who has said something, or won't; ``resumed`` is the session that it goes on with."""

    transport: Transport
    resumed: Resumed | None = None


def resumed_session(scope: Mapping[str, Any]) -> str | None:
    """Return the session that a WebSocket handshake says will be resumed; None where it says nothing of that."""
    offered = scope.get("subprotocols") or ()
    named = [name.removeprefix(RESUME_PROTOCOL) for name in offered if name.startswith(RESUME_PROTOCOL)]
    return named[0] if named else None


async def receive(
    transport: Transport,
    identity: Identity,
    services: Services,
    registry: CallRegistry,
    *,
    must_resume: str | None = None,
) -> Received:
    """Hear what a caller says first, and take its session over where it names one; refused, it is told so by a session.

    ``must_resume`` is the session for the sake of which there was room.
    """
    first: Command | Notice | CallerError
    with registry.reception() as waiting:
        try:
            first = await transport.recv_text()
        except CallerError as error:
            first = error
        except TransportBrokenError:
            # The session is told the same.
            return Received(transport)
    if waiting.cancelled_caught:
        return Received(transport)
    wish = first.resume if isinstance(first, Start) else None
    named = None if wish is None else wish.session_id
    if must_resume not in {None, named} and not isinstance(first, CallerError):
        refusal = ResumeRefusedError("the handshake named a session that goes on, and no such start came")
        return Received(Overheard(transport, refusal))
    if wish is None:
        return Received(Overheard(transport, first))
    try:
        resumed = await go_on_with(wish, identity, services, registry)
    except ResumeRefusedError as error:
        return Received(Overheard(transport, error))
    return Received(Overheard(transport, first), resumed)


async def go_on_with(wish: Resume, identity: Identity, services: Services, registry: CallRegistry) -> Resumed:
    """Take a session over for a caller; where another connection of this server still has it, that one ends at once.

    Raises:
        ResumeRefusedError: it can't be resumed; one of its kinds says why.
    """
    try:
        keeps_nothing = identity.quotas.keeps_nothing or not services.settings.session.resume_window_seconds
        if services.storage is None or keeps_nothing:
            raise ResumeUnknownError("this server keeps no sessions that could be resumed")
        storage = services.storage
        resumed = await resume(wish, identity, writer=storage.writer, node=storage.node, now=storage.now)
    except ResumeRefusedError as error:
        services.metrics.store.resume_refusals_total.labels(error.code).inc()
        log.info("resume_refused", code=error.code, key=identity.key_id)
        raise
    registry.give_way(wish.session_id)
    return resumed
