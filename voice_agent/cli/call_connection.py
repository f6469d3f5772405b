"""The way to a server: address, TCP, TLS, WebSocket handshake, and back.

trio-websocket's own ``open_websocket`` is not used: against a peer that accepts and then says nothing its connect
timeout fires and it goes on waiting for its reader for ever, and a refused handshake leaks the socket (0.12.2).
Here the stream is ours, and closed whatever happens.
"""

import json
import os
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import attrs
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from voice_agent.cli.server_access import KEY_VARIABLE, NO_ACCESS, ServerAccess
from voice_agent.core.errors import ServerUnreachableError, TransportBrokenError, VoiceAgentError
from voice_agent.core.units import MIB

MAX_SERVER_MESSAGE_BYTES: Final = 1 * MIB
MAX_REFUSAL_CHARACTERS: Final = 200

PROTOCOL: Final = "voice-agent.v1"
RESUME_PROTOCOL: Final = "voice-agent.resume."

_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]


@attrs.frozen
class _Address:
    host: str
    port: int
    is_encrypted: bool
    resource: str

    @classmethod
    def parse(cls, url: str) -> "_Address":
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is no WebSocket address")
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return cls(parts.hostname, port, parts.scheme == "wss", resource)

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def check_address(url: str) -> None:
    """Raise a ``ValueError`` where ``url`` is no WebSocket address."""
    _Address.parse(url)


async def with_connection(
    url: str,
    use: Callable[[WebSocketConnection], Awaitable[None]],
    *,
    connect_timeout_seconds: float,
    close_timeout_seconds: float,
    access: ServerAccess = NO_ACCESS,
    resumes: str | None = None,
) -> None:
    """Open a connection to ``url`` (``ws://`` or ``wss://``), run ``use`` with it, close it.

    ``connect_timeout_seconds`` bounds name lookup, TCP, TLS and handshake together; ``close_timeout_seconds`` the
    closing handshake. ``resumes`` is the session that will go on: the server has room for it where it has its former
    connection. What ``use`` raises comes out in an exception group.

    Raises:
        ServerUnreachableError: nobody answered in time, or the server refused the handshake.
        TransportBrokenError: the peer broke the WebSocket protocol, or left the close frame unanswered.
        ValueError: ``url`` is no WebSocket address.
    """
    address = _Address.parse(url)
    deadline = trio.current_time() + connect_timeout_seconds
    stream = await _open_stream(url, address, deadline, connect_timeout_seconds, access)
    is_open = False
    failure: VoiceAgentError | None = ServerUnreachableError(
        f"{url} did not complete the WebSocket handshake within {connect_timeout_seconds:g} s; "
        "is a voice-agent server listening there?"
    )
    try:
        async with trio.open_nursery() as nursery:
            with trio.move_on_at(deadline):
                connection = await wrap_client_stream(
                    nursery,
                    stream,
                    address.host_header,
                    address.resource,
                    subprotocols=None if resumes is None else [PROTOCOL, f"{RESUME_PROTOCOL}{resumes}"],
                    extra_headers=access.headers,
                    max_message_size=MAX_SERVER_MESSAGE_BYTES,
                )
                is_open = True
            if is_open:
                await use(connection)
                failure = TransportBrokenError("the server did not answer the close frame")
                with trio.move_on_after(close_timeout_seconds):
                    await connection.aclose()
                    failure = None
            nursery.cancel_scope.cancel()
    except* ConnectionRejected as rejections:
        failure = _refusal(url, rejections)
    except* (ConnectionClosed, ProtocolError):
        # Before the handshake was done this is another kind of server, which is what `failure` says already.
        if is_open:
            failure = TransportBrokenError("the server broke the WebSocket protocol")
    finally:
        await trio.aclose_forcefully(stream)
    if failure is not None:
        raise failure


async def _open_stream(
    url: str, address: _Address, deadline: float, timeout_seconds: float, access: ServerAccess
) -> Stream:
    # Reading what the system trusts takes tens of milliseconds, in which no other call of this process goes on.
    context = access.tls_context() if address.is_encrypted else None
    try:
        with trio.fail_at(deadline):
            tcp = await trio.open_tcp_stream(address.host, address.port)
            if context is None:
                return tcp
            tls = trio.SSLStream(tcp, context, server_hostname=address.host, https_compatible=True)
            try:
                await tls.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(tcp)
                raise
            return tls
    except trio.TooSlowError:
        reason = f"no answer within {timeout_seconds:g} s"
    except OSError as error:
        reason = _system_reason(error)
    except trio.BrokenResourceError as error:
        reason = f"no TLS connection: {error.__cause__ or error}"
    raise ServerUnreachableError(
        f"{url} can't be reached: {reason}; check the address, and that the server runs (voice-agent serve)"
    )


def _system_reason(error: OSError) -> str:
    """Return what the system said; Trio keeps it behind its own "all attempts to connect failed"."""
    cause = error.__cause__
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    told = cause if isinstance(cause, OSError) else error
    number = told.errno or 0
    # A name that does not resolve has a negative number, and words of its own.
    return os.strerror(number) if number > 0 else told.strerror or str(told)


def _refusal(url: str, rejections: ExceptionGroup[ConnectionRejected]) -> ServerUnreachableError:
    rejection = rejections.exceptions[0]
    while isinstance(rejection, ExceptionGroup):
        rejection = rejection.exceptions[0]
    reason = _reason_of(rejection.body or b"")
    told = f"{url} refused the call with HTTP {rejection.status_code}" + (f": {reason}" if reason else "")
    is_about_keys = rejection.status_code == HTTPStatus.UNAUTHORIZED
    words = f"{told} (a key is shown by --key-file or {KEY_VARIABLE})" if is_about_keys else told
    return ServerUnreachableError(words, http_status=rejection.status_code)


def _reason_of(body: bytes) -> str:
    """Return the ``detail`` of a problem document (RFC 9457), else the beginning of the text."""
    text = body.decode("utf-8", "replace").strip()
    try:
        detail = json.loads(text)["detail"]
    except (ValueError, TypeError, KeyError, RecursionError):
        detail = None
    return (detail if isinstance(detail, str) else text)[:MAX_REFUSAL_CHARACTERS]
