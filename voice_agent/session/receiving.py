"""Receiving: from a caller's connection to the call: audio into the inbox, commands to the session, side by side."""

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import trio

from voice_agent.core.commands import Command
from voice_agent.core.errors import CallerError, TransportBrokenError
from voice_agent.core.events import CloseReason, Fault, Notice
from voice_agent.core.transport import Transport
from voice_agent.session.call_limits import CallLimits
from voice_agent.session.ending import fault_of
from voice_agent.session.inbox import AudioInbox
from voice_agent.session.placing import Placing

LAST_COMMANDS_SECONDS: Final = 0.5
"""What a caller asked for right before the end is obeyed within that; only a transport whose audio ends without a
``stop`` makes the close wait so long."""
CAUGHT_UP_SECONDS: Final = 0.5
"""A resumed caller has sent what was lost when so little of its audio waits."""
CATCH_UP_SECONDS: Final = 1.0
"""So long it has at least to begin."""


class ReceivingCall(Protocol):
    """The call that receives."""

    active_at: float

    def end(self, reason: CloseReason) -> None:
        """Decide the end."""
        ...

    def fail(self, error: CallerError) -> None:
        """End because of what the caller did."""
        ...

    async def obey(self, command: Command | Notice) -> None:
        """Do what the caller asks for."""
        ...

    async def publish(self, event: Notice | Fault) -> None:
        """Tell the caller."""
        ...


class Receiving:
    """One call's receiving half. ``limits`` hold what comes; ``is_resumed`` says that the caller sends again what was lost."""

    def __init__(
        self,
        call: ReceivingCall,
        inbox: AudioInbox,
        placing: Placing,
        limits: CallLimits | None,
        *,
        is_resumed: bool = False,
    ) -> None:
        self._call = call
        self._inbox = inbox
        self._placing = placing
        self._limits = limits
        self._is_catching_up = is_resumed
        self._began_at = trio.current_time()
        self.has_obeyed_all = trio.Event()
        """Set when no more commands come."""

    async def audio(self, transport: Transport) -> None:
        """Move the caller's audio to the inbox; never waits for hearing, but for a caller who catches up."""
        while True:
            try:
                frame = await transport.recv_audio()
            except trio.EndOfChannel:
                self._call.end(CloseReason.STOPPED)
                return
            except TransportBrokenError:
                self._call.end(CloseReason.HANGUP)
                return
            self._call.active_at = trio.current_time()
            placed = self._placing.place(frame)
            if self._is_catching_up:
                await self._inbox.wait_for_room()
                self._is_catching_up = (
                    self._inbox.waiting_seconds > CAUGHT_UP_SECONDS
                    or trio.current_time() < self._began_at + CATCH_UP_SECONDS
                )
            self._inbox.offer(placed)
            if self._limits is not None:
                # Beyond it reading goes on: what still comes is thrown away, so that the close is quick.
                hear = partial(self._limits.hear, placed.duration_seconds, self._call.active_at)
                await self.hold_to(hear)

    async def text(self, transport: Transport) -> None:
        """Do what the caller asks for; tell errors, and end the call on a fatal one."""
        while True:
            try:
                await self._call.obey(await transport.recv_text())
            except (trio.EndOfChannel, TransportBrokenError):
                # The audio side decides the end: what the caller said before going away is still queued there.
                self.has_obeyed_all.set()
                return
            except CallerError as error:
                if error.fatal:
                    self._call.fail(error)
                else:
                    await self._call.publish(fault_of(error))

    async def obey_the_rest(self) -> None:
        """Audio and commands are read side by side: the audio can be over while commands before the end still wait."""
        with trio.move_on_after(LAST_COMMANDS_SECONDS):
            await self.has_obeyed_all.wait()

    async def hold_to(self, count: Callable[[], Notice | None]) -> None:
        """Count against a limit: tell the caller when it is near, end the call when it is reached."""
        try:
            notice = count()
        except CallerError as error:
            self._call.fail(error)
        else:
            if notice is not None:
                await self._call.publish(notice)
