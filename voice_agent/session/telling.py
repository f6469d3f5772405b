"""Telling: the last stage of a call; what the session has to say leaves for the caller here, in order."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from voice_agent.core.errors import TransportBrokenError
from voice_agent.core.events import SessionClosed, SessionEvent, SessionReady
from voice_agent.core.transport import Transport
from voice_agent.session.outbox import Outbox

if TYPE_CHECKING:
    from voice_agent.session.keeping import Keeping


class Telling:
    """One call's way to its caller.

    ``on_told`` is given each event that the transport has taken; ``on_gone`` is called when the caller went away.
    ``position_ms`` says how much has been heard.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        on_told: Callable[[SessionEvent], None],
        on_gone: Callable[[], None],
        position_ms: Callable[[], int],
    ) -> None:
        self.keeping: Keeping | None = None
        """Keeps what the caller is told, before it is told."""
        self.missed: tuple[SessionEvent, ...] = ()
        """What the caller of a resumed session is told again, behind the ``ready``; it has its numbers, and is kept."""
        self.scope = trio.CancelScope()
        """Around :meth:`run`; its deadline bounds the last events."""
        self._outbox = outbox
        self._on_told = on_told
        self._on_gone = on_gone
        self._position_ms = position_ms
        self._is_caller_reachable = True
        self._is_end_told = False

    async def run(self, transport: Transport) -> None:
        """Tell the caller every event; when the caller is gone, let the events go, so that nobody waits for them."""
        with self.scope:
            while True:
                event: SessionEvent | None = None
                with trio.move_on_at(math.inf if self.keeping is None else self.keeping.renew_at):
                    try:
                        event = await anext(self._outbox)
                    except StopAsyncIteration:
                        return
                if event is None:
                    await self._renew()
                    continue
                await self._pass_on(transport, event)

    async def let_go(self, transport: Transport, last: SessionClosed) -> None:
        """Tell the caller how it ended, if that was cut short, and close the connection.

        What the caller was too slow to read is kept, though not told any more; the events of the close are both.
        """
        try:
            for event in self._outbox.take_rest():
                kept = await self._keep(event)
                if kept is not None and self._outbox.is_last(event):
                    await self._tell(transport, kept)
            if not self._is_end_told:
                await self._tell(transport, self._outbox.stamp(last))
        finally:
            await transport.aclose()

    async def _pass_on(self, transport: Transport, event: SessionEvent) -> None:
        kept = await self._keep(event)
        if kept is None:
            return
        await self._tell(transport, kept)
        if isinstance(event, SessionReady):
            for missed in self.missed:
                await self._tell(transport, missed)

    async def _keep(self, event: SessionEvent) -> SessionEvent | None:
        return event if self.keeping is None else await self.keeping.keep(event)

    async def _renew(self) -> None:
        if self.keeping is not None:
            await self.keeping.renew(self._position_ms() if self._outbox.is_empty else None)

    async def _tell(self, transport: Transport, event: SessionEvent) -> None:
        if not self._is_caller_reachable:
            return
        try:
            await transport.send_text(event)
        except TransportBrokenError:
            self._is_caller_reachable = False
            self._on_gone()
        else:
            self._is_end_told = isinstance(event, SessionClosed)
            self._on_told(event)
