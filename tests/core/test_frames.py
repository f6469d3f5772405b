"""AudioFrame and AudioFormat: what they accept, and that their conversions are exact."""

from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from voice_agent.core.errors import InvalidFrameError, UnsupportedFormatError
from voice_agent.core.formats import OPUS_RATES, AudioFormat
from voice_agent.core.frames import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioFrame, Encoding, check_shape

EVERY_INT16 = np.arange(-32_768, 32_768, dtype=np.int32).astype(np.int16)
UNIT_FLOATS = st.floats(-1, 1, width=32)


def test_every_int16_survives_the_way_through_float32() -> None:
    """int16 -> float32 -> int16 is the identity for all 65,536 values, and floats stay in [-1, 1)."""
    floats = AudioFrame(EVERY_INT16, 16_000).to_float32()
    assert floats.dtype == np.float32
    assert floats.min() == -1.0
    assert floats.max() == np.float32(32_767 / 32_768)
    assert np.array_equal(AudioFrame(floats, 16_000).to_int16(), EVERY_INT16)


def test_int16_to_float32_is_the_exact_quotient() -> None:
    """The float of an int16 is that number over 32768 with no rounding at all."""
    floats = AudioFrame(EVERY_INT16, 16_000).to_float32().astype(np.float64)
    assert np.array_equal(floats * 32_768, EVERY_INT16.astype(np.float64))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, 0),
        (1.0, 32_767),
        (-1.0, -32_768),
        (1.5, 32_767),
        (-7.0, -32_768),
        (0.5 / 32_768, 0),
        (1.5 / 32_768, 2),
        (2.5 / 32_768, 2),
        (-0.5 / 32_768, 0),
        (-1.5 / 32_768, -2),
    ],
)
def test_float32_to_int16_rounds_half_to_even_and_clips(value: float, expected: int) -> None:
    """Full scale is 32768, ties go to the even neighbour, and nothing wraps around."""
    frame = AudioFrame(np.array([value], np.float32), 16_000)
    assert frame.to_int16().tolist() == [expected]
    assert frame.to_int16().dtype == np.int16


@given(hnp.arrays(np.float32, st.integers(0, 64), elements=UNIT_FLOATS))
def test_float32_bytes_round_trip(samples: npt.NDArray[Any]) -> None:
    """Float samples in range come back from their bytes unchanged, bit for bit."""
    data = AudioFrame(samples, 48_000).to_f32le()
    assert AudioFrame.from_f32le(data, sample_rate=48_000).samples.tobytes() == samples.tobytes()


@given(hnp.arrays(np.int16, st.tuples(st.integers(0, 64), st.integers(1, 2))))
def test_int16_bytes_round_trip(samples: npt.NDArray[Any]) -> None:
    """Int16 samples of one or two channels come back from their bytes unchanged."""
    channels = samples.shape[1]
    data = AudioFrame(samples, 8_000).to_s16le()
    assert len(data) == samples.size * 2
    again = AudioFrame.from_s16le(data, sample_rate=8_000, channels=channels)
    assert np.array_equal(again.samples.reshape(-1, channels), samples)


@given(hnp.arrays(np.float32, st.integers(0, 64), elements=UNIT_FLOATS))
def test_a_float_is_at_most_half_a_step_from_its_int16(samples: npt.NDArray[Any]) -> None:
    """Quantising to int16 moves no sample by more than half a step, but for +1.0, which int16 does not have."""
    frame = AudioFrame(samples, 16_000)
    error = np.abs(frame.to_int16().astype(np.float64) - samples.astype(np.float64) * 32_768)
    assert (error[samples < 32_767 / 32_768] <= 0.5).all()
    assert (error <= 1).all()


def test_the_bytes_are_little_endian() -> None:
    """The wire is little-endian whatever the machine is."""
    assert AudioFrame.from_s16le(b"\x01\x80", sample_rate=16_000).samples.tolist() == [-32_767]
    assert AudioFrame.from_f32le(b"\x00\x00\x80\x3e", sample_rate=16_000).samples.tolist() == [0.25]
    frame = AudioFrame(np.array([0.25], np.float32), 16_000)
    assert frame.to_s16le() == b"\x00\x20"
    assert frame.to_f32le() == b"\x00\x00\x80\x3e"


@pytest.mark.parametrize("read", [AudioFrame.from_s16le, AudioFrame.from_f32le])
@pytest.mark.parametrize("channels", [1, 2])
def test_bytes_are_viewed_not_copied(read: Callable[..., AudioFrame], channels: int) -> None:
    """A frame made from bytes shares their memory: receiving audio copies nothing."""
    data = bytes(64)
    frame = read(data, sample_rate=16_000, channels=channels)
    assert np.shares_memory(frame.samples, np.frombuffer(data, np.uint8))


