"""ICE candidates of a caller, judged before the ICE library sees them (RFC 8839, section 5.1).

A candidate makes the server send packets to an address of the caller's choice. What can't be a caller's own address
(loopback, link-local, multicast, unspecified) is dropped, and so are names: only mDNS names (``<label>.local``) are
kept, which browsers use to hide their address and which are asked for on the local link only.
"""

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

import attrs

from voice_agent.core.errors import InvalidSdpError, TooManyCandidatesError

MAX_CANDIDATES: Final = 20

_CANDIDATE: Final = re.compile(
    r"(?P<foundation>[A-Za-z0-9+/]{1,32}) (?P<component>[0-9]{1,3}) (?P<transport>[A-Za-z0-9]{1,8}) "
    r"(?P<priority>[0-9]{1,10}) (?P<address>[0-9A-Za-z.:%_-]{1,255}) (?P<port>[0-9]{1,5}) "
    r"typ (?P<kind>[a-z]{1,16})(?P<rest>(?: [!-~]+ [!-~]*)*)",
    re.ASCII,
)
_MDNS_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,63}\.local", re.ASCII)
_KINDS: Final = frozenset({"host", "srflx", "prflx", "relay"})
_MAX_PORT: Final = 65_535
_MAX_PRIORITY: Final = 2**31 - 1


@attrs.frozen
class AddressPolicy:
    """Which of a caller's candidates may be talked to; loopback is for tests on one machine."""

    allow_loopback: bool = False
    max_candidates: int = MAX_CANDIDATES

    def admits(self, address: str) -> bool:
        """Whether packets may be sent to the address."""
        if is_local_name(address):
            return True
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        if ip.is_loopback:
            return self.allow_loopback
        is_broadcast = isinstance(ip, ipaddress.IPv4Address) and ip == ipaddress.IPv4Address(
            "255.255.255.255"
        )
        return not (ip.is_link_local or ip.is_multicast or ip.is_unspecified or is_broadcast)


def is_local_name(host: str) -> bool:
    """Whether a candidate's host is an mDNS name, which stands for an address that is yet to be judged."""
    return _MDNS_NAME.fullmatch(host) is not None


def judge_candidates(values: Iterable[str], policy: AddressPolicy) -> tuple[tuple[str, ...], int]:
    """Return the candidates that may be used, rewritten without extensions, and how many were dropped.

    ``values`` are what stands behind ``a=candidate:``. TCP candidates and those of a second component are dropped:
    the ICE library knows neither, and RTCP is multiplexed.

    Raises:
        TooManyCandidatesError: more than the policy allows, counted before any is dropped.
        InvalidSdpError: a value is no candidate.
    """
    offered = list(values)
    if len(offered) > policy.max_candidates:
        raise TooManyCandidatesError(
            f"{len(offered)} candidates are offered; at most {policy.max_candidates} are taken",
            field="a=candidate",
        )
    kept = dict.fromkeys(filter(None, (_usable(value, policy) for value in offered)))
    return tuple(kept), len(offered) - len(kept)


def _usable(value: str, policy: AddressPolicy) -> str | None:
    """Return the candidate if it may be used."""
    match = _CANDIDATE.fullmatch(value.strip())
    if match is None:
        raise InvalidSdpError(f"{value[:80]!r} is no ICE candidate", field="a=candidate")
    port, priority = int(match["port"]), int(match["priority"])
    if port > _MAX_PORT or not 1 <= priority <= _MAX_PRIORITY or match["kind"] not in _KINDS:
        raise InvalidSdpError(f"{value[:80]!r} is no ICE candidate", field="a=candidate")
    is_served = match["transport"].lower() == "udp" and match["component"] == "1" and port > 0
    if not is_served or not policy.admits(match["address"]):
        return None
    # The related address is for people who debug; it is not repeated, so that nothing of it needs to be checked.
    return f"{match['foundation']} 1 udp {priority} {match['address']} {port} typ {match['kind']}"
