"""open_http_server: listens, and serves each connection under the guard.

In the place of Hypercorn's ``worker_serve``, whose shutdown trigger closes the listener and its connections in one
step, and whose lifespan hands the application a nursery in which crashes are lost. There is no ASGI lifespan here:
what an application needs is started by who assembles the server.
"""

import math
from collections import abc
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper

from voice_agent.server.connection import GuardedTCPServer, check_hypercorn
from voice_agent.server.guard_limits import GuardHooks, GuardLimits, GuardTerms, Intervention
from voice_agent.server.sockets import Listener, listen
from voice_agent.server.tls import ServerTls
from voice_agent.settings.current import SCOPE_KEY, CurrentSettings, InForce
from voice_agent.settings.schema import Settings

log = structlog.get_logger(__name__)

ASGIApp = abc.Callable[[Any, Any, Any], abc.Awaitable[None]]
"""An ASGI 3 application: ``await app(scope, receive, send)``."""

SERVICE_RESTART: Final = 1012


class HypercornLog:
    """Hypercorn's own messages, through structlog; queries stay out, for they can hold tokens."""

    def __init__(self, _config: Config) -> None:
        pass

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        """Log one request."""
        log.debug(
            "http_request",
            scope=request["type"],
            path=request["path"][:200],
            status=None if response is None else response["status"],
            seconds=round(request_time, 4),
        )


class HttpServer:
    """The listening server; see :func:`open_http_server`."""

    def __init__(
        self,
        app: AppWrapper,
        terms: abc.Callable[[], GuardTerms],
        hooks: GuardHooks,
        tls: ServerTls | None,
    ) -> None:
        self.addresses: list[tuple[str, int]] = []
        """Host and port of each listener, as bound."""
        self._app = app
        self._terms = terms
        self._hooks = hooks
        self._tls = tls
        self._config = _hypercorn_config(terms().limits)
        self._context = WorkerContext(None)
        self._accepting = trio.CancelScope()
        self._connections: set[GuardedTCPServer] = set()
        self._emptied = trio.Event()
        self._close_seconds = math.inf

    @property
    def connection_count(self) -> int:
        """TCP connections that are open, or whose handler has not ended yet."""
        return len(self._connections)

    def stop_accepting(self) -> None:
        """Close the listeners; connections go on. Idempotent."""
        self._accepting.cancel()

    def hurry(self, close_seconds: float) -> None:
        """Give what is left so long at the end, where that is less than the close timeout."""
        self._close_seconds = min(self._close_seconds, close_seconds)

    async def wait_closed(self) -> None:
        """Wait until no connection is left."""
        while self._connections:
            self._emptied = trio.Event()
            await self._emptied.wait()

    async def _accept(
        self,
        listeners: abc.Sequence[Listener],
        handler_nursery: trio.Nursery,
        task_status: trio.TaskStatus[None],
    ) -> None:
        names = [listener.socket.getsockname() for listener in listeners]
        self.addresses = [name[:2] for name in names if isinstance(name, tuple)]
        with self._accepting:
            async with trio.open_nursery() as nursery:
                await nursery.start(
                    partial(
                        trio.serve_listeners,
                        self._serve,
                        cast("list[trio.SocketListener]", listeners),
                        handler_nursery=handler_nursery,
                    )
                )
                task_status.started()

    async def _serve(self, stream: trio.SocketStream) -> None:
        limits = self._terms().limits
        if len(self._connections) >= limits.max_connections:
            self._hooks.connection_refused()
            return
        connection = GuardedTCPServer(
            self._app,
            self._config,
            self._context,
            {},
            # With the certificate of this moment; the handshake is the connection's own business.
            stream if self._tls is None else trio.SSLStream(stream, self._tls.context, server_side=True),
            limits,
            self._hooks,
            self._terms,
        )
        self._connections.add(connection)
        self._hooks.connection_opened()
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            self._hooks.connection_closed()
            if not self._connections:
                self._emptied.set()

    async def _close(self) -> None:
        """End every connection in bounded time: first with a close code, then with a reset."""
        self.stop_accepting()
        await self._context.terminated.set()
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for connection in list(self._connections):
                    nursery.start_soon(connection.shut_down, SERVICE_RESTART)
                with trio.move_on_after(min(self._close_seconds, self._terms().limits.close_timeout_seconds)):
                    await self.wait_closed()
                # Also what wakes a shut_down that waits in a shielded send for a peer that does not read.
                for connection in list(self._connections):
                    connection.abort(Intervention.FORCED_CLOSE)


def _hypercorn_config(limits: GuardLimits) -> Config:
    config = Config()
    config.logger_class = HypercornLog  # type: ignore[assignment]
    config.alpn_protocols = ["http/1.1"]
    config.include_server_header = False
    config.h11_max_incomplete_size = limits.max_header_bytes
    return config


def _fixed_terms(limits: GuardLimits) -> abc.Callable[[], GuardTerms]:
    terms = GuardTerms(limits, {})
    return lambda: terms


def _followed_terms(current: CurrentSettings) -> abc.Callable[[], GuardTerms]:
    made_of: InForce | None = None
    terms = GuardTerms(GuardLimits(), {})

    def followed() -> GuardTerms:
        nonlocal made_of, terms
        if made_of is not current.in_force:
            made_of = current.in_force
            terms = GuardTerms(GuardLimits.from_settings(made_of.settings), {SCOPE_KEY: made_of})
        return terms

    return followed


@asynccontextmanager
async def open_http_server(
    app: ASGIApp,
    settings: Settings,
    *,
    current: CurrentSettings | None = None,
    limits: GuardLimits | None = None,
    hooks: GuardHooks | None = None,
    tls: ServerTls | None = None,
    listeners: abc.Sequence[Listener] | None = None,
) -> abc.AsyncIterator[HttpServer]:
    """Listen and serve ``app`` while the context is open.

    Leaving it stops accepting, ends WebSockets with 1012 and idle connections at once, lets responses finish, and
    cuts off what is left after the close timeout. To let calls end in peace, call ``stop_accepting()`` and wait for
    them before leaving. With ``current`` each connection and request has the limits that are in force when it comes,
    and the scope's ``state`` holds those settings; a WebSocket keeps them. ``limits`` takes the place of all of them.
    With ``tls`` every connection is TLS. ``listeners`` take the place of the address in the settings.

    Raises:
        AddressInUseError: the address is taken or can't be had.
        UnsupportedHypercornError: another Hypercorn than the pinned one is installed.
        ExceptionGroup: around what the body raises, as from any nursery.
    """
    check_hypercorn()
    terms = _fixed_terms(limits) if limits else _followed_terms(current or CurrentSettings(settings))
    server = HttpServer(ASGIWrapper(app), terms, hooks or GuardHooks(), tls)
    if listeners is None:
        listeners = await listen(settings.server)
    async with trio.open_nursery() as connections, trio.open_nursery() as accepting:
        await accepting.start(server._accept, listeners, connections)  # noqa: SLF001 - its own constructor
        try:
            yield server
        finally:
            await server._close()  # noqa: SLF001 - its own constructor
            connections.cancel_scope.cancel()
