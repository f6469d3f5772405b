"""Audio files: read whole or piece by piece, or an error that names the file and says what to do."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voice_agent.audio.encoding import open_encoder
from voice_agent.audio.files import describe_audio, iter_audio, read_audio
from voice_agent.core.errors import UnreadableFileError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding


def _tone(sample_rate: int, seconds: float, channels: int = 1, frequency: float = 440) -> np.ndarray:
    times = np.arange(round(sample_rate * seconds)) / sample_rate
    tone = (0.5 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)
    return tone if channels == 1 else np.stack([tone] * channels, axis=1)


def _unreadable(path: Path, **options: AudioFormat) -> UnreadableFileError:
    with pytest.raises(UnreadableFileError) as caught:
        read_audio(path, **options)
    assert str(path) in caught.value.message
    assert caught.value.field == "path"
    return caught.value


@pytest.mark.parametrize(
    ("suffix", "subtype", "encoding", "tolerance"),
    [
        ("wav", "PCM_16", Encoding.PCM_S16LE, 2 / 32_768),
        ("flac", "PCM_16", Encoding.PCM_S16LE, 2 / 32_768),
        ("wav", "ULAW", Encoding.MULAW, 0.016),
        ("wav", "ALAW", Encoding.ALAW, 0.016),
        ("wav", "FLOAT", Encoding.PCM_F32LE, 0),
        ("wav", "PCM_24", Encoding.PCM_F32LE, 2e-7),
        ("flac", "PCM_24", Encoding.PCM_F32LE, 2e-7),
        ("ogg", "VORBIS", Encoding.PCM_F32LE, 0.05),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_common_formats_are_read(
    tmp_path: Path, suffix: str, subtype: str, encoding: Encoding, tolerance: float, channels: int
) -> None:
    """WAV, FLAC and OGG come back at their own rate and channels, as exactly as their encoding is."""
    path = tmp_path / f"speech.{suffix}"
    tone = _tone(16_000, 0.5, channels)
    soundfile.write(path, tone, 16_000, subtype=subtype)
    frame = read_audio(path)
    assert (frame.sample_rate, frame.channels, frame.position) == (16_000, channels, 0)
    assert frame.encoding is encoding
    assert frame.samples.shape == tone.shape
    assert np.abs(frame.to_float32() - tone).max() <= tolerance


def test_int16_samples_are_exact(tmp_path: Path) -> None:
    """A 16-bit file gives its very samples."""
    path = tmp_path / "noise.wav"
    samples = np.random.default_rng(1).integers(-32_768, 32_768, 5_000).astype(np.int16)
    soundfile.write(path, samples, 22_050)
    frame = read_audio(path)
    assert frame.samples.dtype == np.int16
    assert np.array_equal(frame.samples, samples)


@pytest.mark.parametrize("encoding", [Encoding.PCM_S16LE, Encoding.PCM_F32LE, Encoding.MULAW, Encoding.ALAW])
@pytest.mark.parametrize("channels", [1, 2])
def test_headerless_files_are_read_by_their_stated_format(
    tmp_path: Path, encoding: Encoding, channels: int
) -> None:
    """A raw file is what the caller says it is, whole or piece by piece."""
    path = tmp_path / "speech.raw"
    raw_format = AudioFormat(encoding, 8_000, channels)
    tone = _tone(8_000, 1.1, channels)
    path.write_bytes(b"".join(open_encoder(raw_format).encode(tone)))
    frame = read_audio(path, raw_format=raw_format)
    assert (frame.sample_rate, frame.channels, frame.encoding) == (8_000, channels, encoding)
    assert np.abs(frame.to_float32() - tone).max() < 0.016
    pieces = list(iter_audio(path, raw_format=raw_format, block_seconds=0.25))
    assert [piece.position for piece in pieces] == [0, 2_000, 4_000, 6_000, 8_000]
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), frame.samples)
    info = describe_audio(path, raw_format=raw_format)
    assert (info.sample_rate, info.channels, info.duration_seconds) == (8_000, channels, 1.1)


def test_a_file_is_read_piece_by_piece(tmp_path: Path) -> None:
    """Pieces have the asked length, join on, and make the whole; the file is closed when the reading stops."""
    path = tmp_path / "speech.wav"
    soundfile.write(path, _tone(16_000, 2.3), 16_000)
    pieces = list(iter_audio(path))
    assert [piece.sample_count for piece in pieces] == [16_000, 16_000, 4_800]
    assert [piece.position for piece in pieces] == [0, 16_000, 32_000]
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), read_audio(path).samples)


def test_stopping_early_closes_the_file(tmp_path: Path) -> None:
    """A reader who has enough leaves no file open."""
    path = tmp_path / "speech.wav"
    soundfile.write(path, _tone(16_000, 2), 16_000)

    def open_here() -> int:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]  # noqa: PTH208  # links, not files
        return sum(os.path.lexists(link) and os.path.realpath(link) == str(path.resolve()) for link in links)

    pieces = iter_audio(path, block_seconds=0.1)
    next(pieces)
    assert open_here() == 1
    pieces.close()
    assert open_here() == 0


@pytest.mark.parametrize(
    ("file_rate", "heard_rate"), [(96_000, 48_000), (192_000, 48_000), (88_200, 48_000), (4_000, 8_000)]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_rates_beyond_a_call_are_resampled(
    tmp_path: Path, file_rate: int, heard_rate: int, channels: int
) -> None:
    """A studio's 96 kHz is heard at 48 kHz and a dictaphone's 4 kHz at 8 kHz: same sound, same length."""
    path = tmp_path / "studio.wav"
    soundfile.write(path, _tone(file_rate, 1.5, channels), file_rate)
    frame = read_audio(path)
    expected = _tone(heard_rate, 1.5, channels)
    assert (frame.sample_rate, frame.encoding) == (heard_rate, Encoding.PCM_F32LE)
    assert frame.samples.shape == expected.shape
    middle = slice(1_000, -1_000)
    assert np.abs(frame.to_float32()[middle] - expected[middle]).max() < 1e-3
    info = describe_audio(path)
    assert (info.sample_rate, info.channels, info.duration_seconds) == (heard_rate, channels, 1.5)
    positions = [(piece.position, piece.sample_count) for piece in iter_audio(path, block_seconds=0.05)]
    assert positions[0][0] == 0
    assert sum(count for _, count in positions) == len(expected)
    assert all(count > 0 for _, count in positions)
    assert positions[-1][0] + positions[-1][1] == len(expected)


def test_more_than_two_channels_are_averaged(tmp_path: Path) -> None:
    """Surround becomes mono: the mean of its channels."""
    path = tmp_path / "surround.wav"
    tone = _tone(16_000, 0.5)
    soundfile.write(path, np.stack([tone, np.zeros_like(tone), tone, np.zeros_like(tone)], axis=1), 16_000)
    frame = read_audio(path)
    assert frame.samples.shape == tone.shape
    assert np.abs(frame.to_float32() - tone / 2).max() < 1e-4
    assert describe_audio(path).channels == 1


def test_resampling_stays_within_full_scale(tmp_path: Path) -> None:
    """A square wave at full scale overshoots in any filter; what comes out is still audio."""
    path = tmp_path / "square.wav"
    square = np.sign(np.sin(2 * np.pi * 1_000 * np.arange(96_000) / 96_000 + 0.1)).astype(np.float32)
    soundfile.write(path, square, 96_000, subtype="FLOAT")
    assert np.abs(read_audio(path).to_float32()).max() == 1


def test_floats_beyond_full_scale_are_clipped(tmp_path: Path) -> None:
    """A hot float mix is heard clipped, not refused."""
    path = tmp_path / "hot.wav"
    soundfile.write(path, np.array([0.5, 1.5, -2], np.float32), 16_000, subtype="FLOAT")
    assert read_audio(path).samples.tolist() == [0.5, 1, -1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("sample_rate", [16_000, 96_000])
def test_nan_in_a_file_is_refused(tmp_path: Path, value: float, sample_rate: int) -> None:
    """A float file with NaN or infinity is damaged, whether or not it has to be resampled."""
    path = tmp_path / "damaged.wav"
    soundfile.write(path, np.array([0, value, 0], np.float32), sample_rate, subtype="FLOAT")
    assert "NaN" in _unreadable(path).message


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    """The message is the operating system's, not libsndfile's `System error`."""
    assert "No such file" in _unreadable(tmp_path / "nowhere.wav").message
    assert "No such file" in _unreadable(tmp_path / "nowhere.raw", raw_format=AudioFormat()).message
    with pytest.raises(UnreadableFileError, match="No such file"):
        describe_audio(tmp_path / "nowhere.raw", raw_format=AudioFormat())


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """Nor is a folder audio."""
    assert "directory" in _unreadable(tmp_path).message
    assert "directory" in _unreadable(tmp_path, raw_format=AudioFormat()).message


@pytest.mark.parametrize("name", ["notes.wav", "notes.txt"])
def test_what_is_no_audio_says_what_would_be(tmp_path: Path, name: str) -> None:
    """Text under any name is refused, and the remedy names the formats."""
    path = tmp_path / name
    path.write_text("these are notes, not sound\n" * 50)
    message = _unreadable(path).message
    assert "WAV, FLAC or OGG" in message
    with pytest.raises(UnreadableFileError, match="WAV, FLAC or OGG"):
        describe_audio(path)


def test_an_empty_file_says_so(tmp_path: Path) -> None:
    """No bytes, no audio, with or without a stated format."""
    path = tmp_path / "empty.wav"
    path.touch()
    assert "empty" in _unreadable(path).message
    assert "no audio" in _unreadable(path, raw_format=AudioFormat()).message


@pytest.mark.parametrize("sample_rate", [16_000, 96_000])
def test_a_file_with_a_header_and_no_samples_holds_no_audio(tmp_path: Path, sample_rate: int) -> None:
    """A recording of nothing is told as that."""
    path = tmp_path / "nothing.wav"
    soundfile.write(path, np.zeros(0, np.float32), sample_rate)
    assert "no audio" in _unreadable(path).message


@pytest.mark.parametrize(("suffix", "subtype"), [("flac", None), ("mp3", None)])
def test_a_file_that_breaks_off_is_refused(
    tmp_path: Path, suffix: str, subtype: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Half a download gives an error after its readable part, not a short transcript without a word."""
    path = tmp_path / f"half.{suffix}"
    noise = np.random.default_rng(1).uniform(-0.2, 0.2, 48_000).astype(np.float32)
    soundfile.write(path, noise, 16_000, subtype=subtype)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = []
    with pytest.raises(UnreadableFileError):
        frames.extend(iter_audio(path, block_seconds=0.1))
    assert 0 < sum(frame.sample_count for frame in frames) < 48_000
    capfd.readouterr()  # libsndfile's MP3 decoder writes its complaint to stderr by itself


def test_a_rate_of_no_use_is_refused(tmp_path: Path) -> None:
    """Rates that no resampling makes speech of are refused with the range that works."""
    path = tmp_path / "seismograph.wav"
    soundfile.write(path, _tone(500, 1, frequency=20), 500)
    assert "8000-48000 Hz" in _unreadable(path).message
    with pytest.raises(UnreadableFileError, match="500 Hz"):
        describe_audio(path)


def test_a_raw_file_that_ends_in_half_a_sample_is_refused(tmp_path: Path) -> None:
    """A torn last sample means the stated format is wrong or the file is."""
    path = tmp_path / "torn.raw"
    path.write_bytes(bytes(101))
    assert "101 bytes" in _unreadable(path, raw_format=AudioFormat()).message


def test_raw_opus_is_refused(tmp_path: Path) -> None:
    """Opus packets without a container have no borders; the remedy is an Ogg file."""
    path = tmp_path / "speech.opus"
    path.write_bytes(bytes(100))
    raw_format = AudioFormat(Encoding.OPUS, 48_000)
    assert "Ogg" in _unreadable(path, raw_format=raw_format).message
    with pytest.raises(UnreadableFileError, match="Ogg"):
        describe_audio(path, raw_format=raw_format)
