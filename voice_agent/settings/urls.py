"""Addresses that the server itself fetches from, or sends to."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def is_fetchable(text: str) -> bool:
    """Whether an address may be trusted to answer for itself: ``https://``, or ``http://`` that stays on the machine.

    Without user information, which would end up in logs, and without a fragment, which means nothing here.
    """
    parts = _parts(text)
    if parts is None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def is_http(text: str) -> bool:
    """Whether it is an address that something can be sent to over HTTP, with TLS or not."""
    parts = _parts(text)
    return parts is not None and parts.scheme in {"http", "https"}


def is_origin(text: str) -> bool:
    """Whether it is an address of :func:`is_http` that ends behind the port."""
    parts = _parts(text)
    return is_http(text) and parts is not None and not parts.path and not parts.query


def _parts(text: str) -> SplitResult | None:
    """Return the parts of an absolute address without user information and fragment; None for anything else."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    if not host or port == 0 or "@" in parts.netloc or parts.fragment:
        return None
    return parts


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
