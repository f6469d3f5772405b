"""RedisAddress: where a Redis is and who asks for it, as one URL says; also through Sentinels, or as a cluster."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final
from urllib.parse import parse_qsl, unquote

import attrs

DEFAULT_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
MAX_DATABASE: Final = 2**31 - 1


class Topology(Enum):
    """How the servers behind an address belong together."""

    ALONE = auto()
    SOCKET = auto()
    """One server, by the file of its Unix socket."""
    SENTINEL = auto()
    """Sentinels know which server is the master of a service."""
    CLUSTER = auto()
    """Several masters, each with some of the slots; the addresses are where to begin."""


@attrs.frozen(kw_only=True)
class RedisAddress:
    """What a URL said. Names and passwords are decoded, and no ``repr`` shows them."""

    topology: Topology
    is_encrypted: bool = False
    servers: tuple[tuple[str, int], ...] = ()
    """Hosts and ports: the server's, the Sentinels', or some of the cluster's."""
    path: str = ""
    """The socket's file."""
    service: str = ""
    """What the Sentinels call the master."""
    database: int = 0
    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    sentinel_username: str | None = attrs.field(default=None, repr=False)
    sentinel_password: str | None = attrs.field(default=None, repr=False)


SCHEMES: Final[Mapping[str, tuple[Topology, bool]]] = {
    "redis": (Topology.ALONE, False),
    "rediss": (Topology.ALONE, True),
    "unix": (Topology.SOCKET, False),
    "redis+sentinel": (Topology.SENTINEL, False),
    "rediss+sentinel": (Topology.SENTINEL, True),
    "redis+cluster": (Topology.CLUSTER, False),
    "rediss+cluster": (Topology.CLUSTER, True),
}
PARAMETERS: Final[Mapping[Topology, frozenset[str]]] = {
    Topology.ALONE: frozenset(),
    Topology.SOCKET: frozenset({"db"}),
    Topology.SENTINEL: frozenset({"sentinel_username", "sentinel_password"}),
    Topology.CLUSTER: frozenset(),
}


def address_fault(url: str) -> str | None:
    """Return what is wrong with the URL, in words for an operator that repeat nothing secret; None for a good one."""
    try:
        parse_redis_address(url)
    except ValueError as error:
        return str(error)
    return None


def parse_redis_address(url: str) -> RedisAddress:
    """Read a URL.

    One server is ``redis://user:password@host:6379/0``, with TLS ``rediss://``, by its socket
    ``unix:///run/redis.sock?db=0``. ``redis+sentinel://user:password@host1,host2:26379/service/0`` names Sentinels,
    ``redis+cluster://host1,host2`` some servers of a cluster; both have a form with ``rediss``. User and password are
    percent-encoded, as RFC 3986, section 3.2.1, says.

    Raises:
        ValueError: it is none of these; the message says what is wrong, and repeats nothing secret.
    """
    scheme, found, rest = url.partition("://")
    if not found or scheme not in SCHEMES:
        raise ValueError(f"it begins with none of {', '.join(f'{known}://' for known in SCHEMES)}")
    if not url.isascii() or not url.isprintable() or " " in url or "#" in url:
        raise ValueError("it has characters that must be percent-encoded, as a space or # in a password")
    topology, is_encrypted = SCHEMES[scheme]
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    user, has_user, hosts = authority.rpartition("@")
    username, _, password = user.partition(":")
    parameters = _parameters(query, PARAMETERS[topology])
    address = RedisAddress(
        topology=topology,
        is_encrypted=is_encrypted,
        username=unquote(username) or None if has_user else None,
        password=unquote(password) or None if has_user else None,
        sentinel_username=parameters.get("sentinel_username"),
        sentinel_password=parameters.get("sentinel_password"),
    )
    if address.username and not address.password:
        raise ValueError("it names a user without a password; a password alone is :password@")
    if topology is Topology.SOCKET:
        if hosts or not path:
            raise ValueError(
                "a socket's file is an absolute path with three slashes, as unix:///run/redis.sock"
            )
        database = _database(parameters.get("db", ""))
        return attrs.evolve(address, path=slash + unquote(path), database=database)
    default_port = SENTINEL_PORT if topology is Topology.SENTINEL else DEFAULT_PORT
    servers = tuple(_server(text, default_port) for text in hosts.split(","))
    match topology:
        case Topology.SENTINEL:
            service, _, database_text = path.partition("/")
            if not service:
                raise ValueError("behind the Sentinels comes the name of the service, as host1,host2/service")
            return attrs.evolve(
                address, servers=servers, service=unquote(service), database=_database(database_text)
            )
        case Topology.CLUSTER if path not in {"", "0"}:
            raise ValueError("a cluster has the database 0 only")
        case Topology.ALONE if len(servers) > 1:
            raise ValueError("several hosts need redis+sentinel:// or redis+cluster://")
        case _:
            return attrs.evolve(address, servers=servers, database=_database(path))


def _parameters(query: str, known: frozenset[str]) -> dict[str, str]:
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := set(parameters) - known:
        raise ValueError(f"it has parameters that are not known: {', '.join(sorted(unknown))}")
    return parameters


def _server(text: str, default_port: int) -> tuple[str, int]:
    if text.startswith("["):  # IPv6, RFC 3986, section 3.2.2
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not host or not (port == "" or (port.isdecimal() and 0 < int(port) < 2**16)):
        raise ValueError(
            "a host is missing, or a port is no number from 1 to 65535; a @ in a password is %40"
        )
    return host, int(port or default_port)


def _database(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or int(text) > MAX_DATABASE:
        raise ValueError("the database behind the host is no number")
    return int(text)
