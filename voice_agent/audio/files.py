"""Audio files for the command line: described, read whole, or read piece by piece.

WAV, FLAC, OGG and what else libsndfile knows; headerless files with a stated format. What a call can't have is made
into what it can: more than two channels are averaged into one, rates outside 8-48 kHz are resampled to the nearer
end of that range.
"""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, Literal

import attrs
import numpy as np
import soundfile

from voice_agent.audio.decoding import open_decoder
from voice_agent.audio.resample import MAX_RATE, MIN_RATE, MonoAudio, open_resampler
from voice_agent.core.errors import BadAudioError, InvalidFrameError, UnreadableFileError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioFrame,
    Encoding,
    Samples,
)

BLOCK_SECONDS: Final = 1.0

_BYTES_PER_SAMPLE: Final = {
    Encoding.PCM_S16LE: 2,
    Encoding.PCM_F32LE: 4,
    Encoding.MULAW: 1,
    Encoding.ALAW: 1,
}
_INT16_SUBTYPES: Final = {
    "PCM_16": Encoding.PCM_S16LE,
    "ULAW": Encoding.MULAW,
    "ALAW": Encoding.ALAW,
}
"""libsndfile's subtypes that int16 holds exactly; all others are read as float32."""


@attrs.frozen(kw_only=True)
class AudioFileInfo:
    """What the frames of a file will be: rate in Hz, channels, and length in seconds as far as the header tells."""

    sample_rate: int
    channels: int
    duration_seconds: float


def describe_audio(path: Path, *, raw_format: AudioFormat | None = None) -> AudioFileInfo:
    """Look at a file without reading its samples.

    Raises:
        UnreadableFileError: as :func:`iter_audio` does, as far as the header tells.
    """
    if raw_format is not None:
        step = _raw_step(path, raw_format)
        with _reading(path):
            size = path.stat().st_size
        return AudioFileInfo(
            sample_rate=raw_format.sample_rate,
            channels=raw_format.channels,
            duration_seconds=size // step / raw_format.sample_rate,
        )
    with _reading(path), _open_sound(path) as sound:
        return _heard(path, sound)


def iter_audio(
    path: Path, *, raw_format: AudioFormat | None = None, block_seconds: float = BLOCK_SECONDS
) -> Generator[AudioFrame, None, None]:
    """Read a file piece by piece: one frame after the other, of about ``block_seconds`` each, positions running.

    Without ``raw_format`` the file's header tells its format. The file is open from the first frame to the last, or
    until the iterator is closed.

    Raises:
        UnreadableFileError: when iterated: the file is missing, is no audio, holds none, breaks off, or is not of
            ``raw_format``.
    """
    frames = (
        _iter_sound(path, block_seconds) if raw_format is None else _iter_raw(path, raw_format, block_seconds)
    )
    is_empty = True
    with _reading(path), closing(frames):
        for frame in frames:
            is_empty = False
            yield frame
    if is_empty:
        raise _unreadable(path, "it holds no audio", "give a file with sound in it")


def read_audio(path: Path, *, raw_format: AudioFormat | None = None) -> AudioFrame:
    """Read a whole file into one frame; for long files see :func:`iter_audio`.

    Raises:
        UnreadableFileError: as :func:`iter_audio` does.
    """
    frames = list(iter_audio(path, raw_format=raw_format))
    samples: Samples = np.concatenate([frame.samples for frame in frames])
    return AudioFrame(samples, frames[0].sample_rate, 0, frames[0].encoding)


def _iter_raw(path: Path, raw_format: AudioFormat, block_seconds: float) -> Generator[AudioFrame, None, None]:
    block_bytes = _raw_step(path, raw_format) * max(1, round(raw_format.sample_rate * block_seconds))
    decoder = open_decoder(raw_format)
    with path.open("rb") as file:
        while block := file.read(block_bytes):
            yield decoder.decode(block)


def _raw_step(path: Path, raw_format: AudioFormat) -> int:
    """Bytes of one sample of every channel."""
    if raw_format.encoding is Encoding.OPUS:
        raise _unreadable(
            path, "a headerless file can't tell where an Opus packet ends", "put it into an Ogg file"
        )
    return _BYTES_PER_SAMPLE[raw_format.encoding] * raw_format.channels


