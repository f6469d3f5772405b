"""AudioDecoder: messages into frames with their place in the call, or BadAudioError and nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_agent.audio.decoding import AudioDecoder, open_decoder
from voice_agent.audio.encoding import open_encoder
from voice_agent.core.errors import BadAudioError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding

SAMPLE_BYTES = {Encoding.PCM_S16LE: 2, Encoding.PCM_F32LE: 4, Encoding.MULAW: 1, Encoding.ALAW: 1}


def _noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).uniform(-0.9, 0.9, shape).astype(np.float32)


@pytest.mark.parametrize("encoding", SAMPLE_BYTES)
@pytest.mark.parametrize("channels", [1, 2])
def test_positions_run_without_gap_or_overlap(encoding: Encoding, channels: int) -> None:
    """However the call is cut into messages, the frames join into the whole call."""
    audio_format = AudioFormat(encoding, 8_000, channels)
    samples = _noise((1_000,) if channels == 1 else (1_000, 2))
    (data,) = open_encoder(audio_format).encode(samples)
    whole = open_decoder(audio_format).decode(data)
    step = SAMPLE_BYTES[encoding] * channels
    decoder = open_decoder(audio_format)
    frames = [decoder.decode(data[start : start + 7 * step]) for start in range(0, len(data), 7 * step)]
    assert [frame.position for frame in frames] == list(range(0, 1_000, 7))
    assert np.array_equal(np.concatenate([frame.samples for frame in frames]), whole.samples)
    assert decoder.position == frames[-1].end == 1_000
    for frame in frames:
        assert (frame.sample_rate, frame.channels, frame.encoding) == (8_000, channels, encoding)


@pytest.mark.parametrize(
    ("encoding", "tolerance"),
    [
        (Encoding.PCM_F32LE, 0.0),
        (Encoding.PCM_S16LE, 0.5 / 32_768),
        (Encoding.MULAW, 0.016),
        (Encoding.ALAW, 0.016),
    ],
)
def test_what_a_client_encodes_is_what_is_heard(encoding: Encoding, tolerance: float) -> None:
    """Encoding and decoding changes no sample by more than half a step of the encoding."""
    audio_format = AudioFormat(encoding, 16_000, 2)
    samples = _noise((500, 2))
    (data,) = open_encoder(audio_format).encode(samples)
    heard = open_decoder(audio_format).decode(data).to_float32()
    assert np.abs(heard - samples).max() <= tolerance


def test_opus_frames_are_at_48_khz_whatever_the_format_says() -> None:
    """An Opus decoder announces 48 kHz, and positions count at that rate."""
    audio_format = AudioFormat(Encoding.OPUS, 16_000, 2)
    decoder = open_decoder(audio_format)
    assert (decoder.sample_rate, decoder.channels, decoder.audio_format) == (48_000, 2, audio_format)
    messages = open_encoder(audio_format).encode(_noise((960, 2)))
    frames = [decoder.decode(message) for message in messages]
    assert [frame.position for frame in frames] == [0, 960, 1_920]
    for frame in frames:
        assert (frame.sample_rate, frame.channels, frame.sample_count) == (48_000, 2, 960)
        assert frame.encoding is Encoding.OPUS


@pytest.mark.parametrize("encoding", [encoding for encoding in Encoding if encoding is not Encoding.OPUS])
def test_other_frames_keep_the_rate_of_the_format(encoding: Encoding) -> None:
    """Only Opus has a rate of its own."""
    assert open_decoder(AudioFormat(encoding, 11_025)).sample_rate == 11_025


@pytest.mark.parametrize("encoding", list(Encoding))
def test_an_empty_message_is_refused(encoding: Encoding) -> None:
    """No bytes are no audio, in every encoding."""
    with pytest.raises(BadAudioError, match="empty") as caught:
        open_decoder(AudioFormat(encoding, 8_000)).decode(b"")
    assert caught.value.field == "audio"


@pytest.mark.parametrize(
    ("encoding", "channels", "data"),
    [
        (Encoding.PCM_S16LE, 1, b"\x00\x01\x02"),
        (Encoding.PCM_S16LE, 2, b"\x00\x01"),
        (Encoding.PCM_F32LE, 1, b"\x00" * 5),
        (Encoding.PCM_F32LE, 2, b"\x00" * 12),
        (Encoding.PCM_F32LE, 1, np.array([0, np.nan], "<f4").tobytes()),
        (Encoding.PCM_F32LE, 1, np.array([np.inf], "<f4").tobytes()),
        (Encoding.MULAW, 2, b"\x00"),
        (Encoding.ALAW, 2, b"\x00" * 3),
        (Encoding.OPUS, 1, b"\x03"),
    ],
)
def test_bad_bytes_are_bad_audio_and_leave_the_call_where_it_was(
    encoding: Encoding, channels: int, data: bytes
) -> None:
    """Odd lengths, NaN, infinity and broken packets give BadAudioError on `audio`; the position does not move."""
    decoder = open_decoder(AudioFormat(encoding, 8_000, channels))
    with pytest.raises(BadAudioError) as caught:
        decoder.decode(data)
    assert caught.value.field == "audio"
    assert encoding.value in caught.value.message or "Opus" in caught.value.message
    assert decoder.position == 0


@settings(deadline=None)
@given(
    encoding=st.sampled_from(Encoding),
    channels=st.integers(1, 2),
    messages=st.lists(st.binary(max_size=40), max_size=8),
)
def test_any_bytes_give_a_frame_or_bad_audio(
    encoding: Encoding, channels: int, messages: list[bytes]
) -> None:
    """Nothing but BadAudioError ever comes out, and frames always join on."""
    decoder = open_decoder(AudioFormat(encoding, 8_000, channels))
    for message in messages:
        before = decoder.position
        try:
            frame = decoder.decode(message)
        except BadAudioError:
            assert decoder.position == before
            continue
        assert frame.position == before
        assert decoder.position == before + frame.sample_count
        assert np.isfinite(frame.to_float32()).all()


def test_pcm_is_viewed_without_a_copy() -> None:
    """Decoding int16 costs no copy of the message."""
    data = bytes(640)
    frame = open_decoder(AudioFormat()).decode(data)
    assert np.shares_memory(frame.samples, np.frombuffer(data, np.uint8))


def test_a_buffer_that_can_change_is_copied() -> None:
    """A frame made from a bytearray does not change when its owner reuses the buffer."""
    buffer = bytearray(b"\x01\x00\x02\x00")
    frame = open_decoder(AudioFormat()).decode(buffer)
    buffer[0] = 9
    assert frame.samples.tolist() == [1, 2]


def test_two_calls_share_no_position() -> None:
    """Each decoder counts its own call."""
    first, second = AudioDecoder(AudioFormat()), AudioDecoder(AudioFormat())
    first.decode(bytes(64))
    assert second.decode(bytes(2)).position == 0
    frame = first.decode(bytes(2))
    assert isinstance(frame, AudioFrame)
    assert frame.position == 32