def test_native_samples_are_handed_out_without_a_copy() -> None:
    """Asking for the type that a frame already has gives the same memory."""
    ints, floats = np.zeros(4, np.int16), np.zeros(4, np.float32)
    assert np.shares_memory(AudioFrame(ints, 16_000).to_int16(), ints)
    assert np.shares_memory(AudioFrame(floats, 16_000).to_float32(), floats)
    assert np.shares_memory(AudioFrame(floats, 16_000).to_mono_float32(), floats)


def test_an_unaligned_buffer_is_read_correctly() -> None:
    """A view at an odd address, as a slice of a larger message is, gives the right samples."""
    data = b"\xff" + np.arange(5, dtype="<f4").tobytes()
    frame = AudioFrame.from_f32le(memoryview(data)[1:], sample_rate=16_000)
    assert frame.samples.tolist() == [0, 1, 1, 1, 1]
    odd = memoryview(b"\xff" + EVERY_INT16.astype("<i2").tobytes())[1:]
    assert np.array_equal(AudioFrame.from_s16le(odd, sample_rate=16_000).to_int16(), EVERY_INT16)


def test_a_frame_is_read_only_and_the_callers_array_stays_writable() -> None:
    """Frames are shared between tasks: nobody can write into one, and making one takes nothing from its maker."""
    mine = np.zeros(4, np.float32)
    frame = AudioFrame(mine, 16_000)
    with pytest.raises(ValueError, match="read-only"):
        frame.samples[0] = 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        frame.position = 3
    mine[0] = 0.5
    assert mine.flags.writeable


@pytest.mark.parametrize(
    ("read", "size", "channels"),
    [
        (AudioFrame.from_s16le, 1, 1),
        (AudioFrame.from_s16le, 2, 2),
        (AudioFrame.from_s16le, 7, 2),
        (AudioFrame.from_f32le, 3, 1),
        (AudioFrame.from_f32le, 4, 2),
        (AudioFrame.from_f32le, 6, 1),
    ],
)
def test_a_length_that_is_no_whole_number_of_samples_is_refused(
    read: Callable[..., AudioFrame], size: int, channels: int
) -> None:
    """A torn sample is an error that names the length, not a guess."""
    with pytest.raises(InvalidFrameError, match=f"{size} bytes") as caught:
        read(bytes(size), sample_rate=16_000, channels=channels)
    assert caught.value.field == "samples"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(value: float) -> None:
    """Not one sample that is no number gets in, by bytes or by array: it would poison every filter behind it."""
    samples = np.array([0.0, value, 2.0], np.float32)
    with pytest.raises(InvalidFrameError, match="NaN or infinity") as caught:
        AudioFrame.from_f32le(samples.tobytes(), sample_rate=16_000)
    assert caught.value.field == "samples"
    with pytest.raises(InvalidFrameError, match="NaN or infinity"):
        AudioFrame(samples, 16_000)


def test_floats_from_the_wire_are_clipped() -> None:
    """A caller's float audio beyond full scale is clipped to [-1, 1]; position and encoding stay."""
    data = np.array([1.5, -3.0, 0.25], np.float32).tobytes()
    frame = AudioFrame.from_f32le(data, sample_rate=16_000, position=7)
    assert frame.samples.tolist() == [1, -1, 0.25]
    assert (frame.position, frame.encoding) == (7, Encoding.PCM_F32LE)
    with pytest.raises(ValueError, match="read-only"):
        frame.samples[0] = 1


@pytest.mark.parametrize(
    "samples",
    [
        [0.0, 1.0],
        np.float32(1),
        np.zeros((), np.float32),
        np.zeros((2, 2, 2), np.float32),
    ],
)
def test_what_is_no_array_of_one_or_two_axes_is_refused(samples: npt.NDArray[Any]) -> None:
    """Any other shape gives the typed error, never an IndexError or AttributeError."""
    with pytest.raises(InvalidFrameError, match="numpy array of shape"):
        AudioFrame(samples, 16_000)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, np.float16, ">i2", ">f4", bool])
def test_other_sample_types_are_refused(dtype: npt.DTypeLike) -> None:
    """Only native float32 and int16 are audio here; the error says so."""
    with pytest.raises(InvalidFrameError, match="float32 or int16 is needed"):
        AudioFrame(np.zeros(4, dtype), 16_000)


@pytest.mark.parametrize("channels", [0, 3, -1])
def test_other_channel_counts_are_refused(channels: int) -> None:
    """Neither no channels nor surround can be heard, and the field at fault is named."""
    with pytest.raises(InvalidFrameError) as caught:
        AudioFrame.from_s16le(bytes(12), sample_rate=16_000, channels=channels)
    assert caught.value.field == "channels"


@pytest.mark.parametrize("shape", [(4, 0), (4, 3)])
def test_an_array_of_other_channel_counts_is_refused(shape: tuple[int, ...]) -> None:
    """The same holds for arrays."""
    with pytest.raises(InvalidFrameError) as caught:
        AudioFrame(np.zeros(shape, np.int16), 16_000)
    assert caught.value.field == "channels"


