"""The shape and rate of what a decoder gives: one rule for every encoding."""

import pytest

from voice_agent.audio.decoding import open_decoder
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding

SAMPLE_BYTES = {Encoding.PCM_S16LE: 2, Encoding.PCM_F32LE: 4, Encoding.MULAW: 1, Encoding.ALAW: 1}


@pytest.mark.parametrize("encoding", SAMPLE_BYTES)
@pytest.mark.parametrize(("channels", "shape"), [(1, (160,)), (2, (160, 2))])
def test_mono_is_flat_and_stereo_has_its_channels_last(
    encoding: Encoding, channels: int, shape: tuple[int, ...]
) -> None:
    """A message of 160 samples a channel is that, whatever wrote it; positions count samples a channel."""
    decoder = open_decoder(AudioFormat(encoding, 8_000, channels))
    for number in range(3):
        frame = decoder.decode(bytes(160 * SAMPLE_BYTES[encoding] * channels))
        assert frame.samples.shape == shape
        assert (frame.sample_rate, frame.channels, frame.position) == (8_000, channels, 160 * number)
    assert decoder.position == 480
