"""The microphone as a source of a call's audio, through PortAudio (the optional ``microphone`` extra)."""

import importlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from types import ModuleType
from typing import Any, Final

import attrs
import numpy as np
import trio

from voice_agent.cli.call_audio import AudioMessage
from voice_agent.cli.call_files import MessageCutter
from voice_agent.core.errors import UnreadableFileError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.units import SECONDS

MAX_WAITING_BLOCKS: Final = 100
"""Blocks that may wait to be sent (2 s of 20 ms blocks); a later one is lost, as in any sound card that is not read."""
CLOSE_TIMEOUT_SECONDS: Final = 2 * SECONDS


class MicrophoneError(UnreadableFileError):
    """There is no microphone, it can't be opened, or the library for it is missing."""

    code = "no_microphone"


@attrs.frozen
class MicrophoneSource:
    """The system's default input, opened in the call's own rate and channel count; runs until it is left."""

    audio_format: AudioFormat
    chunk_ms: int = 20
    is_live: bool = attrs.field(init=False, default=True)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[AudioMessage]]:
        """Begin to record.

        Raises:
            MicrophoneError: sounddevice is not installed, or PortAudio or the device is not there.
        """
        portaudio = load_sounddevice()
        token = trio.lowlevel.current_trio_token()
        blocks_in, blocks_out = trio.open_memory_channel["np.ndarray[Any, np.dtype[np.float32]]"](
            MAX_WAITING_BLOCKS
        )

        def keep(block: "np.ndarray[Any, np.dtype[np.float32]]") -> None:
            try:
                blocks_in.send_nowait(block)
            except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                return

        def on_block(indata: Any, _frames: int, _time: Any, _status: Any) -> None:
            """Run by PortAudio in its own thread; the buffer is PortAudio's and is only lent."""
            token.run_sync_soon(keep, np.array(indata, dtype=np.float32))

        stream = await trio.to_thread.run_sync(self._start, portaudio, on_block)
        try:
            async with aclosing(self._iterate(blocks_out)) as messages:
                with blocks_in, blocks_out:
                    yield messages
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_TIMEOUT_SECONDS):
                await trio.to_thread.run_sync(stream.close, abandon_on_cancel=True)

    def _start(self, portaudio: ModuleType, on_block: Any) -> Any:
        try:
            stream = portaudio.InputStream(
                samplerate=self.audio_format.sample_rate,
                channels=self.audio_format.channels,
                dtype="float32",
                blocksize=self.audio_format.sample_rate * self.chunk_ms // 1000,
                callback=on_block,
            )
            stream.start()
        except portaudio.PortAudioError as error:
            raise MicrophoneError(f"the microphone can't be opened: {error}") from error
        return stream

    async def _iterate(
        self, blocks: "trio.MemoryReceiveChannel[np.ndarray[Any, np.dtype[np.float32]]]"
    ) -> AsyncGenerator[AudioMessage, None]:
        cutter = MessageCutter(self.audio_format, self.chunk_ms)
        async for block in blocks:
            for message in cutter.cut(block):
                yield message


def load_sounddevice() -> ModuleType:
    """Return the module, which is looked for only when somebody wants to speak.

    Raises:
        MicrophoneError: the package or PortAudio is missing; the message says what to install.
    """
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise MicrophoneError(
            "reading a microphone needs the package sounddevice: pip install 'voice-agent[microphone]'"
        ) from error
    except OSError as error:
        raise MicrophoneError(
            f"sounddevice can't load PortAudio ({error}); on Debian: apt install libportaudio2"
        ) from error
