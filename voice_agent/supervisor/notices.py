"""What workers tell their supervisor: the protocol of sd_notify(3), so that a worker speaks as to systemd."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn

import trio

MAX_BYTES: Final = 4096


@contextmanager
def open_notices(path: Path) -> Iterator[trio.socket.SocketType]:
    """Bind the socket that one worker is given as ``$NOTIFY_SOCKET``."""
    path.unlink(missing_ok=True)
    with trio.socket.from_stdlib_socket(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as bound:
        # trio's bind is async for names that need a look-up; a path needs none.
        socket.socket.bind(bound._sock, os.fspath(path))  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            yield bound
        finally:
            with suppress(OSError):
                path.unlink()


async def hear(bound: trio.socket.SocketType, tell: Callable[[Mapping[str, str]], None]) -> NoReturn:
    """Pass on every notice, for ever."""
    while True:
        tell(parse_notice(await bound.recv(MAX_BYTES)))


def parse_notice(datagram: bytes) -> Mapping[str, str]:
    """Read lines ``NAME=value``; what is none is left out."""
    lines = datagram.decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
