"""ServerNames: the addresses behind the names of STUN and TURN servers, found before the ICE library looks for them.

aioice looks names up in its event loop's pool of threads. A name server that doesn't answer would hold up each call's
answer for seconds, and the exit of the process until the resolver gives up, because Python waits for such threads. Here
a look-up runs in a worker thread of Trio's, which can be left behind; what was found is remembered; and a server
whose name leads nowhere is left out of the call, which may well do without it.
"""

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import attrs
import structlog
import trio

from voice_agent.core.units import SECONDS
from voice_agent.transports.webrtc.config import IceServer

LOOK_UP_SECONDS: Final = 1 * SECONDS
"""How long a call waits for a name; the caller waits for its answer meanwhile."""
FRESH_SECONDS: Final = 60 * SECONDS
"""The resolver doesn't say how long an address holds; a minute is what records of servers that move usually have."""
FAILED_SECONDS: Final = 10 * SECONDS
"""How long the calls after a failure don't even ask."""

_URL: Final = re.compile(r"(?P<scheme>stuns?|turns?):(?P<host>[^?:\[\]]+)(?P<rest>.*)")

LookUp = Callable[[str], Awaitable[str | None]]
"""Return a host's IPv4 address, or None when it has none."""

log = structlog.get_logger(__name__)


@attrs.frozen
class _Known:
    address: str | None
    until: float


class ServerNames:
    """One server's; it holds no tasks and needs no closing."""

    def __init__(self, look_up: LookUp | None = None) -> None:
        self._look_up = look_up or _ThreadedLookUp()
        self._known: dict[str, _Known] = {}

    async def resolved(self, servers: Sequence[IceServer]) -> tuple[IceServer, ...]:
        """Return the servers with addresses in the place of names, without those that can't be found.

        Over TLS the name stays, for the certificate is checked against it.
        """
        hosts = {host for server in servers for url in server.urls if (host := _name_in(url)) is not None}
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(self._learn, host)
        found = (attrs.evolve(server, urls=self._urls(server.urls)) for server in servers)
        return tuple(server for server in found if server.urls)

    def _urls(self, urls: Sequence[str]) -> tuple[str, ...]:
        return tuple(url for each in urls if (url := self._with_address(each)) is not None)

    def _with_address(self, url: str) -> str | None:
        host = _name_in(url)
        if host is None:
            return url
        address = self._known[host].address
        if address is None:
            return None
        scheme, rest = url.split(":", 1)
        return url if scheme.endswith("s") else f"{scheme}:{address}{rest.removeprefix(host)}"

    async def _learn(self, host: str) -> None:
        known = self._known.get(host)
        if known is not None and trio.current_time() < known.until:
            return
        address: str | None = None
        with trio.move_on_after(LOOK_UP_SECONDS):
            address = await self._look_up(host)
        if address is None:
            log.warning("ice_server_not_found", host=host)
            # An address that was right a minute ago is better than none.
            address = known.address if known is not None else None
            self._known[host] = _Known(address, trio.current_time() + FAILED_SECONDS)
        else:
            self._known[host] = _Known(address, trio.current_time() + FRESH_SECONDS)


class _ThreadedLookUp:
    """Asks the system's resolver; one thread for each name, however many calls wait for it."""

    def __init__(self) -> None:
        self._places: dict[str, trio.CapacityLimiter] = {}

    async def __call__(self, host: str) -> str | None:
        place = self._places.setdefault(host, trio.CapacityLimiter(1))
        return await trio.to_thread.run_sync(_first_address, host, limiter=place, abandon_on_cancel=True)


def _first_address(host: str) -> str | None:
    # IPv4 alone: aiortc can't read an IPv6 address in such a URL, and aioice asks STUN servers over IPv4 only.
    try:
        found = socket.getaddrinfo(host, None, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError):
        return None
    return str(found[0][4][0]) if found else None


def _name_in(url: str) -> str | None:
    """Return the host of a STUN or TURN URL if it is a name (RFC 7064, RFC 7065)."""
    match = _URL.fullmatch(url)
    if match is None:
        return None
    try:
        ipaddress.ip_address(match["host"])
    except ValueError:
        return match["host"]
    return None