@pytest.mark.parametrize("sample_rate", [0, -1, 7_999, 48_001, 10**9])
def test_rates_outside_the_range_are_refused(sample_rate: int) -> None:
    """Rates are 8 to 48 kHz, both ends included."""
    with pytest.raises(InvalidFrameError) as caught:
        AudioFrame(np.zeros(4, np.int16), sample_rate)
    assert caught.value.field == "sample_rate"
    check_shape(MIN_SAMPLE_RATE, 1)
    check_shape(MAX_SAMPLE_RATE, 2)


def test_a_negative_position_is_refused() -> None:
    """Positions count from the beginning of the call."""
    with pytest.raises(InvalidFrameError) as caught:
        AudioFrame(np.zeros(4, np.int16), 16_000, -1)
    assert caught.value.field == "position"


@pytest.mark.parametrize(("shape", "channels"), [((480,), 1), ((480, 1), 1), ((480, 2), 2)])
def test_a_frame_knows_its_place(shape: tuple[int, ...], channels: int) -> None:
    """Counts, seconds and the end of a frame follow from rate and position, per channel."""
    frame = AudioFrame(np.zeros(shape, np.int16), 48_000, 96_000)
    assert (frame.channels, frame.sample_count, frame.end) == (channels, 480, 96_480)
    assert (frame.duration_seconds, frame.position_seconds) == (0.01, 2.0)


def test_an_empty_frame_is_a_frame() -> None:
    """No samples is fine: a frame of length 0."""
    frame = AudioFrame.from_f32le(b"", sample_rate=16_000)
    assert (frame.sample_count, frame.duration_seconds, frame.to_s16le()) == (0, 0.0, b"")


def test_two_channels_are_averaged_into_one() -> None:
    """Mono is the mean of both channels, for floats and for int16; full scale on both does not overflow."""
    stereo = np.array([[32_767, 32_767], [-32_768, -32_768], [16_384, -16_384], [16_384, 0]], np.int16)
    mono = AudioFrame(stereo, 16_000).to_mono_float32()
    assert mono.dtype == np.float32
    assert mono.tolist() == [32_767 / 32_768, -1.0, 0.0, 0.25]
    one_column = AudioFrame(stereo[:, :1], 16_000).to_mono_float32()
    assert one_column.shape == (4,)


def test_interleaved_bytes_keep_their_channels() -> None:
    """The first sample of each pair is the first channel."""
    frame = AudioFrame.from_s16le(np.array([1, -1, 2, -2], "<i2").tobytes(), sample_rate=16_000, channels=2)
    assert frame.samples.tolist() == [[1, -1], [2, -2]]
    assert frame.to_s16le() == np.array([1, -1, 2, -2], "<i2").tobytes()


def test_the_default_format_is_what_a_bare_client_sends() -> None:
    """16 kHz mono int16 unless something else is agreed."""
    assert AudioFormat() == AudioFormat(Encoding.PCM_S16LE, 16_000, 1)
    assert AudioFormat.parse("pcm_s16le", 16_000, 1) == AudioFormat()


@pytest.mark.parametrize("encoding", list(Encoding))
def test_every_encoding_parses_by_its_name(encoding: Encoding) -> None:
    """Each documented name is understood."""
    assert AudioFormat.parse(encoding.value, 48_000, 2) == AudioFormat(encoding, 48_000, 2)


@pytest.mark.parametrize("name", ["mp3", "", "PCM_S16LE", "x" * 10_000])
def test_an_unknown_encoding_names_the_known_ones(name: str) -> None:
    """The error lists what can be asked for, and does not echo more than 40 characters of the caller's."""
    with pytest.raises(UnsupportedFormatError, match="pcm_s16le, pcm_f32le, mulaw, alaw, opus") as caught:
        AudioFormat.parse(name, 16_000, 1)
    assert caught.value.field == "encoding"
    assert len(caught.value.message) < 150


@pytest.mark.parametrize(
    ("sample_rate", "channels", "field"),
    [(7_999, 1, "sample_rate"), (48_001, 1, "sample_rate"), (16_000, 0, "channels"), (16_000, 3, "channels")],
)
def test_an_impossible_format_is_unsupported_and_names_its_field(
    sample_rate: int, channels: int, field: str
) -> None:
    """Formats out of range give UnsupportedFormatError with the field at fault."""
    with pytest.raises(UnsupportedFormatError) as caught:
        AudioFormat(Encoding.PCM_S16LE, sample_rate, channels)
    assert caught.value.field == field


def test_opus_takes_its_own_rates_only() -> None:
    """RFC 6716 knows five rates; the error names them."""
    for rate in OPUS_RATES:
        assert AudioFormat(Encoding.OPUS, rate).sample_rate == rate
    with pytest.raises(UnsupportedFormatError, match="8000, 12000, 16000, 24000, 48000") as caught:
        AudioFormat(Encoding.OPUS, 44_100)
    assert caught.value.field == "sample_rate"