def _iter_sound(path: Path, block_seconds: float) -> Generator[AudioFrame, None, None]:
    with _open_sound(path) as sound:
        heard = _heard(path, sound)
        block_samples = max(1, round(sound.samplerate * block_seconds))
        is_as_heard = (sound.samplerate, sound.channels) == (heard.sample_rate, heard.channels)
        if is_as_heard and sound.subtype in _INT16_SUBTYPES:
            encoding = _INT16_SUBTYPES[sound.subtype]
            blocks = _read_blocks(path, sound, block_samples, "int16")
        else:
            encoding = Encoding.PCM_F32LE
            blocks = _read_blocks(path, sound, block_samples, "float32")
        if not is_as_heard:
            blocks = _converted(blocks, sound.samplerate, heard)
        position = 0
        for block in blocks:
            samples = block[:, 0] if heard.channels == 1 else block
            if len(samples):  # a resampler may hold a whole block back
                yield AudioFrame(samples, heard.sample_rate, position, encoding)
            position += len(samples)


def _read_blocks(
    path: Path, sound: soundfile.SoundFile, block_samples: int, dtype: Literal["int16", "float32"]
) -> Iterator[Samples]:
    """Read to the end, in blocks of shape (n, channels); floats are finite and within [-1, 1]."""
    samples_read = 0
    while len(block := sound.read(block_samples, dtype=dtype, always_2d=True)):
        samples_read += len(block)
        if dtype == "float32":
            if not np.isfinite(block).all():
                raise InvalidFrameError("float audio holds NaN or infinity", field="samples")
            block = np.clip(block, -1, 1)  # a float file may go beyond full scale
        yield block
    if samples_read < sound.frames:
        raise _unreadable(
            path,
            f"it breaks off after {samples_read / sound.samplerate:.1f} of "
            f"{sound.frames / sound.samplerate:.1f} seconds",
            "copy it again",
        )


def _converted(blocks: Iterator[Samples], sample_rate: int, heard: AudioFileInfo) -> Iterator[Samples]:
    """Average and resample blocks of shape (n, channels) to the rate and channels that are heard."""
    # soxr, for a file has no latency to lose, and it cuts sharper for less CPU.
    resamplers = [
        open_resampler(sample_rate, heard.sample_rate, library="soxr", quality="medium")
        for _ in range(heard.channels)
    ]
    for block in blocks:
        floats = block.astype(np.float32, copy=False)
        columns = [floats.mean(axis=1)] if floats.shape[1] > heard.channels else list(floats.T)
        yield _interleaved([line.process(column) for line, column in zip(resamplers, columns, strict=True)])
    yield _interleaved([line.flush() for line in resamplers])


def _interleaved(columns: list[MonoAudio]) -> Samples:
    # A filter overshoots full scale where its input touches it.
    samples: MonoAudio = np.clip(np.stack(columns, axis=1), -1, 1)
    return samples


def _heard(path: Path, sound: soundfile.SoundFile) -> AudioFileInfo:
    """Return what a call can have that is nearest to the file."""
    if not MIN_RATE <= sound.samplerate <= MAX_RATE:
        raise _unreadable(
            path,
            f"its rate is {sound.samplerate} Hz",
            f"convert it to {MIN_SAMPLE_RATE}-{MAX_SAMPLE_RATE} Hz",
        )
    return AudioFileInfo(
        sample_rate=min(max(sound.samplerate, MIN_SAMPLE_RATE), MAX_SAMPLE_RATE),
        channels=sound.channels if sound.channels <= MAX_CHANNELS else 1,
        duration_seconds=sound.frames / sound.samplerate,
    )


def _open_sound(path: Path) -> soundfile.SoundFile:
    # libsndfile says "System error." for a missing file and for a folder; the operating system says which.
    with path.open("rb") as file:
        if not file.read(1):
            raise _unreadable(path, "it is empty", "give a file with sound in it")
    return soundfile.SoundFile(path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Translate what can go wrong while a file is read."""
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), "check the path and its permissions") from error
    except soundfile.LibsndfileError as error:
        raise _unreadable(
            path, error.error_string, "give WAV, FLAC or OGG, or state the format of a headerless file"
        ) from error
    except (BadAudioError, InvalidFrameError) as error:
        raise _unreadable(path, error.message, "check that the file is what it is said to be") from error


def _unreadable(path: Path, reason: str, remedy: str) -> UnreadableFileError:
    return UnreadableFileError(f"{path} can't be read: {reason}; {remedy}", field="path")
