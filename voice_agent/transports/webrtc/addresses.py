"""ICE addresses: which of our own are bound and offered, and which of a caller's candidates are tried."""

import ipaddress
from typing import Any

import ifaddr
from aiortc.sdp import candidate_from_sdp

from voice_agent.core.errors import InvalidSdpError
from voice_agent.transports.webrtc.config import PeerConfig


def read_candidate(line: str) -> Any:
    """Read a candidate attribute's value as aiortc wants it; raises :class:`InvalidSdpError`."""
    try:
        return candidate_from_sdp(line)
    except (AssertionError, ValueError, IndexError) as error:
        raise InvalidSdpError("an ICE candidate can't be read") from error


def is_usable_host(host: str) -> bool:
    """Whether a candidate's host is an address that one caller can have."""
    try:
        return not ipaddress.ip_address(host).is_multicast
    except ValueError:
        return False


def limit_gathering(connection: Any, config: PeerConfig) -> None:
    """Bind and offer only addresses of the allowed networks and interfaces, and wait for servers only so long."""
    gather: Any = connection.get_component_candidates
    is_limited = bool(config.allowed_networks or config.allowed_interfaces)

    async def gather_allowed(component: int, addresses: list[str]) -> Any:
        allowed = allowed_addresses(config) if addresses and is_limited else addresses
        return await gather(component=component, addresses=allowed, timeout=config.gather_timeout_seconds)

    connection.get_component_candidates = gather_allowed


def allowed_addresses(config: PeerConfig) -> list[str]:
    """Return the machine's addresses that ``config`` allows; loopback too, where a network or interface names it."""
    networks = [ipaddress.ip_network(network, strict=False) for network in config.allowed_networks]
    found: list[str] = []
    for adapter in ifaddr.get_adapters():
        if config.allowed_interfaces and adapter.name not in config.allowed_interfaces:
            continue
        for ip in adapter.ips:
            address = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            is_link_local = not isinstance(ip.ip, str) and ip.ip[2] != 0
            parsed = ipaddress.ip_address(address)
            if is_link_local or (networks and not any(parsed in network for network in networks)):
                continue
            found.append(address)
    return found
