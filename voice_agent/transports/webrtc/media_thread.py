"""MediaThread: the one asyncio thread that WebRTC lives in, and the only door to it.

aiortc needs asyncio; the server is Trio. One thread runs one event loop behind anyio's blocking portal; Trio tasks call
into it, and what comes back crosses in bounded queues. The thread is a daemon, so that a call that hangs in native code
can't keep the process from exiting: it is reported instead.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

import anyio
import anyio.from_thread
import structlog
import trio

from voice_agent.core.errors import AssertionsOffError, InternalError, TransportBrokenError
from voice_agent.core.units import SECONDS
from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.connection import PeerConnection, make_owned_task
from voice_agent.transports.webrtc.peer import Peer

START_TIMEOUT_SECONDS: Final = 10 * SECONDS
STOP_TIMEOUT_SECONDS: Final = 5 * SECONDS

_Result = TypeVar("_Result")

log = structlog.get_logger(__name__)


def log_overdue(what: str) -> None:
    """Report something that did not end within its deadline."""
    log.error("media_close_overdue", what=what)


class MediaThread:
    """Use :func:`open_media_thread` to get one."""

    def __init__(
        self,
        portal: anyio.from_thread.BlockingPortal,
        loop: asyncio.AbstractEventLoop,
        on_overdue: Callable[[str], None],
    ) -> None:
        self._portal = portal
        self._loop = loop
        self._on_overdue = on_overdue
        self._peers: set[Peer] = set()
        self._is_closing = False

    @property
    def peers_open(self) -> int:
        """Calls that were opened and not yet closed."""
        return len(self._peers)

    async def open_peer(self, config: PeerConfig) -> Peer:
        """Open one call's connection; the caller owns it and must close it.

        Raises:
            TransportBrokenError: the media thread is shutting down.
        """
        if self._is_closing:
            raise TransportBrokenError("the media thread is shutting down")
        peer = Peer(self, config)
        self._peers.add(peer)
        try:
            peer.attach(await self.call(self._make_connection, peer, config))
        except BaseException:
            await peer.aclose()
            raise
        return peer

    @staticmethod
    async def _make_connection(peer: Peer, config: PeerConfig) -> PeerConnection:
        connection = PeerConnection(config, peer.outbound, peer)
        # Before anything can be cancelled, so that the peer closes what was made.
        peer.attach(connection)
        return connection

    async def ping(self, timeout_seconds: float) -> float:
        """Return how many seconds the event loop takes to answer, for a health check.

        Raises:
            trio.TooSlowError: longer than ``timeout_seconds``.
        """
        asked_at = trio.current_time()
        with trio.fail_after(timeout_seconds):
            await self.abandonable_call(_nothing)
        return trio.current_time() - asked_at

    async def call(self, function: Callable[..., Awaitable[_Result]], *args: Any) -> _Result:
        """Await a coroutine function in the event loop; cancelling the Trio task cancels it there, and waits."""
        return await self._portal.call_async(function, *args)

    async def abandonable_call(self, function: Callable[..., Awaitable[_Result]], *args: Any) -> _Result:
        """As :meth:`call`, but a cancelled caller doesn't wait for it."""
        return await self._portal.call_async(function, *args, abandon_on_cancel=True)

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call a function in the event loop soon; calls keep their order."""
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError as error:  # the loop is closed
            raise TransportBrokenError("the media thread has ended") from error

    def count_tasks(self) -> float:
        """How many asyncio tasks are alive; from any thread, for a metric."""
        return float(len(asyncio.all_tasks(self._loop)))

    async def tasks(self) -> int:
        """How many asyncio tasks live beside this call's own, for tests and diagnosis."""

        async def count() -> int:
            return len(asyncio.all_tasks()) - 1

        return await self.call(count)

    def forget(self, peer: Peer, *, is_closed: bool) -> None:
        """Note that a peer was closed; called by :meth:`Peer.aclose`."""
        self._peers.discard(peer)
        if not is_closed:
            self._on_overdue("a WebRTC connection did not close in time")

    async def close_peers(self) -> None:
        """Close what its owners left open, all at once."""
        self._is_closing = True
        async with trio.open_nursery() as nursery:
            for peer in tuple(self._peers):
                nursery.start_soon(peer.aclose)


async def _nothing() -> None:
    """What a ping asks for."""


class _Thread:
    """The thread itself: how it starts, and how Trio learns that it started and ended."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.ended = trio.Event()
        self.portal: anyio.from_thread.BlockingPortal | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._run, name="webrtc-media", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread's very last instructions; it has said already that it ended."""
        self._thread.join(STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        try:
            anyio.run(self._serve, backend="asyncio")
        except Exception:
            log.exception("media_thread_crashed")
        finally:
            self._tell(self.started.set)
            self._tell(self.ended.set)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_task_factory(make_owned_task)  # type: ignore[arg-type]  # its stub wants a protocol
        self.loop.set_exception_handler(_log_loop_error)
        async with anyio.from_thread.BlockingPortal() as portal:
            self.portal = portal
            self._tell(self.started.set)
            await portal.sleep_until_stopped()

    def _tell(self, call: Callable[[], None]) -> None:
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call)


def _log_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.warning("media_loop_error", reason=context.get("message"), error=repr(error))


@asynccontextmanager
async def open_media_thread(*, on_overdue: Callable[[str], None] = log_overdue) -> AsyncIterator[MediaThread]:
    """Run the media thread for as long as the block lasts.

    Leaving the block closes every peer and ends the thread, even when cancelled; ``on_overdue`` is told what did not
    end within its deadline.

    Raises:
        AssertionsOffError: Python runs with ``-O``.
        InternalError: the thread did not start.
    """
    if not __debug__:
        raise AssertionsOffError("start Python without -O and without PYTHONOPTIMIZE")
    thread = _Thread()
    thread.start()
    with trio.move_on_after(START_TIMEOUT_SECONDS, shield=True):
        await thread.started.wait()
    if thread.portal is None or thread.loop is None:
        raise InternalError("the media thread did not start")
    media = MediaThread(thread.portal, thread.loop, on_overdue)
    try:
        yield media
    finally:
        with trio.CancelScope(shield=True):
            # Bounded by each peer's own deadline.
            await media.close_peers()
        with trio.move_on_after(STOP_TIMEOUT_SECONDS, shield=True) as scope:
            await media.abandonable_call(thread.portal.stop, True)
            await thread.ended.wait()
            thread.join()
        if scope.cancelled_caught:
            on_overdue("the media thread did not end in time")
