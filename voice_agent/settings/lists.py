"""Lists that stand in one text setting: ICE server addresses, networks, origins."""

import ipaddress
import re
from typing import Final

from voice_agent.core.origin import Origin

_STUN: Final = re.compile(r"stun:(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)
_TURN: Final = re.compile(
    r"turns?:(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?(?:\?transport=(?:udp|tcp))?",
    re.ASCII,
)

_FIELD_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", re.ASCII)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_list(text: str) -> tuple[str, ...]:
    """Split a list at its commas."""
    return tuple(part for part in (piece.strip() for piece in text.split(",")) if part)


def are_stun_urls(text: str) -> bool:
    """Whether each address is a STUN server's (RFC 7064)."""
    return all(_STUN.fullmatch(url) for url in split_list(text))


def are_turn_urls(text: str) -> bool:
    """Whether each address is a TURN server's (RFC 7065)."""
    return all(_TURN.fullmatch(url) for url in split_list(text))


def networks(text: str) -> tuple[Network, ...]:
    """Read a list of networks, ``10.0.0.0/8, 2001:db8::/32``.

    Raises:
        ValueError: one of them is none.
    """
    return tuple(ipaddress.ip_network(part) for part in split_list(text))


def are_networks(text: str) -> bool:
    """Whether :func:`networks` can read the list."""
    try:
        networks(text)
    except ValueError:
        return False
    return True


def header_fields(text: str) -> dict[str, str]:
    """Read a list of header fields, ``name=value, other=value``.

    Raises:
        ValueError: one of them is none (RFC 9110, section 5).
    """
    fields = {}
    for part in split_list(text):
        name, equals, value = part.partition("=")
        if not equals or not _FIELD_NAME.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise ValueError("a header field is no name=value")
        fields[name] = value
    return fields


def are_header_fields(text: str) -> bool:
    """Whether :func:`header_fields` can read the list."""
    try:
        header_fields(text)
    except ValueError:
        return False
    return True


def are_origins(text: str) -> bool:
    """Whether each is the origin of one site; ``*`` and ``null`` are not."""
    try:
        for part in split_list(text):
            Origin.parse(part)
    except ValueError:
        return False
    return True
