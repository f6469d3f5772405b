"""AudioEncoder: samples into messages."""

import numpy as np
import pytest

from voice_agent.audio.encoding import open_encoder
from voice_agent.core.errors import InvalidFrameError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        (Encoding.PCM_S16LE, b"\x00\x40\x00\xc0"),
        (Encoding.PCM_F32LE, b"\x00\x00\x00\x3f\x00\x00\x00\xbf"),
        (Encoding.MULAW, b"\x8f\x0f"),
        (Encoding.ALAW, b"\xa5\x25"),
    ],
)
def test_one_piece_is_one_message(encoding: Encoding, expected: bytes) -> None:
    """Half of full scale, up and down, in each encoding; nothing waits for the flush."""
    encoder = open_encoder(AudioFormat(encoding, 8_000))
    assert encoder.encode(np.array([0.5, -0.5], np.float32)) == [expected]
    assert encoder.encode(np.array([[0.5], [-0.5]], np.float32)) == [expected]
    assert encoder.flush() == []


@pytest.mark.parametrize("encoding", list(Encoding))
def test_no_samples_are_no_message(encoding: Encoding) -> None:
    """An empty message would be refused by every server, so none is made."""
    assert open_encoder(AudioFormat(encoding, 8_000)).encode(np.zeros(0, np.float32)) == []


def test_opus_waits_for_20_ms() -> None:
    """A message appears when its 20 ms are complete; the flush pads the last."""
    encoder = open_encoder(AudioFormat(Encoding.OPUS, 16_000))
    assert encoder.encode(np.zeros(319, np.float32)) == []
    assert len(encoder.encode(np.zeros(1, np.float32))) == 1
    assert len(encoder.encode(np.zeros(1_000, np.float32))) == 3
    assert len(encoder.flush()) >= 1


def test_opus_input_is_clipped() -> None:
    """What is beyond full scale is heard at full scale: the same packets come out."""
    loud = open_encoder(AudioFormat(Encoding.OPUS, 48_000))
    full = open_encoder(AudioFormat(Encoding.OPUS, 48_000))
    wave = np.sign(np.sin(np.arange(960) * 0.1)).astype(np.float32)
    assert loud.encode(wave * 50) == full.encode(wave)


@pytest.mark.parametrize(
    ("channels", "shape"), [(1, (4, 2)), (2, (4,)), (2, (4, 1)), (2, (4, 3)), (1, ()), (1, (2, 1, 1))]
)
def test_samples_of_another_shape_are_refused(channels: int, shape: tuple[int, ...]) -> None:
    """Channels must be those of the format, so that no stereo is taken for fast mono."""
    with pytest.raises(InvalidFrameError, match="don't fit"):
        open_encoder(AudioFormat(channels=channels)).encode(np.zeros(shape, np.float32))


@pytest.mark.parametrize("encoding", list(Encoding))
def test_nan_is_refused(encoding: Encoding) -> None:
    """NaN is a defect of the sender, told before it goes on the wire."""
    with pytest.raises(InvalidFrameError, match="NaN"):
        open_encoder(AudioFormat(encoding, 8_000)).encode(np.array([np.nan], np.float32))


@pytest.mark.parametrize("dtype", [np.int16, np.float64])
def test_other_sample_types_are_refused(dtype: type) -> None:
    """Int16 samples taken for floats would be a roar; the type is checked."""
    with pytest.raises(InvalidFrameError, match="float32 is needed"):
        open_encoder(AudioFormat()).encode(np.zeros(4, dtype))
