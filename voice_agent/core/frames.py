"""AudioFrame: a piece of a call's audio, and where in the call it stands."""

from enum import StrEnum
from typing import Final, Self

import attrs
import numpy as np
import numpy.typing as npt

from voice_agent.core.errors import InvalidFrameError

MIN_SAMPLE_RATE: Final = 8_000
MAX_SAMPLE_RATE: Final = 48_000
MAX_CHANNELS: Final = 2
INT16_SCALE: Final = 32_768
"""Full scale of int16: -32768 is -1.0 exactly, and int16 -> float32 -> int16 is the identity."""

_FLOAT32: Final = np.dtype(np.float32)
_INT16: Final = np.dtype(np.int16)

Samples = npt.NDArray[np.float32] | npt.NDArray[np.int16]


class Encoding(StrEnum):
    """How audio is written on the wire."""

    PCM_S16LE = "pcm_s16le"
    PCM_F32LE = "pcm_f32le"
    MULAW = "mulaw"
    ALAW = "alaw"
    OPUS = "opus"


def check_shape(sample_rate: int, channels: int) -> None:
    """Raise :class:`InvalidFrameError` unless rate (Hz) and channel count are within what can be heard."""
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise InvalidFrameError(
            f"sample rate {sample_rate} Hz is outside {MIN_SAMPLE_RATE}-{MAX_SAMPLE_RATE} Hz",
            field="sample_rate",
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidFrameError(
            f"{channels} channels can't be heard; send 1 or {MAX_CHANNELS}", field="channels"
        )


def _read_only(samples: Samples) -> Samples:
    """Return a view that can't be written, so that a frame can be shared; the caller's own array stays as it was."""
    if not isinstance(samples, np.ndarray) or samples.ndim not in (1, 2):
        raise InvalidFrameError("samples are a numpy array of shape (n,) or (n, channels)", field="samples")
    view = samples.view()
    view.flags.writeable = False
    return view


@attrs.frozen(eq=False)
class AudioFrame:
    """A piece of audio: ``samples`` has shape (n,) when mono and (n, channels) when interleaved.

    Samples are float32 in [-1, 1] or int16; int16 stays int16 (a view of the received bytes where possible) until
    somebody needs floats. ``position`` counts samples per channel since the call began, at ``sample_rate``.
    """

    samples: Samples = attrs.field(converter=_read_only)
    sample_rate: int
    position: int = 0
    encoding: Encoding = Encoding.PCM_F32LE

    def __attrs_post_init__(self) -> None:
        check_shape(self.sample_rate, self.channels)
        if self.samples.dtype not in (_FLOAT32, _INT16):
            raise InvalidFrameError(
                f"samples are {self.samples.dtype}; float32 or int16 is needed", field="samples"
            )
        if self.samples.dtype == _FLOAT32 and not np.isfinite(self.samples).all():
            raise InvalidFrameError("float audio holds NaN or infinity", field="samples")
        if self.position < 0:
            raise InvalidFrameError("position counts from 0", field="position")

    @property
    def channels(self) -> int:
        """Channel count."""
        return 1 if self.samples.ndim == 1 else int(self.samples.shape[1])

    @property
    def sample_count(self) -> int:
        """Samples per channel."""
        return len(self.samples)

    @property
    def duration_seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def position_seconds(self) -> float:
        """Where the frame begins, in seconds since the call began."""
        return self.position / self.sample_rate

    @property
    def end(self) -> int:
        """The position just behind the last sample."""
        return self.position + len(self.samples)

    @classmethod
    def from_s16le(cls, data: bytes, *, sample_rate: int, channels: int = 1, position: int = 0) -> Self:
        """Read little-endian int16, interleaved, without a copy.

        Raises:
            InvalidFrameError: the length is no whole number of samples for every channel.
        """
        return cls(
            _view(data, np.dtype("<i2"), channels).astype(np.int16, copy=False),
            sample_rate,
            position,
            Encoding.PCM_S16LE,
        )

    @classmethod
    def from_f32le(cls, data: bytes, *, sample_rate: int, channels: int = 1, position: int = 0) -> Self:
        """Read little-endian float32, interleaved; values beyond [-1, 1] are clipped.

        Raises:
            InvalidFrameError: the length is no whole number of samples, or a value is NaN or infinite.
        """
        samples = _view(data, np.dtype("<f4"), channels).astype(np.float32, copy=False)
        frame = cls(samples, sample_rate, position, Encoding.PCM_F32LE)
        if samples.size and (samples.max() > 1 or samples.min() < -1):
            return attrs.evolve(frame, samples=np.clip(samples, -1, 1))
        return frame

    def to_float32(self) -> npt.NDArray[np.float32]:
        """Samples as float32 in [-1, 1], same shape; int16 is divided by 32768 exactly."""
        if self.samples.dtype == _FLOAT32:
            return self.samples  # type: ignore[return-value]  # narrowed by the dtype above
        return self.samples.astype(np.float32) / np.float32(INT16_SCALE)

    def to_int16(self) -> npt.NDArray[np.int16]:
        """Samples as int16, same shape; floats are scaled by 32768, rounded half to even and clipped."""
        if self.samples.dtype == _INT16:
            return self.samples  # type: ignore[return-value]  # narrowed by the dtype above
        scaled = np.rint(self.samples * np.float32(INT16_SCALE))
        clipped: npt.NDArray[np.int16] = np.clip(scaled, -INT16_SCALE, INT16_SCALE - 1).astype(np.int16)
        return clipped

    def to_mono_float32(self) -> npt.NDArray[np.float32]:
        """Samples as float32 of shape (n,); two channels are averaged."""
        floats = self.to_float32()
        return floats if floats.ndim == 1 else floats.mean(axis=1, dtype=np.float32)

    def to_s16le(self) -> bytes:
        """Interleaved little-endian int16."""
        return self.to_int16().astype("<i2", copy=False).tobytes()

    def to_f32le(self) -> bytes:
        """Interleaved little-endian float32."""
        return self.to_float32().astype("<f4", copy=False).tobytes()


def _view(data: bytes, dtype: np.dtype[np.generic], channels: int) -> npt.NDArray[np.generic]:
    """Bytes as an array of shape (n,) or (n, channels), without a copy."""
    if not 1 <= channels <= MAX_CHANNELS:
        raise InvalidFrameError(
            f"{channels} channels can't be heard; send 1 or {MAX_CHANNELS}", field="channels"
        )
    step = dtype.itemsize * channels
    if len(data) % step:
        raise InvalidFrameError(
            f"{len(data)} bytes are no whole number of {channels}-channel {dtype.itemsize}-byte samples",
            field="samples",
        )
    flat = np.frombuffer(data, dtype)
    return flat if channels == 1 else flat.reshape(-1, channels)
