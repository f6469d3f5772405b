"""Files as a call's audio: conversion, cutting, positions."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from voice_agent.audio.decoding import open_decoder
from voice_agent.cli.call_audio import AudioMessage
from voice_agent.cli.call_files import FileSource, MessageCutter
from voice_agent.core.errors import UnreadableFileError
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    """A quiet sine."""
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def decoded(messages: list[AudioMessage], audio_format: AudioFormat) -> np.ndarray:
    """What a server makes of the messages."""
    decoder = open_decoder(audio_format)
    return np.concatenate([decoder.decode(message.data).to_float32() for message in messages])


def is_open(path: Path) -> bool:
    """Whether this process holds the file open."""
    return any(fd.resolve() == path for fd in Path("/proc/self/fd").iterdir())


def all_messages(source: FileSource) -> list[AudioMessage]:
    """Read the source without Trio."""
    return [message for block in source.blocks() for message in block]


@pytest.mark.parametrize("pieces", [1, 7, 160, 1000, 16_000])
def test_a_stream_is_cut_the_same_however_it_arrives(pieces: int) -> None:
    """Messages of 20 ms, a shorter one at the end, positions exact."""
    audio_format = AudioFormat()
    samples = tone(0.05, 16_000)
    cutter = MessageCutter(audio_format, 20)
    messages = [m for i in range(0, len(samples), pieces) for m in cutter.cut(samples[i : i + pieces])]
    messages += cutter.finish()
    assert [len(m.data) for m in messages] == [640, 640, 320]
    assert [m.end_seconds for m in messages] == [0.02, 0.04, 0.05]
    assert b"".join(m.data for m in messages) == (np.rint(samples * 32768)).astype("<i2").tobytes()


def test_a_rate_that_milliseconds_do_not_divide_does_not_drift() -> None:
    """20 ms of 11025 Hz are 220.5 samples: messages of 220 and 221 in turn, exact over a minute."""
    cutter = MessageCutter(AudioFormat(Encoding.PCM_S16LE, 11_025), 20)
    messages = cutter.cut(np.zeros(11_025 * 60, np.float32))
    assert {len(m.data) // 2 for m in messages} == {220, 221}
    assert len(messages) == 3000
    assert messages[-1].end_seconds == 60.0


def test_nothing_gives_no_messages() -> None:
    """An empty rest is no empty message."""
    cutter = MessageCutter(AudioFormat(), 20)
    assert cutter.cut(np.zeros(0, np.float32)) == []
    assert cutter.finish() == []


def test_opus_goes_a_packet_a_message_whatever_the_chunk() -> None:
    """Each packet is 20 ms; the last is padded, and positions count packets."""
    audio_format = AudioFormat(Encoding.OPUS, 48_000, 1)
    cutter = MessageCutter(audio_format, 50)
    messages = cutter.cut(tone(0.33, 48_000)) + cutter.finish()
    assert [m.end_seconds for m in messages] == pytest.approx([0.02 * (i + 1) for i in range(len(messages))])
    assert len(messages) >= 17
    assert len(decoded(messages, audio_format)) == len(messages) * 960


@pytest.mark.parametrize("encoding", [Encoding.PCM_S16LE, Encoding.PCM_F32LE, Encoding.MULAW, Encoding.ALAW])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_a_file_arrives_as_the_same_sound_at_the_wire_rate(
    tmp_path: Path, encoding: Encoding, rate: int
) -> None:
    """A 44.1 kHz recording, longer than a block: exact length, and the tone is that of the recording."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(2.5, 44_100), 44_100)
    audio_format = AudioFormat(encoding, rate)
    messages = all_messages(FileSource(path=path, audio_format=audio_format))
    heard = decoded(messages, audio_format)
    assert len(heard) == round(2.5 * rate)
    assert messages[-1].end_seconds == pytest.approx(2.5)
    middle = slice(rate // 2, 2 * rate)
    error = heard[middle] - tone(2.5, rate)[middle]
    assert np.sqrt(np.mean(error**2)) < 0.02


def test_stereo_is_averaged_to_mono(tmp_path: Path) -> None:
    """A tone on one side arrives at half its level."""
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(0.5, 16_000), np.zeros(8_000)], axis=1), 16_000)
    heard = decoded(all_messages(FileSource(path=path)), AudioFormat())
    assert np.allclose(heard, tone(0.5, 16_000) / 2, atol=1e-4)


def test_mono_is_sent_on_both_channels(tmp_path: Path) -> None:
    """A mono file on a stereo call is the same left and right."""
    path = tmp_path / "mono.wav"
    soundfile.write(path, tone(0.5, 16_000), 16_000)
    audio_format = AudioFormat(Encoding.PCM_S16LE, 16_000, 2)
    heard = decoded(all_messages(FileSource(path=path, audio_format=audio_format)), audio_format)
    assert heard.shape == (8_000, 2)
    assert (heard[:, 0] == heard[:, 1]).all()


def test_stereo_stays_stereo_on_a_stereo_call(tmp_path: Path) -> None:
    """Left is left and right is right, also through the resampler."""
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(1, 48_000), np.zeros(48_000)], axis=1), 48_000)
    audio_format = AudioFormat(Encoding.PCM_S16LE, 16_000, 2)
    heard = decoded(all_messages(FileSource(path=path, audio_format=audio_format)), audio_format)
    assert np.abs(heard[:, 0]).max() > 0.45
    assert np.abs(heard[:, 1]).max() == 0


def test_silence_follows_the_file_without_a_seam(tmp_path: Path) -> None:
    """The last message of speech is filled up with silence, not cut short."""
    path = tmp_path / "short.wav"
    soundfile.write(path, tone(0.05, 16_000), 16_000)
    messages = all_messages(FileSource(path=path, silence_seconds=0.5))
    assert [len(m.data) for m in messages[:-1]] == [640] * (len(messages) - 1)
    heard = decoded(messages, AudioFormat())
    assert len(heard) == round(0.55 * 16_000)
    assert (heard[800:] == 0).all()


def test_a_headerless_file_is_read_in_its_stated_format(tmp_path: Path) -> None:
    """Bytes in, the same bytes out where the formats agree."""
    path = tmp_path / "audio.raw"
    data = (tone(0.1, 16_000) * 32767).astype("<i2").tobytes()
    path.write_bytes(data)
    messages = all_messages(FileSource(path=path, raw_format=AudioFormat()))
    assert b"".join(m.data for m in messages) == data


async def test_a_source_opens_reads_to_the_end_and_closes_its_file(tmp_path: Path) -> None:
    """Through Trio the same messages come, and leaving the context closes the file, also in the middle."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(3, 16_000), 16_000)
    source = FileSource(path=path)
    async with source.open() as messages:
        assert [message async for message in messages] == all_messages(source)
    async with source.open() as messages:
        assert (await anext(messages)).end_seconds == 0.02
        assert is_open(path)
    assert not is_open(path)


async def test_an_unreadable_file_is_noticed_on_opening(tmp_path: Path) -> None:
    """Before any server is bothered."""
    path = tmp_path / "no.wav"
    path.write_text("this is no audio")
    with pytest.raises(UnreadableFileError):
        async with FileSource(path=path).open():
            pytest.fail("it was opened")
