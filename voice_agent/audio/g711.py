"""G.711: mu-law and A-law, the telephone's eight bits a sample (ITU-T G.711, tables 1 and 2).

Each direction is one table look-up: 256 entries to decode, 65,536 bytes to encode. A law keeps a sign and a
magnitude; the magnitude axis has eight segments, each twice as coarse as the one before, of sixteen steps each.
Levels are on the int16 scale: mu-law's 14 bits are shifted left by two, A-law's 13 bits by three.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

SIGN_BIT: Final = 0x80
"""Set for positive samples in both laws, after the inversions below."""
SEGMENT_SHIFT: Final = 4
STEP_MASK: Final = 0x0F

MULAW_INVERSION: Final = 0xFF
"""Mu-law sends every bit inverted (table 2, note 2)."""
MULAW_BIAS: Final = 33 << 2
"""Added to the magnitude, so that every segment begins at a power of two."""
MULAW_CLIP: Final = 8_158 << 2
"""The virtual decision value 8159 bounds the last interval; magnitudes beyond it are clipped into it."""

ALAW_INVERSION: Final = 0x55
"""A-law inverts the even bits (table 1, note 2)."""
ALAW_STEP: Final = 1 << 4
"""The width of one step in A-law's first two segments, on the int16 scale."""

INT16_MAX: Final = 32_767


def _mulaw_decode_table() -> npt.NDArray[np.int16]:
    code = np.arange(256) ^ MULAW_INVERSION
    segment = (code & ~SIGN_BIT) >> SEGMENT_SHIFT
    magnitude = ((((code & STEP_MASK) << 3) + MULAW_BIAS) << segment) - MULAW_BIAS
    levels: npt.NDArray[np.int16] = np.where(code & SIGN_BIT, -magnitude, magnitude).astype(np.int16)
    return levels


def _mulaw_encode_table() -> npt.NDArray[np.uint8]:
    """Return the code of every int16, indexed by the sample's bits read as unsigned."""
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(sample), MULAW_CLIP) + MULAW_BIAS
    segment = np.searchsorted(1 << np.arange(8, 15), magnitude, side="right")
    step = (magnitude >> (segment + 3)) & STEP_MASK
    code = (segment << SEGMENT_SHIFT) | step | np.where(sample < 0, SIGN_BIT, 0)
    codes: npt.NDArray[np.uint8] = (code ^ MULAW_INVERSION).astype(np.uint8)
    return codes


def _alaw_decode_table() -> npt.NDArray[np.int16]:
    code = np.arange(256) ^ ALAW_INVERSION
    segment = (code & ~SIGN_BIT) >> SEGMENT_SHIFT
    step = code & STEP_MASK
    # Segment 0 has no leading one: it and segment 1 share a step width, and levels are the middles of their steps.
    leading = np.where(segment == 0, 0, STEP_MASK + 1)
    magnitude = ((step + leading) * ALAW_STEP + ALAW_STEP // 2) << np.maximum(segment - 1, 0)
    levels: npt.NDArray[np.int16] = np.where(code & SIGN_BIT, magnitude, -magnitude).astype(np.int16)
    return levels


def _alaw_encode_table() -> npt.NDArray[np.uint8]:
    """Return the code of every int16, indexed by the sample's bits read as unsigned."""
    sample = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    magnitude = np.minimum(np.abs(sample), INT16_MAX)
    segment = np.searchsorted(1 << np.arange(8, 15), magnitude, side="right")
    step = (magnitude >> (np.maximum(segment, 1) + 3)) & STEP_MASK
    code = (segment << SEGMENT_SHIFT) | step | np.where(sample < 0, 0, SIGN_BIT)
    codes: npt.NDArray[np.uint8] = (code ^ ALAW_INVERSION).astype(np.uint8)
    return codes


_MULAW_LEVELS: Final = _mulaw_decode_table()
_MULAW_CODES: Final = _mulaw_encode_table()
_ALAW_LEVELS: Final = _alaw_decode_table()
_ALAW_CODES: Final = _alaw_encode_table()


def decode_mulaw(data: bytes) -> npt.NDArray[np.int16]:
    """Mu-law bytes as int16 of shape (len(data),); every byte is a valid code."""
    return _MULAW_LEVELS.take(np.frombuffer(data, np.uint8))


def encode_mulaw(samples: npt.NDArray[np.int16]) -> bytes:
    """Write int16 samples as mu-law, in memory order; a sample on a decision value takes the louder code."""
    return _MULAW_CODES.take(_bits(samples)).tobytes()


def decode_alaw(data: bytes) -> npt.NDArray[np.int16]:
    """A-law bytes as int16 of shape (len(data),); every byte is a valid code."""
    return _ALAW_LEVELS.take(np.frombuffer(data, np.uint8))


def encode_alaw(samples: npt.NDArray[np.int16]) -> bytes:
    """Write int16 samples as A-law, in memory order; a sample on a decision value takes the louder code."""
    return _ALAW_CODES.take(_bits(samples)).tobytes()


def _bits(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.uint16]:
    return np.ascontiguousarray(samples).view(np.uint16)
