"""What a worker does that a server alone does not: share the port, serve its siblings, and end with its supervisor."""

import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, NoReturn

import attrs
import structlog
import trio

from voice_agent.core.units import MS
from voice_agent.core.worker import WorkerPlace
from voice_agent.server.burdens import NOBODY, UNWILLING, Burdens
from voice_agent.server.calls import CallDesk
from voice_agent.server.drain import CONNECTIONS_SECONDS
from voice_agent.server.last_resort import end_process_after
from voice_agent.server.listening import ASGIApp, HttpServer, open_http_server
from voice_agent.server.sockets import listen_inside, share
from voice_agent.server.stopping import LAST_RESORT_SECONDS, Stopping
from voice_agent.settings.current import CurrentSettings
from voice_agent.web.app import Readiness

SUPERVISOR_GONE: Final = "supervisor gone"
PATIENCE_SECONDS: Final = 25 * MS
"""For each sibling with less to do a new connection is left alone for so long. An idle event loop takes it in 0.2 ms, one on a
crowded machine may need ten; a sibling that has hung costs a caller no more than this."""
TELL_SECONDS: Final = 100 * MS
"""How old what siblings see may be."""
CALL: Final = 10.0
"""The burden of a call, where a connection is 1: a page that is left open counts for little."""

log = structlog.get_logger(__name__)


@attrs.define(kw_only=True)
class Share:
    """A worker's share in the port: how much it has to do, and so how long it leaves a new connection to others."""

    number: int
    burdens: Burdens
    desk: CallDesk
    state: Callable[[], Readiness]
    """Whether a new call would be served."""
    server: HttpServer | None = None

    def burden(self) -> float:
        """Return what this worker has to do."""
        if self.server is None or not self.desk.is_open:
            return NOBODY
        burden = CALL * len(self.desk.registry) + self.server.connection_count
        return burden if self.state().is_ready else burden + UNWILLING

    def patience_seconds(self) -> float:
        """Return how long to leave a connection that waits."""
        self.burdens.put(self.number, self.burden())
        return PATIENCE_SECONDS * self.burdens.before(self.number)

    async def tell(self) -> NoReturn:
        """Have siblings see how it is, for ever."""
        while True:
            self.burdens.put(self.number, self.burden())
            await trio.sleep(TELL_SECONDS)


@asynccontextmanager
async def open_worker_server(
    place: WorkerPlace,
    open_server: Callable[..., AbstractAsyncContextManager[HttpServer]],
    inside: ASGIApp,
    current: CurrentSettings,
    desk: CallDesk,
    state: Callable[[], Readiness],
) -> AsyncIterator[HttpServer]:
    """Serve the shared port, with ``open_server``, and the worker's own Unix socket, with ``inside``."""
    with Burdens.of(place) as burdens:
        share_of_port = Share(number=place.number, burdens=burdens, desk=desk, state=state)
        try:
            async with (
                open_http_server(
                    inside, current.now, current=current, listeners=listen_inside(place.socket_path)
                ) as siblings_door,
                open_server(
                    listeners=share(place.listen_fds, share_of_port.patience_seconds)
                ) as share_of_port.server,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(share_of_port.tell)
                yield share_of_port.server
                nursery.cancel_scope.cancel()
                siblings_door.hurry(CONNECTIONS_SECONDS)
        finally:
            burdens.put(place.number, NOBODY)


def follow_supervisor(place: WorkerPlace, stopping: Stopping, current: CurrentSettings) -> None:
    """Stop when the supervisor is gone, whatever became of it; an event loop that hangs then is ended too.

    A thread waits for it, because it must work where the event loop does not.
    """
    token = trio.lowlevel.current_trio_token()

    def begin() -> None:
        if not stopping.begun.is_set():
            log.error("supervisor_gone")
        # Nobody will accept for us; who starts a new server now needs the port.
        stopping.begin(SUPERVISOR_GONE, is_urgent=True)

    def wait() -> None:
        # Nobody writes: it returns when the other end is closed.
        os.read(place.lifeline_fd, 1)
        end_process_after(current.now.server.grace_seconds + LAST_RESORT_SECONDS)
        try:
            token.run_sync_soon(begin)
        except trio.RunFinishedError:
            return

    os.set_inheritable(place.lifeline_fd, False)
    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def tidy_up(place: WorkerPlace, stopping: Stopping) -> None:
    """Remove what a supervisor that is gone can't; the last one out takes the folder along."""
    place.socket_path.unlink(missing_ok=True)
    if stopping.cause == SUPERVISOR_GONE and not any(place.folder.glob("worker-*.sock")):
        shutil.rmtree(place.folder, ignore_errors=True)
