"""GuardedTCPServer: one TCP connection under Hypercorn's protocols, made safe.

Hypercorn 0.18.0's Trio worker lets one bad header end the whole server, waits for ever for a client that does not
read, and deadlocks on a handler that does not read (the decision record lists what was measured). This class owns
the socket of one connection and keeps three promises:

- no exception leaves it;
- every wait has a deadline: for headers, a body, the next request, a send, the close;
- when it ends, the socket is closed, and the handler that it served has ended too.

::

    run
     └ handlers      the application, one task per request      (cancelled when it outstays its peer)
        └ companions the pinger of a WebSocket                  (dies with the reader)
           └ reader  bytes -> GuardedH11Protocol -> GuardedWSStream or GuardedHTTPStream -> HandlerInbox
"""

import contextlib
import socket as stdlib_socket
import struct
from collections import abc
from importlib.metadata import version
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr

from voice_agent.core.errors import OperatorError
from voice_agent.core.groups import alone
from voice_agent.core.request_errors import BodyTimeoutError
from voice_agent.core.units import KIB
from voice_agent.server.conversation import Phase
from voice_agent.server.guard_limits import GuardHooks, GuardLimits, GuardTerms, Intervention
from voice_agent.server.guarded_http import GuardedH11Protocol
from voice_agent.server.handler_tasks import GuardedTaskGroup

log = structlog.get_logger(__name__)

GUARDED_VERSION: Final = "0.18.0"
MAX_RECV: Final = 64 * KIB
SEND_PIECE: Final = 64 * KIB
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
"""struct linger with a timeout of 0: close() drops what is unsent and sends a reset (socket(7))."""


class UnsupportedHypercornError(OperatorError):
    """The installed Hypercorn is not the one whose internals the guard was written for."""

    code = "unsupported_hypercorn"


def check_hypercorn(installed: str | None = None) -> None:
    """Raise :class:`UnsupportedHypercornError` unless exactly :data:`GUARDED_VERSION` is installed."""
    found = version("hypercorn") if installed is None else installed
    if found != GUARDED_VERSION:
        raise UnsupportedHypercornError(
            f"Hypercorn {found} is installed, but the connection guard is written for {GUARDED_VERSION}; "
            f"run: pip install hypercorn=={GUARDED_VERSION}"
        )


