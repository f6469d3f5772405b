"""mDNS look-ups (RFC 6762): the ``….local`` names that browsers put in the place of their addresses.

A page without leave to use the microphone must not learn the machine's addresses; so its browser offers names and answers
for them on the local network (draft-ietf-mmusic-mdns-ice-candidates). aioice asks too, but reads an answer with a library
that refuses what RFC 6762, section 18.14, demands of a responder (compressed names in NSEC records), so that Chromium's
answers are lost on it; and it asks for IPv4 only, and on one interface.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import dns.exception
import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import structlog

GROUP: Final = "224.0.0.251"
PORT: Final = 5353
ASK_AGAIN_SECONDS: Final = 1.0
"""RFC 6762, section 5.2: the second query comes no sooner."""
GIVE_UP_SECONDS: Final = 2.0

_ANY_INTERFACE: Final = bytes(4)
_KINDS: Final = (dns.rdatatype.A, dns.rdatatype.AAAA)
_CACHE_FLUSH: Final = 0x8000
"""RFC 6762, section 10.2: a bit of the class, no part of it."""

log = structlog.get_logger(__name__)


async def resolve(name: str, interfaces: Sequence[str]) -> str | None:
    """Return the address that a machine on the local network gives for ``name``, or None after two seconds.

    ``interfaces`` are our own addresses; the question goes out on each that is IPv4. The name needs no other proof than
    that somebody on the local network answered: judge the address as if the caller had sent it.

    Raises:
        OSError: the network takes no question.
    """
    loop = asyncio.get_running_loop()
    name_asked = dns.name.from_text(name)
    found: asyncio.Future[str] = loop.create_future()
    ours = [ipaddress.ip_address(address).packed for address in interfaces if ":" not in address]
    plain = _open_socket(ours)
    try:
        transport, _ = await loop.create_datagram_endpoint(lambda: _Listener(name_asked, found), sock=plain)
    except BaseException:
        plain.close()
        raise
    questions = [_question(name_asked, kind) for kind in _KINDS]
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                while not found.done():
                    _ask(plain, questions, ours)
                    await asyncio.wait([found], timeout=ASK_AGAIN_SECONDS)
    finally:
        transport.close()
    return found.result() if found.done() else None


def _open_socket(interfaces: Sequence[bytes]) -> socket.socket:
    """A socket that shares the port with other programs that ask, on all interfaces."""
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        plain.setblocking(False)  # the socket library's own signature
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        plain.bind(("", PORT))
        for interface in interfaces or [_ANY_INTERFACE]:
            with suppress(
                OSError
            ):  # an interface without multicast, or more of them than one socket may join
                plain.setsockopt(
                    socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + interface
                )
    except BaseException:
        plain.close()
        raise
    return plain


def _question(name: dns.name.Name, kind: dns.rdatatype.RdataType) -> bytes:
    message = dns.message.make_query(name, rdtype=kind, id=0, flags=0)
    return message.to_wire()


def _ask(plain: socket.socket, questions: Sequence[bytes], interfaces: Sequence[bytes]) -> None:
    for interface in interfaces or [_ANY_INTERFACE]:
        with suppress(OSError):  # this interface can't; another may
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            for question in questions:
                plain.sendto(question, (GROUP, PORT))


class _Listener(asyncio.DatagramProtocol):
    """Waits for the first answer about a name."""

    def __init__(self, name: dns.name.Name, found: "asyncio.Future[str]") -> None:
        self._name = name
        self._found = found

    def datagram_received(self, data: bytes, _sender: tuple[Any, ...]) -> None:
        if not self._found.done() and (address := read_answer(data, self._name)) is not None:
            self._found.set_result(address)


def read_answer(data: bytes, name: dns.name.Name) -> str | None:
    """Return the address that a packet gives for ``name``; None for every other packet, and for rubbish."""
    try:
        # Each record is read by itself: one that can't be read is passed over.
        message = dns.message.from_wire(data, continue_on_error=True, ignore_trailing=True)
    except dns.exception.DNSException:
        return None
    for answer in message.answer:
        if answer.name != name or answer.rdtype not in _KINDS:
            continue
        if answer.rdclass & ~_CACHE_FLUSH != dns.rdataclass.IN:
            continue
        for record in answer:
            with suppress(ValueError):  # neither four bytes nor sixteen
                return str(ipaddress.ip_address(record.to_generic().data))
    return None
