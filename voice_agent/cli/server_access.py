"""How commands get in at a server: the key that they show, and whose certificates they trust."""

import ipaddress
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import attrs
import click

from voice_agent.core.errors import ServerUnreachableError

KEY_VARIABLE: Final = "VOICE_AGENT_KEY"
MAX_KEY_BYTES: Final = 8192
"""A server takes no longer headers; a token with many claims has two or three thousand."""

_KEY: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""RFC 6750, section 2.1."""

Command = TypeVar("Command", bound=Callable[..., Any])


@attrs.frozen(kw_only=True)
class ServerAccess:
    """What a client shows, and what it trusts; by default nothing, and what the system trusts."""

    key: str | None = attrs.field(default=None, repr=False)
    """An API key or a token."""
    ca_file: Path | None = None
    """Certificates (PEM) that are trusted instead of the system's."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """For each request."""
        return [] if self.key is None else [(b"Authorization", f"Bearer {self.key}".encode())]

    def tls_context(self) -> ssl.SSLContext:
        """Make what is needed for TLS.

        Raises:
            ServerUnreachableError: the file holds no certificates.
        """
        try:
            return ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        except OSError as error:  # ssl.SSLError is one
            raise ServerUnreachableError(
                f"{self.ca_file} holds no certificates that can be read: {error}"
            ) from error


NO_ACCESS: Final = ServerAccess()


def server_access_options(command: Command) -> Command:
    """Add ``--key-file`` and ``--ca-file``; the command gets them as ``key_file`` and ``ca_file``.

    There is no option for the key itself: what stands on a command line, every user of the machine can read.
    """
    for option in (
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="Certificates (PEM) to trust instead of the system's; for wss and https.",
        ),
        click.option(
            "--key-file",
            type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True),
            help=f"A file with the key or token to show; {KEY_VARIABLE} may hold it instead.",
        ),
    ):
        command = option(command)
    return command


def read_access(key_file: Path | None, ca_file: Path | None) -> ServerAccess:
    """Read what the options and the environment say; a file wins over the environment.

    Raises:
        click.UsageError: the key is none.
    """
    if key_file is None:
        text, source = os.environ.get(KEY_VARIABLE, ""), KEY_VARIABLE
        if not text:
            return ServerAccess(ca_file=ca_file)
    else:
        source = str(key_file)
        try:
            with click.open_file(source, encoding="ascii", errors="replace") as file:
                text = file.read(MAX_KEY_BYTES + 1)
        except OSError as error:
            raise click.UsageError(f"{source} can't be read: {error.strerror}") from error
    key = text.strip()
    if len(key) > MAX_KEY_BYTES or _KEY.fullmatch(key) is None:
        # Not shown: it may be a key with something behind it.
        raise click.UsageError(f"{source} holds no key: one line of letters, digits and -._~+/ is wanted.")
    return ServerAccess(key=key, ca_file=ca_file)


def clear_text_risk(url: str) -> str | None:
    """Return a warning where a key would travel to another machine unencrypted; None where it does not."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if parts.scheme in {"wss", "https"} or is_here:
        return None
    return f"the key travels to {host} unencrypted, for everybody on the way to read; use wss:// or https://"
