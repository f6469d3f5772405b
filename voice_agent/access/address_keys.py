"""What an address is counted as: an IPv4 address alone, an IPv6 address with all of its /64."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from voice_agent.settings.lists import Network

SUBNET_BITS: Final = 64
"""A network is given a /64 at least (RFC 6177), and its hosts choose the rest as often as they like (RFC 8981)."""

_KEPT_BITS: Final = ((1 << SUBNET_BITS) - 1) << SUBNET_BITS


def address_key(address: str) -> str:
    """Return what an address is counted under; what is no IPv6 address is counted as it stands."""
    if ":" not in address:
        return address
    parsed = _parsed(address)
    if not isinstance(parsed, IPv6Address):
        return address if parsed is None else str(parsed)
    return f"{IPv6Address(int(parsed) & _KEPT_BITS)}/{SUBNET_BITS}"


def lies_in(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of some networks; what is no address lies nowhere."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    # A socket that takes both families shows IPv4 callers as IPv6 (RFC 4291, section 2.5.5.2).
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
