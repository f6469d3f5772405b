"""Where a call's audio comes from: the interface, and a recording that lies ready in memory."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Protocol

import attrs

from voice_agent.core.formats import AudioFormat


@attrs.frozen
class AudioMessage:
    """One binary message: its bytes, and the position (seconds of the call) just behind its last sample."""

    data: bytes
    end_seconds: float


class AudioSource(Protocol):
    """Audio to send, already in the call's format and cut into messages."""

    @property
    def audio_format(self) -> AudioFormat:
        """The format that ``start`` announces."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether the source itself runs at the speed of sound, so that sending needs no pacing."""
        ...

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[AudioMessage]]:
        """Begin to read; leaving the context frees what was opened.

        Raises:
            UnreadableFileError: on entering or while iterating.
        """
        ...


@attrs.frozen
class MemorySource:
    """Audio messages that lie ready; can be opened any number of times, by many calls at once."""

    audio_format: AudioFormat
    messages: Sequence[AudioMessage]
    is_live: bool = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[AudioMessage]]:
        """Begin at the first message."""
        async with aclosing(self._iterate()) as messages:
            yield messages

    async def _iterate(self) -> AsyncGenerator[AudioMessage, None]:
        for message in self.messages:
            yield message