class GuardedTCPServer(TCPServer):
    """One connection; ``await run()`` serves it to its end and raises nothing but cancellation."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
        limits: GuardLimits,
        hooks: GuardHooks,
        terms: abc.Callable[[], GuardTerms] | None = None,
    ) -> None:
        super().__init__(app, config, context, state, cast("trio.SSLStream[trio.SocketStream]", stream))
        self._transport = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self._is_tls = isinstance(stream, trio.SSLStream)
        self.limits = limits
        self._terms = terms
        self.hooks = hooks
        self.phase = Phase.HEADERS
        self.heard_at = trio.current_time()
        """When the peer was last heard, on Trio's clock."""
        self.is_broken = False
        """The socket is closed; what is sent is thrown away."""
        self._deadline = self.heard_at + limits.header_timeout_seconds
        self._read_scope = trio.CancelScope()
        self._is_discarding = False
        self._guarded: GuardedH11Protocol | None = None
        self._companions: trio.Nursery | None = None
        self._handler_group: GuardedTaskGroup | None = None

    @property
    def _socket(self) -> trio.socket.SocketType:
        return self._transport.socket

    async def run(self) -> None:
        """Serve the connection; a defect is logged and ends this connection only."""
        with trio.CancelScope() as everything:
            try:
                await self._serve()
            except* OSError:
                pass  # the peer went away between accept and here, or under a handshake
            except* (Exception, SystemExit) as group:
                self.hooks.intervened(Intervention.CRASH)
                log.exception("connection_crashed", exc_info=alone(group))
            finally:
                self.abort()
                # A stray Cancelled must not reach the nursery of all connections.
                everything.cancel()

    async def _serve(self) -> None:
        if self._is_tls:
            try:
                with trio.fail_after(self.limits.header_timeout_seconds):
                    await self.stream.do_handshake()
            except trio.TooSlowError:
                self.hooks.intervened(Intervention.HEADER_TIMEOUT)
                return
            except trio.BrokenResourceError:
                self.hooks.intervened(Intervention.TLS_HANDSHAKE)
                return
        sock = self._socket
        async with trio.open_nursery() as handlers:
            self._handler_group = GuardedTaskGroup(handlers, self.limits, self.hooks)
            protocol = GuardedH11Protocol(
                self.app,
                self.config,
                self.context,
                self._handler_group,
                ConnectionState(self.state),
                self._is_tls,
                parse_socket_addr(sock.family, sock.getpeername()),
                parse_socket_addr(sock.family, sock.getsockname()),
                self.protocol_send,
                self,
            )
            self._guarded = protocol
            async with trio.open_nursery() as companions:
                self._companions = companions
                await self._read_data()
                self._companions = None
                companions.cancel_scope.cancel()
            self.phase = Phase.OVER
            await protocol.handle(Closed())
            await self._close()
            handlers.cancel_scope.deadline = trio.current_time() + self.limits.handler_exit_seconds
        if handlers.cancel_scope.cancelled_caught:
            self.hooks.intervened(Intervention.HANDLER_LINGERED)
            log.warning("handler_lingered", waited_seconds=self.limits.handler_exit_seconds)

    def start_companion(self, task: abc.Callable[[], abc.Awaitable[None]]) -> None:
        """Run a task that ends with the reader."""
        if self._companions is not None:
            self._companions.start_soon(task)

    def settle(self) -> dict[str, Any]:
        """Take the limits that are in force now, for the request that begins; returns its scope's ``state``.

        A connection may be kept for hours by a proxy, and become a call at its end.
        """
        if self._terms is None:
            return {}
        terms = self._terms()
        self.limits = terms.limits
        if self._handler_group is not None:
            self._handler_group.limits = terms.limits
        return terms.state

    # Reading

    def enter(self, phase: Phase, seconds: float | None = None) -> None:
        """Wait for something else from now on, for so many seconds (None: without a deadline)."""
        self.phase = phase
        self._deadline = float("inf") if seconds is None else trio.current_time() + seconds
        self._read_scope.deadline = self._deadline

    async def _read_data(self) -> None:
        while True:
            try:
                with trio.CancelScope(deadline=self._deadline) as self._read_scope:
                    await self._read_until_end()
                    return
            except Exception as error:
                self.hooks.intervened(Intervention.CRASH)
                log.exception("protocol_crashed", error=type(error).__name__)
                await self._protocol.refuse_crash()
            else:
                if self.phase is Phase.BODY:
                    self.hooks.intervened(Intervention.BODY_TIMEOUT)
                    await self._protocol.answer(BodyTimeoutError("The body did not come in time."))
                elif self.phase is not Phase.CLOSING:
                    if self.phase is Phase.HEADERS:
                        self.hooks.intervened(Intervention.HEADER_TIMEOUT)
                    return
            if self.phase is not Phase.CLOSING or trio.current_time() >= self._deadline:
                return

    @property
    def _protocol(self) -> GuardedH11Protocol:
        assert self._guarded is not None  # noqa: S101 - set before the reader runs
        return self._guarded

    async def _read_until_end(self) -> None:
        protocol = self._protocol
        while self.phase is not Phase.OVER:
            data = await self.receive()
            if not data:
                return
            if self._is_discarding:
                continue
            if self.phase is Phase.IDLE:
                self.enter(Phase.HEADERS, self.limits.header_timeout_seconds)
            await protocol.receive(data)

    async def receive(self) -> bytes:
        """Return what the peer sent, or nothing when it will send no more."""
        try:
            data = await self.stream.receive_some(MAX_RECV)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            return b""
        self.heard_at = trio.current_time()
        return bytes(data)

    # Sending

    async def protocol_send(self, event: Event) -> None:
        """Do what Hypercorn's protocols ask of a connection."""
        if isinstance(event, RawData):
            await self.send(event.data)
        elif isinstance(event, Closed):
            await self.begin_close()
        elif isinstance(event, Updated) and event.idle:
            if self._protocol.has_waiting_bytes:
                self.enter(Phase.HEADERS, self.limits.header_timeout_seconds)
            else:
                self.enter(Phase.IDLE, self.limits.keep_alive_seconds)
            if self.context.terminated.is_set():
                self.hang_up()

    async def send(self, data: bytes) -> None:
        """Send all of it, cancelled or not; a peer that takes none of a piece in time is cut off."""
        if self.is_broken:
            # A handler that sends in a loop must not own the thread until it hears of the end.
            await trio.lowlevel.checkpoint()
            return
        # Shielded, for half a WebSocket frame makes the rest of the stream unreadable.
        with trio.CancelScope(shield=True, deadline=self._send_deadline()) as scope:
            if self.send_lock.locked():
                await self.send_lock.acquire()
            else:
                self.send_lock.acquire_nowait()
            try:
                for start in range(0, len(data), SEND_PIECE):
                    scope.deadline = self._send_deadline()
                    await self.stream.send_all(data[start : start + SEND_PIECE])
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.abort()
            finally:
                self.send_lock.release()
        if scope.cancelled_caught:
            self.abort(Intervention.SLOW_READER)

    def _send_deadline(self) -> float:
        return trio.current_time() + self.limits.send_timeout_seconds

    # Closing

    async def begin_close(self, *, half_close: bool = True, discard: bool = True) -> None:
        """Nothing more is sent; read on for the linger time, so that no reset destroys our last bytes."""
        self._is_discarding = self._is_discarding or discard
        if self.phase in {Phase.CLOSING, Phase.OVER}:
            return
        self.enter(Phase.CLOSING, self.limits.linger_seconds)
        if half_close:
            await self.half_close()

    async def half_close(self) -> None:
        """Tell the peer that nothing more comes."""
        if self.is_broken or self._is_tls:
            return
        try:
            self._socket.shutdown(stdlib_socket.SHUT_WR)
        except OSError:
            self.abort()

    def hang_up(self) -> None:
        """End the reader now; the connection is closed as soon as what is being sent is sent."""
        self.phase = Phase.OVER
        self._read_scope.cancel()

    def abort(self, reason: Intervention | None = None) -> None:
        """Close the socket at once, with a reset; whoever waits on it wakes up."""
        if self.is_broken:
            return
        self.is_broken = True
        if reason is not None:
            self.hooks.intervened(reason)
            log.info("connection_aborted", reason=reason.value)
        with contextlib.suppress(OSError):  # the kernel may have closed it already
            self._socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()
        self.hang_up()

    async def _close(self) -> None:
        # Behind the send that is under way, which has its own deadline; then the kernel delivers what is buffered.
        with trio.CancelScope(shield=True, deadline=self._send_deadline()):
            async with self.send_lock:
                if self._is_tls and not self.is_broken:
                    # Says that nothing was cut off (RFC 8446, section 6.1), and waits for no answer.
                    await self.stream.aclose()
                self.is_broken = True
                self._socket.close()
        self.abort()

    async def shut_down(self, code: int) -> None:
        """The server is closing: end an idle connection now, a WebSocket with ``code``, a response after its end."""
        if self.phase in {Phase.HEADERS, Phase.IDLE}:
            self.hang_up()
        elif self._guarded is not None:
            await self._guarded.shut_down(code)
