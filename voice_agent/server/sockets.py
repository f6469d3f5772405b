"""The sockets that a server listens on: its own, one that it shares with other workers, and one for these alone."""

import errno
import select
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

import trio

from voice_agent.core.errors import AddressInUseError
from voice_agent.core.units import MS
from voice_agent.settings.schema import ServerSettings

BACKLOG: Final = 512
STALE_CONNECTION: Final = frozenset(
    {
        errno.ECONNABORTED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
        errno.ENONET, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPERM, errno.EPROTO, errno.ETIMEDOUT,
    }
)  # fmt: skip
"""accept(2): what was wrong with the connection that waited, not with the listener."""

LOOK_SECONDS: Final = 2 * MS
"""Between two looks whether a sibling has taken a connection."""

Listener: TypeAlias = "trio.SocketListener | SharedListener"


async def listen(server: ServerSettings) -> list[trio.SocketListener]:
    """Bind the address of the settings.

    Raises:
        AddressInUseError: it is taken or can't be had.
    """
    try:
        return await trio.open_tcp_listeners(server.port, host=server.host, backlog=BACKLOG)
    except OSError as error:
        raise AddressInUseError(
            f"can't listen on {server.host}:{server.port} ({error.strerror or error}); "
            "stop what uses it, or choose another server.port",
            field="server.port",
        ) from error


def listen_inside(path: Path) -> list[trio.SocketListener]:
    """Bind a Unix socket; who may connect is decided by the folder that it is in.

    Raises:
        AddressInUseError: it can't be had.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of a worker that was killed
        bound.bind(str(path))
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise AddressInUseError(f"can't listen on {path} ({error.strerror or error})") from error
    return [trio.SocketListener(trio.socket.from_stdlib_socket(bound))]


class SharedListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts from a socket that other processes accept from as well, and lets those go first who should.

    Each connection wakes all of them. Each leaves it alone for as long as ``patience_seconds`` says, then takes it, if it is
    still there. So a process that has hung, or died, never keeps anybody waiting: after a moment
    the next one comes. (With SO_REUSEPORT the kernel would deal connections out by a hash of their addresses: blind to
    who has how much to do, and what it has dealt to a process is lost with it.)
    """

    def __init__(self, shared: socket.socket, patience_seconds: Callable[[], float]) -> None:
        shared.setblocking(False)
        shared.set_inheritable(False)
        self.socket: Final = shared
        self._patience_seconds = patience_seconds

    async def accept(self) -> trio.SocketStream:
        """Wait for a connection that is ours.

        Raises:
            ClosedResourceError: the listener was closed.
            OSError: the system has no room for another connection.
        """
        while True:
            if self.socket.fileno() < 0:
                raise trio.ClosedResourceError("the listener is closed")
            await trio.lowlevel.wait_readable(self.socket)
            await self._let_others_go_first()
            try:
                connection, _ = self.socket.accept()
            except BlockingIOError:
                continue  # another one was sooner
            except OSError as error:
                if error.errno in STALE_CONNECTION:
                    continue
                raise
            return trio.SocketStream(trio.socket.from_stdlib_socket(connection))

    async def _let_others_go_first(self) -> None:
        """Wait until it is our turn, or somebody has taken what waits; whose turn it is may change with each connection."""
        since = trio.current_time()
        while (  # noqa: ASYNC110 (what siblings do is no event of ours)
            left := since + self._patience_seconds() - trio.current_time()
        ) > 0 and self._something_waits():
            await trio.sleep(min(left, LOOK_SECONDS))

    def _something_waits(self) -> bool:
        poll = select.poll()  # select() itself knows 1024 descriptors
        poll.register(self.socket, select.POLLIN)
        return bool(poll.poll(0))

    async def aclose(self) -> None:
        """Close this process's share of the socket; the others go on."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
        await trio.lowlevel.checkpoint()


def share(fds: Sequence[int], patience_seconds: Callable[[], float]) -> list[SharedListener]:
    """Take over listening sockets that other processes have too."""
    return [SharedListener(socket.socket(fileno=fd), patience_seconds) for fd in fds]
