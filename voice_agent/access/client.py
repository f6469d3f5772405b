"""Who stands behind the proxies: a request's own address, scheme and host.

Anybody can write ``X-Forwarded-For``. It is read only when the TCP peer is a trusted proxy, from the right, where the
proxies nearest to us write, and only as far as each hop is trusted: the first address that is not trusted is the
client's, and what it claims to have come from counts for nothing. ``X-Forwarded-For`` and ``Forwarded`` (RFC 7239) are
never mixed: a proxy sets one of them and may pass on the other as it came.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from voice_agent.settings.lists import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SIGNS_OF_A_PROXY: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
FORWARDED: Final = "forwarded"
"""The choice of ``access.proxy_header`` that means RFC 7239."""

_SCHEMES: Final = {"ws": "http", "wss": "https", "http": "http", "https": "https"}
_MAX_NODE_CHARACTERS: Final = 64
_V4_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]{1,5}", re.ASCII)
_V6_IN_BRACKETS: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?", re.ASCII)
_PAIR: Final = re.compile(r'\s*([A-Za-z]+)=(?:"([^"\\]*)"|([^\s;,"=]*))\s*')


@attrs.frozen(kw_only=True)
class Client:
    """Where a request comes from, as far as trusted proxies tell."""

    address: str
    scheme: str
    """``http`` or ``https``, on the client's side of the proxies."""
    host: str
    """What the client calls the server, ``example.org:8443``; empty when it does not say."""
    came_by_proxy: bool
    """Whether anything says so, trusted or not."""


@attrs.frozen(kw_only=True)
class _Hop:
    """What one proxy tells about who called it; None where it does not tell."""

    address: Address | None
    scheme: str | None = None
    host: str | None = None


@attrs.frozen(kw_only=True)
class TrustedProxies:
    """Which networks' word is taken, and in which header they give it."""

    networks: tuple[Network, ...] = ()
    header: str = "x-forwarded-for"

    def find_client(self, scope: Mapping[str, Any]) -> Client:
        """Return who sent the request of an ASGI scope."""
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        peer = scope.get("client")
        address = None if peer is None else parse_address(str(peer[0]))
        scheme = _SCHEMES.get(scope.get("scheme", ""), "http")
        host = next(iter(_values(headers, b"host")), "")
        if address is not None and self._trusts(address):
            for hop in self._hops(headers):
                if hop.address is None:
                    break
                address = hop.address
                scheme = hop.scheme or scheme
                host = hop.host or host
                if not self._trusts(address):
                    break
        return Client(
            address="unknown" if address is None else str(address),
            scheme=scheme,
            host=host,
            came_by_proxy=any(name in SIGNS_OF_A_PROXY for name, _ in headers),
        )

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self.networks if network.version == address.version)

    def _hops(self, headers: list[tuple[bytes, bytes]]) -> Iterable[_Hop]:
        """From the nearest to the farthest, as they are told."""
        if self.header == FORWARDED:
            return map(_forwarded_hop, reversed(_list(headers, b"forwarded")))
        # These two are not told for each hop; the nearest proxy's word is the last one.
        scheme = next(reversed(_list(headers, b"x-forwarded-proto")), "").lower()
        host = next(reversed(_list(headers, b"x-forwarded-host")), None)
        return (
            _Hop(address=parse_node(node), scheme=_SCHEMES.get(scheme), host=host)
            for node in reversed(_list(headers, b"x-forwarded-for"))
        )


def parse_address(text: str) -> Address | None:
    """Read an IP address; an IPv4 address in IPv6 clothes (RFC 4291, section 2.5.5.2) is an IPv4 address."""
    if len(text) > _MAX_NODE_CHARACTERS:
        return None
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def parse_node(text: str) -> Address | None:
    """Read a hop as proxies write it: with or without a port, IPv6 with or without brackets; None for what it hides."""
    found = _V4_WITH_PORT.fullmatch(text) or _V6_IN_BRACKETS.fullmatch(text)
    return parse_address(text if found is None else found[1])


def _forwarded_hop(element: str) -> _Hop:
    """Read one element of ``Forwarded`` (RFC 7239, section 4).

    Elements are split at each comma, in quotes or not: no address has one, and a quote that a client opens must not
    swallow what a proxy writes behind it.
    """
    fields: dict[str, str] = {}
    for piece in element.split(";"):
        found = _PAIR.fullmatch(piece)
        if found is None or found[1].lower() in fields:
            return _Hop(address=None)
        fields[found[1].lower()] = found[3] if found[2] is None else found[2]
    return _Hop(
        address=parse_node(fields.get("for", "")),
        scheme=_SCHEMES.get(fields.get("proto", "").lower()),
        host=fields.get("host"),
    )


def _values(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in headers if name == wanted]


def _list(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> list[str]:
    """Return a header that is a list, also where it stands on several lines (RFC 9110, section 5.3)."""
    return [
        piece.strip() for value in _values(headers, wanted) for piece in value.split(",") if piece.strip()
    ]
