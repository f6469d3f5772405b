"""Linear PCM codecs."""

import numpy as np
import pytest

from voice_agent.audio.pcm import decode_f32le, decode_s16le, encode_f32le, encode_s16le, float_to_int16
from voice_agent.core.errors import InvalidFrameError


def test_int16_decodes_without_a_copy() -> None:
    """The samples are a view of the received bytes, interleaved by channel."""
    data = np.array([1, -2, 3, -4], "<i2").tobytes()
    assert decode_s16le(data, 1).tolist() == [1, -2, 3, -4]
    assert decode_s16le(data, 2).tolist() == [[1, -2], [3, -4]]
    assert np.shares_memory(decode_s16le(data, 2), np.frombuffer(data, np.uint8))


def test_float32_decodes_and_is_clipped() -> None:
    """In-range floats are viewed, others clipped."""
    data = np.array([0.5, -0.25], "<f4").tobytes()
    assert np.shares_memory(decode_f32le(data, 1), np.frombuffer(data, np.uint8))
    assert decode_f32le(np.array([3, -3], "<f4").tobytes(), 2).tolist() == [[1, -1]]


@pytest.mark.parametrize("decode", [decode_s16le, decode_f32le])
def test_torn_samples_are_refused(decode: object) -> None:
    """A length that is no whole number of samples is an error."""
    with pytest.raises(InvalidFrameError, match="3 bytes"):
        decode(bytes(3), 1)  # type: ignore[operator]


def test_every_int16_survives_encoding() -> None:
    """All 65,536 values come back from float32 through the encoder."""
    values = np.arange(-32_768, 32_768, dtype=np.int32).astype(np.int16)
    floats = values.astype(np.float32) / 32_768
    assert np.array_equal(float_to_int16(floats), values)
    assert encode_s16le(floats) == values.astype("<i2").tobytes()


def test_encoding_clips() -> None:
    """Beyond full scale nothing wraps around, in either encoding."""
    loud = np.array([2.0, -2.0], np.float32)
    assert encode_s16le(loud) == np.array([32_767, -32_768], "<i2").tobytes()
    assert encode_f32le(loud) == np.array([1, -1], "<f4").tobytes()
    assert encode_f32le(loud.reshape(1, 2)) == encode_f32le(loud)
