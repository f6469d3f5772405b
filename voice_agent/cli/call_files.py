"""An audio file as a source of a call's audio: read, mixed, resampled, encoded and cut into messages.

All of that happens a second at a time in a worker thread, so that the Trio thread only sends.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable
from contextlib import aclosing, asynccontextmanager, closing
from pathlib import Path
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt
import trio

from voice_agent.audio.encoding import open_encoder
from voice_agent.audio.files import iter_audio
from voice_agent.audio.opus import DECODED_RATE, packet_samples
from voice_agent.audio.resample import open_resampler
from voice_agent.cli.call_audio import AudioMessage
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding

BLOCK_SECONDS: Final = 1.0
READER_THREADS: Final = trio.CapacityLimiter(4)
"""Calls that read at the same time; reading and converting a second of audio takes about 2 ms."""

FloatSamples = npt.NDArray[np.float32]


class MessageCutter:
    """Cuts a stream at the wire's own rate into encoded messages of ``chunk_ms``; for Opus, of one packet."""

    def __init__(self, audio_format: AudioFormat, chunk_ms: int) -> None:
        self._format = audio_format
        self._chunk_ms = chunk_ms
        self._encoder = open_encoder(audio_format)
        self._pending = _no_samples(audio_format.channels)
        self._messages = 0
        self._samples = 0

    def cut(self, samples: FloatSamples) -> list[AudioMessage]:
        """Take float32 of shape (n,) or (n, channels) at the format's rate; return what became complete."""
        self._pending = np.concatenate([self._pending, samples.reshape(-1, self._format.channels)])
        messages: list[AudioMessage] = []
        while len(self._pending) >= (size := self._next_size()):
            chunk, self._pending = self._pending[:size], self._pending[size:]
            self._messages += 1
            messages += self._encode(chunk)
        return messages

    def finish(self) -> list[AudioMessage]:
        """Return the rest, as a shorter last message; the stream is over then."""
        messages = self._encode(self._pending)
        return [*messages, *(self._placed_packet(packet) for packet in self._encoder.flush())]

    def _next_size(self) -> int:
        """The message's edges are rounded from the whole stream, so that 20 ms of 11025 Hz don't drift."""
        per_message = self._format.sample_rate * self._chunk_ms
        return (self._messages + 1) * per_message // 1000 - self._messages * per_message // 1000

    def _encode(self, chunk: FloatSamples) -> list[AudioMessage]:
        if self._format.encoding is Encoding.OPUS:
            return [self._placed_packet(packet) for packet in self._encoder.encode(chunk)]
        self._samples += len(chunk)
        end_seconds = self._samples / self._format.sample_rate
        return [AudioMessage(data, end_seconds) for data in self._encoder.encode(chunk)]

    def _placed_packet(self, packet: bytes) -> AudioMessage:
        self._samples += packet_samples(packet)
        return AudioMessage(packet, self._samples / DECODED_RATE)


class _WireConverter:
    """Mixes and resamples a file's frames to the wire's channels and rate."""

    def __init__(self, input_rate: int, audio_format: AudioFormat) -> None:
        self._channels = audio_format.channels
        # SoX's resampler: a recording is resampled once more by the server, so this one should leave no trace.
        self._resamplers = [
            open_resampler(input_rate, audio_format.sample_rate, library="soxr", quality="medium")
            for _ in range(self._channels)
        ]

    def convert(self, frame: AudioFrame) -> FloatSamples:
        mixed = frame.to_mono_float32() if self._channels == 1 else frame.to_float32()
        columns = mixed.reshape(len(mixed), -1)
        return _interleaved(
            resampler.process(columns[:, min(channel, columns.shape[1] - 1)])
            for channel, resampler in enumerate(self._resamplers)
        )

    def finish(self) -> FloatSamples:
        return _interleaved(resampler.flush() for resampler in self._resamplers)


@attrs.frozen(kw_only=True)
class FileSource:
    """An audio file (WAV, FLAC, OGG, or headerless in ``raw_format``), sent as ``audio_format``.

    ``silence_seconds`` of silence follow the file, so that the last utterance can end as it would on a call.
    """

    path: Path
    audio_format: AudioFormat = attrs.field(factory=AudioFormat)
    raw_format: AudioFormat | None = None
    chunk_ms: int = 20
    silence_seconds: float = 0.0
    is_live: bool = attrs.field(init=False, default=False)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[AudioMessage]]:
        """Read and convert the first second already, so that a file of another kind is noticed here.

        Raises:
            UnreadableFileError: the file is not there, may not be read, or holds no known audio.
        """
        blocks = self.blocks()
        first = await trio.to_thread.run_sync(next, blocks, None, limiter=READER_THREADS)
        # Closing the blocks closes the file; in this thread, for the reading thread is never abandoned.
        with closing(blocks):
            async with aclosing(self._iterate(first, blocks)) as messages:
                yield messages

    async def _iterate(
        self, block: list[AudioMessage] | None, blocks: Generator[list[AudioMessage], None, None]
    ) -> AsyncGenerator[AudioMessage, None]:
        while block is not None:
            for message in block:
                yield message
            block = await trio.to_thread.run_sync(next, blocks, None, limiter=READER_THREADS)

    def blocks(self) -> Generator[list[AudioMessage], None, None]:
        """Read and convert, about a second at a time; blocking.

        Raises:
            UnreadableFileError: as for :meth:`open`.
        """
        cutter = MessageCutter(self.audio_format, self.chunk_ms)
        converter: _WireConverter | None = None
        for frame in iter_audio(self.path, raw_format=self.raw_format, block_seconds=BLOCK_SECONDS):
            converter = converter or _WireConverter(frame.sample_rate, self.audio_format)
            yield cutter.cut(converter.convert(frame))
        silence = np.zeros(
            (round(self.silence_seconds * self.audio_format.sample_rate), self.audio_format.channels),
            np.float32,
        )
        rest = converter.finish() if converter else silence[:0]
        yield [*cutter.cut(rest), *cutter.cut(silence), *cutter.finish()]


def _no_samples(channels: int) -> FloatSamples:
    return np.zeros((0, channels), np.float32)


def _interleaved(columns: Iterable[FloatSamples]) -> FloatSamples:
    return np.stack(list(columns), axis=1)
