"""ICMP's "port unreachable": the report that a process is gone which did not say goodbye.

When a program is killed, its operating system closes its sockets, and answers what still comes for them with ICMP type 3
code 3 (RFC 792; IPv6: RFC 4443, section 3.1). A UDP socket that is not connected to one peer, as ICE's are, is told of
it on Linux only when it asks (``IP_RECVERR``, ip(7)). Where firewalls drop the report, or a relay stands in between,
nothing comes and nothing is lost; a forged report must know both ports, and is only ever a reason to ask the caller.
"""

# ruff: noqa: SLF001  # aioice's internals are used here, which is why its version is pinned exactly

import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

_IP_RECVERR: Final = 11
_IPV6_RECVERR: Final = 25
"""From Linux's in.h and in6.h; Python's socket module doesn't name them."""
_ANCILLARY_BYTES: Final = 512
_MAX_REPORTS: Final = 64
"""How many reports are taken off the socket's queue at once."""


def report_unreachable(connections: Iterable[Any], on_unreachable: Callable[[], None]) -> None:
    """Have ``on_unreachable`` called when the network reports that a peer's port is closed; Linux only.

    ``connections`` are aioice's. Ask when they are established: earlier, one candidate that is out of reach would keep
    back the checks of the others, for the report of one packet fails the next one.
    """
    if sys.platform != "linux":
        return
    for connection in connections:
        for protocol in connection._protocols:
            with suppress(OSError):  # a socket that is being closed
                _listen(protocol, on_unreachable)


def _listen(protocol: Any, on_unreachable: Callable[[], None]) -> None:
    wrapped = protocol.transport.get_extra_info("socket")
    if wrapped is None:
        return  # a relay's: what lies beyond it reports to it, not to us
    plain: socket.socket = wrapped._sock
    if plain.family == socket.AF_INET6:
        plain.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
    else:
        plain.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
    pass_on: Callable[[Exception], None] = protocol.error_received

    def error_received(error: Exception) -> None:
        _empty_queue(plain)
        if isinstance(error, ConnectionRefusedError):
            on_unreachable()
        pass_on(error)

    # asyncio calls this for a failed send as well as for a failed receive.
    protocol.error_received = error_received


def _empty_queue(plain: socket.socket) -> None:
    """Take the reports off the error queue: while one is there, the event loop finds the socket readable for ever."""
    with suppress(OSError):  # nothing left, or closed
        for _ in range(_MAX_REPORTS):
            plain.recvmsg(1, _ANCILLARY_BYTES, socket.MSG_ERRQUEUE)
