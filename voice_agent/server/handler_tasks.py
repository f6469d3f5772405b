"""GuardedTaskGroup: runs the application of one connection so that neither can hang or crash the other."""

import math
import sys
from collections import abc
from enum import Enum, auto
from typing import Any, Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup
from hypercorn.typing import AppWrapper, Scope

from voice_agent.core.groups import alone
from voice_agent.server.guard_limits import GuardHooks, GuardLimits, Intervention

log = structlog.get_logger(__name__)

Message = dict[str, Any]
"""An ASGI message."""
SendMessage = abc.Callable[[Any], abc.Awaitable[None]]
PutMessage = abc.Callable[[Any], abc.Awaitable[None]]

MAX_SENDS_AFTER_CLOSE: Final = 1000
"""A handler that sends on and on to a peer that has gone, and never looks at what it receives, is cancelled then."""


class HandlerEnd(Enum):
    """How the application left a WebSocket; sent to the stream in the place of a last message."""

    RETURNED = auto()
    CRASHED = auto()
    CANCELLED = auto()


class HandlerStalledError(Exception):
    """The application has not read for longer than it may."""


class HandlerInbox:
    """What the peer sent and the application has not taken: bounded, and the disconnect always fits."""

    def __init__(self, max_messages: int, stall_seconds: float) -> None:
        self._send: trio.MemorySendChannel[Message]
        self._receive: trio.MemoryReceiveChannel[Message]
        self._send, self._receive = trio.open_memory_channel[Message](max_messages)
        self._stall_seconds = stall_seconds
        self._disconnect: Message = {"type": "http.disconnect"}

    async def put(self, message: Message) -> None:
        """Hand a message over; a message that nobody will read is dropped.

        Raises:
            HandlerStalledError: there has been no room for ``stall_seconds``.
        """
        if message["type"].endswith(".disconnect"):
            self._disconnect = message
            self._send.close()
            return
        try:
            self._send.send_nowait(message)
        except trio.WouldBlock:
            await self._put_when_there_is_room(message)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()

    async def _put_when_there_is_room(self, message: Message) -> None:
        try:
            with trio.fail_after(self._stall_seconds):
                await self._send.send(message)
        except trio.TooSlowError:
            raise HandlerStalledError from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()

    async def receive(self) -> Any:
        """Return the next message; after the last one, the disconnect, as often as asked."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            return self._disconnect

    def close(self) -> None:
        """Drop what waits: the application has returned."""
        self._receive.close()


class GuardedTaskGroup(TaskGroup):
    """Hypercorn's task group, in a nursery that the connection owns."""

    def __init__(self, nursery: trio.Nursery, limits: GuardLimits, hooks: GuardHooks) -> None:
        super().__init__()
        self._nursery = nursery
        self.limits = limits
        """For the handlers that are started from now on."""
        self._hooks = hooks

    async def spawn_app(
        self, app: AppWrapper, _config: Config, scope: Scope, send: SendMessage
    ) -> PutMessage:
        """Start the application for one request; returns the function that hands it messages."""
        assert self._nursery is not None  # noqa: S101 - Hypercorn's attribute is optional, ours is always set
        # A request's body is bounded in bytes and in time, so an HTTP handler may leave it unread.
        stall_seconds = (
            self.limits.handler_stall_seconds
            if scope["type"] == "websocket"
            else self.limits.body_timeout_seconds
        )
        inbox = HandlerInbox(self.limits.max_waiting_messages, stall_seconds)
        self._nursery.start_soon(self._run_app, app, scope, inbox, send)
        return inbox.put

    def _log_crash(self, scope: Scope, error: BaseException | None) -> HandlerEnd:
        self._hooks.intervened(Intervention.HANDLER_CRASHED)
        log.error("handler_crashed", scope=scope["type"], path=_path(scope), exc_info=error)
        return HandlerEnd.CRASHED

    async def _run_app(self, app: AppWrapper, scope: Scope, inbox: HandlerInbox, send: SendMessage) -> None:
        end = HandlerEnd.CANCELLED
        with trio.CancelScope() as leash:
            try:
                await app(scope, inbox.receive, _leashed(send, leash), _no_thread, _no_thread)
                end = HandlerEnd.RETURNED
            except* (Exception, SystemExit) as group:  # noqa: BLE001 - it ends its own request only
                end = self._log_crash(scope, alone(group))
            finally:
                inbox.close()
                if end is HandlerEnd.CANCELLED and trio.current_effective_deadline() > -math.inf:
                    # Nobody has cancelled it: the application raised a Cancelled that was not its to raise.
                    end = self._log_crash(scope, sys.exception())
                leash.cancel()
                # Cancelled or not, the peer is told: the connection's sends are shielded, with a deadline.
                await send(end if scope["type"] == "websocket" else None)


def _leashed(send: SendMessage, leash: trio.CancelScope) -> SendMessage:
    """Return ``send``, which cancels a handler that never notices that its peer has gone.

    ASGI 2.3 wants a send after the close to be ignored. A handler that does nothing else would own the thread.
    """
    ignored = 0

    async def send_leashed(message: Message) -> None:
        nonlocal ignored
        if await send(message) is IGNORED:  # type: ignore[func-returns-value]
            ignored += 1
            if ignored > MAX_SENDS_AFTER_CLOSE:
                leash.cancel()
            await trio.lowlevel.checkpoint()

    return send_leashed


IGNORED: Final[Any] = object()
"""What a stream's ``app_send`` returns when the peer is gone."""


async def _no_thread(*_arguments: Any) -> None:
    """Stand where Hypercorn passes its ways into threads; only its WSGI wrapper would use them."""
    raise NotImplementedError


def _path(scope: Scope) -> str:
    return scope["path"][:200] if scope["type"] != "lifespan" else ""
