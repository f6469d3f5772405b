"""Addresses that the server itself fetches from."""

import ipaddress
from urllib.parse import urlsplit


def is_fetchable(text: str) -> bool:
    """Whether an address may be trusted to answer for itself: ``https://``, or ``http://`` that stays on the machine.

    Without user information, which would end up in logs, and without a fragment, which means nothing here.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    if not text.isascii() or not text.isprintable() or " " in text:
        return False
    if not host or port == 0 or "@" in parts.netloc or parts.fragment:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
