"""Conversation: what the HTTP and WebSocket halves of the guard may ask of the connection below them."""

from collections import abc
from enum import Enum, auto
from typing import Any, Protocol

from voice_agent.core.errors import VoiceAgentError
from voice_agent.server.guard_limits import GuardHooks, GuardLimits, Intervention

Headers = abc.Sequence[tuple[bytes, bytes]]
"""Lower-case names and values."""


class Phase(Enum):
    """What the connection waits for from its peer; each has a deadline of its own."""

    HEADERS = auto()
    BODY = auto()
    RESPONDING = auto()
    IDLE = auto()
    WEBSOCKET = auto()
    CLOSING = auto()
    """Our last bytes are sent; the peer is read until it closes or the linger time is over."""
    OVER = auto()


class Conversation(Protocol):
    """One connection, as its protocols see it."""

    limits: GuardLimits
    hooks: GuardHooks
    phase: Phase
    heard_at: float
    """When the peer was last heard, on Trio's clock."""

    def settle(self) -> dict[str, Any]:
        """Take the limits that are in force now, for the request that begins; returns its scope's ``state``."""
        ...

    def enter(self, phase: Phase, seconds: float | None = None) -> None:
        """Wait for something else from now on, for so many seconds (None: without a deadline)."""
        ...

    async def receive(self) -> bytes:
        """Return what the peer sent, or nothing when it will send no more."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of it, cancelled or not; a peer that takes none of a piece in time is cut off."""
        ...

    async def begin_close(self, *, half_close: bool = True, discard: bool = True) -> None:
        """Nothing more is sent; read on for the linger time, so that no reset destroys our last bytes."""
        ...

    def hang_up(self) -> None:
        """End the reader now; the connection is closed as soon as what is being sent is sent."""
        ...

    def abort(self, reason: Intervention | None = None) -> None:
        """Close the socket at once, with a reset; whoever waits on it wakes up."""
        ...

    def start_companion(self, task: abc.Callable[[], abc.Awaitable[None]]) -> None:
        """Run a task that ends with the reader."""
        ...


class Answer(Protocol):
    """Answers in the place of the application."""

    async def __call__(self, error: VoiceAgentError, headers: Headers = ()) -> Any:
        """Tell a problem if no response has begun, then close."""
        ...
