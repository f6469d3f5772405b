"""ServiceManager: tells systemd how the process is, by the protocol of sd_notify(3).

Lines ``NAME=value`` in one datagram, to the Unix socket that ``$NOTIFY_SOCKET`` names. The package ``sdnotify`` does the
same, has not been touched since 2017 and knows neither the watchdog nor reloading; libsystemd would be a C library for
one ``sendto``.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import NoReturn, Self

import structlog
import trio

log = structlog.get_logger(__name__)

USEC_PER_SECOND = 1_000_000


class ServiceManager:
    """The service manager that started this process, if one did; without one nothing is sent."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds
        """Within which it wants to hear that the process is alive; None when it does not watch."""
        self._status = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ, *, pid: int | None = None) -> Self:
        """Read ``$NOTIFY_SOCKET``, ``$WATCHDOG_USEC`` and ``$WATCHDOG_PID`` (sd_watchdog_enabled(3))."""
        address = environ.get("NOTIFY_SOCKET", "")
        # systemd's own addresses are paths, or names in the abstract namespace, written with an "@" for their NUL.
        if not address.startswith(("/", "@")):
            return cls()
        microseconds = environ.get("WATCHDOG_USEC", "")
        meant = environ.get("WATCHDOG_PID", "")
        is_watched = (
            microseconds.isdecimal()
            and int(microseconds) > 0
            and (not meant or meant == str(os.getpid() if pid is None else pid))
        )
        return cls(address, int(microseconds) / USEC_PER_SECOND if is_watched else None)

    def ready(self, status: str | None = None) -> None:
        """The server listens, or goes on after a reload."""
        self._status = self._status if status is None else status
        self._tell(READY="1", STATUS=self._status)

    def reloading(self) -> None:
        """The settings are read again; :meth:`ready` follows, whatever comes of it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(RELOADING="1", MONOTONIC_USEC=str(now))

    def status(self, status: str) -> None:
        """Something that an operator may want to see in ``systemctl status``."""
        self._status = status
        self._tell(STATUS=status)

    def stopping(self, status: str, *, within_seconds: float, cause: str = "") -> None:
        """The server drains, and the process ends within so long; the unit's own time-out may be shorter.

        ``cause`` is for a supervisor; systemd passes over fields that begin with X.
        """
        self._tell(
            STOPPING="1",
            STATUS=status,
            X_CAUSE=cause,
            EXTEND_TIMEOUT_USEC=str(round(within_seconds * USEC_PER_SECOND)),
        )

    async def keep_alive(self) -> NoReturn:
        """Tell that the event loop turns, twice within the time that it is given; what hangs it, restarts the service."""
        if self.watchdog_seconds is None:
            await trio.sleep_forever()
        while True:
            self._tell(WATCHDOG="1")
            await trio.sleep(self.watchdog_seconds / 2)

    def _tell(self, **values: str) -> None:
        if self._address is None:
            return
        message = "\n".join(f"{name}={value}" for name, value in values.items() if value)
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                # A manager that does not read must not hold the event loop.
                sock.setblocking(False)
                sock.sendto(message.encode(), address)
        except OSError as error:
            log.warning("service_manager_unreachable", reason=str(error), told=next(iter(values)))
