"""Origin: which site a web page comes from (RFC 6454), normalised so that two ways of writing one are equal."""

import ipaddress
import re
from typing import Final, Self

import attrs

DEFAULT_PORTS: Final = {"http": 80, "https": 443}

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:\[(?P<v6>[0-9a-f:.]{2,45})\]|(?P<host>[a-z0-9_](?:[a-z0-9_.-]{0,252})))"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
_MAX_PORT: Final = 65_535


@attrs.frozen
class Origin:
    """Scheme, host and port; ``port`` is None where the scheme has no default and none is named."""

    scheme: str
    host: str
    """In lower case; an IPv6 address in its short form, without brackets."""
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``https://example.org:8443``, as browsers send it; ``null`` is nobody's origin.

        Raises:
            ValueError: it is no origin: a path or a slash behind it, user information, characters beyond ASCII.
        """
        found = _ORIGIN.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:80]!r} is no origin like https://example.org:8443")
        scheme = found["scheme"].lower()
        port = DEFAULT_PORTS.get(scheme) if found["port"] is None else int(found["port"])
        if port is not None and not 0 < port <= _MAX_PORT:
            raise ValueError(f"{text[:80]!r} has a port that can't be")
        if found["v6"] is not None:
            return cls(scheme, ipaddress.IPv6Address(found["v6"]).compressed, port)
        return cls(scheme, found["host"].lower(), port)

    @property
    def is_loopback(self) -> bool:
        """Whether the host names the machine itself, by a loopback address or by ``localhost`` (RFC 6761)."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        shown = "" if self.port in {None, DEFAULT_PORTS.get(self.scheme)} else f":{self.port}"
        return f"{self.scheme}://{host}{shown}"
