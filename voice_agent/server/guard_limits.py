"""What the connection guard allows one connection, and what it tells about its interventions."""

from enum import StrEnum
from typing import Any, Final, Self

import attrs

from voice_agent.core.units import KIB, SECONDS
from voice_agent.settings.schema import Settings

HANDLER_EXIT_MARGIN: Final = 5 * SECONDS
"""Added to what a call may need to hear its last words, before its handler is cancelled."""


class Intervention(StrEnum):
    """Why the guard stepped in; the label of a counter."""

    CRASH = "crash"
    """An exception reached the edge of a connection: a defect, in us or in a dependency; the log has the trace."""
    HANDLER_CRASHED = "handler_crashed"
    """The application raised; the peer got 500 or close code 1011."""
    HANDLER_STALLED = "handler_stalled"
    """The application stopped reading what its peer sends."""
    HANDLER_LINGERED = "handler_lingered"
    """The application went on long after its peer had gone, and was cancelled."""
    SLOW_READER = "slow_reader"
    """The peer did not read for the send timeout, and was cut off."""
    PEER_SILENT = "peer_silent"
    """The peer sent nothing, no pong either, for the read timeout."""
    TLS_HANDSHAKE = "tls_handshake"
    """The peer broke off the TLS handshake, or speaks no TLS that is spoken here."""
    HEADER_TIMEOUT = "header_timeout"
    BODY_TIMEOUT = "body_timeout"
    BODY_TOO_LARGE = "body_too_large"
    BAD_REQUEST = "bad_request"
    """The bytes are no HTTP/1.1 request, or no valid WebSocket handshake."""
    PROTOCOL_ERROR = "protocol_error"
    """WebSocket close code 1002 or 1007."""
    MESSAGE_TOO_LARGE = "message_too_large"
    """WebSocket close code 1009."""
    CONTROL_FLOOD = "control_flood"
    """WebSocket close code 1008: too many pings, pongs or empty fragments."""
    FORCED_CLOSE = "forced_close"
    """The server was closing, and the connection did not end within its time."""


@attrs.frozen(kw_only=True)
class GuardLimits:
    """The limits of one connection; times in seconds, sizes in bytes."""

    max_connections: int = 512
    header_timeout_seconds: float = 5 * SECONDS
    keep_alive_seconds: float = 30 * SECONDS
    send_timeout_seconds: float = 5 * SECONDS
    """For each piece of up to :data:`~voice_agent.server.connection.SEND_PIECE` bytes, so a slow reader that reads
    is not one that does not."""
    body_timeout_seconds: float = 10 * SECONDS
    """A request's body must be complete by then, counted from the end of its headers."""
    max_header_bytes: int = 16 * KIB
    max_body_bytes: int = 64 * KIB
    max_binary_bytes: int = 256 * KIB
    max_text_bytes: int = 64 * KIB
    max_control_frames_per_second: int = 100
    ping_interval_seconds: float = 20 * SECONDS
    read_timeout_seconds: float = 60 * SECONDS
    max_waiting_messages: int = 16
    """Messages read from the peer that the application has not taken yet; beyond them TCP holds the peer back."""
    handler_stall_seconds: float = 5 * SECONDS
    """How long the peer is held back before a WebSocket handler counts as stalled."""
    handler_exit_seconds: float = 20 * SECONDS
    """How long a handler may go on after its peer has gone; a call needs it to hear the last words."""
    linger_seconds: float = 1 * SECONDS
    """How long a closing connection is read (and what is read thrown away), so that the peer sees our last bytes
    and not a reset."""
    close_timeout_seconds: float = 5 * SECONDS
    """How long leaving :func:`~voice_agent.server.listening.open_http_server` waits for what is left."""

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Take the operator's limits; the ones that no setting names keep their defaults."""
        server, websocket, session = settings.server, settings.websocket, settings.session
        return cls(
            max_connections=server.max_connections,
            header_timeout_seconds=server.header_timeout_seconds,
            keep_alive_seconds=server.keep_alive_seconds,
            send_timeout_seconds=server.send_timeout_seconds,
            max_binary_bytes=websocket.max_binary_bytes,
            max_text_bytes=websocket.max_text_bytes,
            ping_interval_seconds=websocket.ping_interval_seconds,
            read_timeout_seconds=websocket.read_timeout_seconds,
            handler_stall_seconds=server.send_timeout_seconds,
            handler_exit_seconds=(
                session.finish_timeout_seconds + session.close_timeout_seconds + HANDLER_EXIT_MARGIN
            ),
            close_timeout_seconds=session.close_timeout_seconds,
        )


@attrs.frozen
class GuardTerms:
    """What holds for one request and for the WebSocket that it may become."""

    limits: GuardLimits
    state: dict[str, Any]
    """What the application finds in the ``state`` of its ASGI scope."""


class GuardHooks:
    """Counts what the guard sees; override what is of interest. The methods are called on the Trio thread."""

    def connection_opened(self) -> None:
        """A TCP connection was accepted."""

    def connection_closed(self) -> None:
        """A connection that had been opened is over, its handler too."""

    def connection_refused(self) -> None:
        """A TCP connection was closed at once, because there are too many."""

    def intervened(self, kind: Intervention) -> None:
        """The guard stepped in."""
