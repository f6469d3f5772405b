"""Linear PCM: little-endian int16 and float32, interleaved; the arithmetic is AudioFrame's own."""

from typing import Final

import numpy as np
import numpy.typing as npt

from voice_agent.core.frames import MAX_SAMPLE_RATE, AudioFrame

_ANY_RATE: Final = MAX_SAMPLE_RATE
"""A frame needs a rate, and reading or writing samples has nothing to do with it."""


def decode_s16le(data: bytes, channels: int) -> npt.NDArray[np.int16]:
    """View ``data`` as int16 of shape (n,), or (n, 2) for two channels; nothing is copied.

    Raises:
        InvalidFrameError: the length is no whole number of samples for every channel.
    """
    return AudioFrame.from_s16le(data, sample_rate=_ANY_RATE, channels=channels).to_int16()


def decode_f32le(data: bytes, channels: int) -> npt.NDArray[np.float32]:
    """View ``data`` as float32 of shape (n,), or (n, 2); copied only where values had to be clipped to [-1, 1].

    Raises:
        InvalidFrameError: the length is no whole number of samples, or a value is NaN or infinite.
    """
    return AudioFrame.from_f32le(data, sample_rate=_ANY_RATE, channels=channels).to_float32()


def float_to_int16(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Scale float32 of full scale 1.0 to int16, same shape: times 32768, rounded half to even, clipped."""
    return AudioFrame(samples, _ANY_RATE).to_int16()


def encode_s16le(samples: npt.NDArray[np.float32]) -> bytes:
    """Write float32 samples of shape (n,) or (n, 2) as interleaved little-endian int16."""
    return float_to_int16(samples).astype("<i2", copy=False).tobytes()


def encode_f32le(samples: npt.NDArray[np.float32]) -> bytes:
    """Write float32 samples of shape (n,) or (n, 2) as interleaved little-endian float32, clipped to [-1, 1]."""
    return np.clip(samples, -1, 1).astype("<f4", copy=False).tobytes()
