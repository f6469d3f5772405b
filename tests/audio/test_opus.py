"""Opus: the framing rules of RFC 6716, and what libopus makes of packets."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voice_agent.audio import opus
from voice_agent.audio.opus import (
    DECODED_RATE,
    FRAME_SAMPLES,
    MAX_PACKET_SAMPLES,
    OpusDecoder,
    OpusEncoder,
    packet_samples,
)
from voice_agent.core.errors import BadAudioError
from voice_agent.core.formats import OPUS_RATES

CELT_20_MS = 31 << 3
"""A TOC byte: fullband CELT frames of 20 ms, mono, one frame."""


def _sine(sample_rate: int, seconds: float, frequency: float = 440.0) -> np.ndarray:
    times = np.arange(int(sample_rate * seconds)) / sample_rate
    return (0.5 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def _frequency(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * DECODED_RATE / len(samples)


@pytest.mark.parametrize(
    ("configuration", "milliseconds"),
    [(0, 10), (3, 60), (4, 10), (11, 60), (12, 10), (15, 20), (16, 2.5), (19, 20), (28, 2.5), (31, 20)],
)
def test_a_frame_lasts_what_table_2_says(configuration: int, milliseconds: float) -> None:
    """RFC 6716, table 2: the configuration number gives the frame's length."""
    assert FRAME_SAMPLES[configuration] == milliseconds * 48
    assert packet_samples(bytes([configuration << 3, 1, 2])) == milliseconds * 48


@pytest.mark.parametrize(
    ("packet", "frames"),
    [
        (bytes([CELT_20_MS]), 1),
        (bytes([CELT_20_MS]) + bytes(1275), 1),
        (bytes([CELT_20_MS | 1]) + bytes(10), 2),
        (bytes([CELT_20_MS | 2, 3]) + bytes(3 + 5), 2),
        (bytes([CELT_20_MS | 2, 252, 1]) + bytes(256), 2),
        (bytes([CELT_20_MS | 3, 3]) + bytes(9), 3),
        (bytes([CELT_20_MS | 3, 6]), 6),
        (bytes([CELT_20_MS | 3, 0x80 | 3, 1, 2]) + bytes(1 + 2 + 4), 3),
        (bytes([CELT_20_MS | 3, 0x40 | 2, 5]) + bytes(8 + 5), 2),
        (bytes([CELT_20_MS | 3, 0x40 | 1, 255, 3]) + bytes(2 + 254 + 3), 1),
        (bytes([CELT_20_MS | 3, 0xC0 | 2, 1, 4]) + bytes(4 + 2 + 1), 2),
    ],
)
def test_each_framing_is_understood(packet: bytes, frames: int) -> None:
    """All four frame count codes, with one and two byte lengths, padding, and constant or variable size."""
    assert packet_samples(packet) == frames * 960


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (b"", "empty"),
        (bytes([CELT_20_MS]) + bytes(1276), "1276 bytes is over 1275"),
        (bytes([CELT_20_MS | 1]) + bytes(9), "equal length"),
        (bytes([CELT_20_MS | 1]) + bytes(2552), "over 1275"),
        (bytes([CELT_20_MS | 2]), "length is missing"),
        (bytes([CELT_20_MS | 2, 253]), "cut short"),
        (bytes([CELT_20_MS | 2, 9]) + bytes(8), "shorter than its frames"),
        (bytes([CELT_20_MS | 2, 0]) + bytes(1276), "over 1275"),
        (bytes([CELT_20_MS | 3]), "frame count is missing"),
        (bytes([CELT_20_MS | 3, 0]), "no frames"),
        (bytes([CELT_20_MS | 3, 7]), "140 ms"),
        (bytes([(3 << 3) | 3, 3]), "180 ms"),
        (bytes([CELT_20_MS | 3, 2]) + bytes(3), "equal length"),
        (bytes([CELT_20_MS | 3, 0x40 | 1]), "padding length is missing"),
        (bytes([CELT_20_MS | 3, 0x40 | 1, 255]), "padding length is missing"),
        (bytes([CELT_20_MS | 3, 0x40 | 1, 9]) + bytes(8), "shorter than its frames"),
        (bytes([CELT_20_MS | 3, 0x80 | 2]), "length is missing"),
        (bytes([CELT_20_MS | 3, 0x80 | 2, 9]) + bytes(8), "shorter than its frames"),
    ],
)
def test_a_broken_framing_is_refused_with_its_reason(packet: bytes, reason: str) -> None:
    """Every rule R1-R7 of section 3.4, when broken, gives BadAudioError on the field `audio`, and the call goes on."""
    decoder = OpusDecoder(1)
    with pytest.raises(BadAudioError, match=reason) as caught:
        decoder.decode(packet)
    assert caught.value.field == "audio"
    assert decoder.decode(bytes([CELT_20_MS])).shape == (960,)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=80))
def test_garbage_is_refused_or_decodes_to_the_length_it_announces(packet: bytes) -> None:
    """Any bytes give BadAudioError or exactly the announced samples; no other error, and no crash."""
    decoder = OpusDecoder(2)
    try:
        samples = decoder.decode(packet)
    except BadAudioError:
        return
    assert samples.shape == (packet_samples(packet), 2)
    assert samples.dtype == np.int16
    assert len(samples) <= MAX_PACKET_SAMPLES


def test_libopus_refuses_what_the_framing_check_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check is as strict as libopus and no stricter; a refusal of libopus itself is translated too."""
    random = np.random.default_rng(7)
    packets = [random.bytes(int(random.integers(1, 60))) for _ in range(400)]
    accepted = set()
    for packet in packets:
        try:
            packet_samples(packet)
        except BadAudioError:
            continue
        accepted.add(packet)
    monkeypatch.setattr(opus, "packet_samples", lambda _packet: 960)
    for packet in packets:
        try:
            OpusDecoder(1).decode(packet)
            refused_by_libopus = False
        except BadAudioError as error:
            refused_by_libopus = "libopus refuses" in error.message
        assert refused_by_libopus == (packet not in accepted), packet.hex()
    assert 0 < len(accepted) < len(packets)


@pytest.mark.parametrize("sample_rate", OPUS_RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_tone_survives(sample_rate: int, channels: int) -> None:
    """Whatever rate the encoder is fed, decoding gives 48 kHz with the tone at its pitch and its level."""
    tone = _sine(sample_rate, 1.0)
    samples = tone if channels == 1 else np.stack([tone, 0.25 * tone], axis=1)
    encoder, decoder = OpusEncoder(sample_rate, channels), OpusDecoder(channels)
    packets = encoder.encode(samples) + encoder.flush()
    decoded = np.concatenate([decoder.decode(packet) for packet in packets])
    assert decoded.dtype == np.int16
    assert decoded.shape == ((51 * 960,) if channels == 1 else (51 * 960, 2))
    columns = decoded.reshape(-1, channels)[9_600:43_200].astype(np.float64) / 32_768
    for column, amplitude in zip(columns.T, (0.5, 0.125), strict=False):
        assert _frequency(column) == pytest.approx(440, abs=2)
        assert np.sqrt(2 * np.mean(column**2)) == pytest.approx(amplitude, rel=0.15)


def test_packets_are_20_ms_whatever_the_pieces() -> None:
    """The encoder cuts at 20 ms by itself: pieces of any size give the same packets."""
    tone = _sine(16_000, 0.5)
    whole = OpusEncoder(16_000, 1)
    expected = whole.encode(tone) + whole.flush()
    pieces = OpusEncoder(16_000, 1)
    packets = [
        packet for start in range(0, len(tone), 77) for packet in pieces.encode(tone[start : start + 77])
    ]
    assert packets + pieces.flush() == expected
    assert all(packet_samples(packet) == 960 for packet in expected)


def test_the_flush_loses_no_sample() -> None:
    """What is fed comes out to the last sample: the packets cover the input and the encoder's own delay."""
    encoder, decoder = OpusEncoder(48_000, 1), OpusDecoder(1)
    burst = np.zeros(960 * 5 + 500, np.float32)
    burst[-300:] = _sine(48_000, 300 / 48_000, 2_000)
    packets = encoder.encode(burst)
    assert len(packets) == 5
    packets += encoder.flush()
    decoded = np.concatenate([decoder.decode(packet) for packet in packets]).astype(np.float64)
    assert len(decoded) >= len(burst) + 312
    heard = decoded[len(burst) - 300 : len(burst) + 400]
    assert np.sum(heard**2) > 0.9 * np.sum(decoded**2)
    assert np.sum((heard / 32_768) ** 2) > 0.5 * float(np.sum(burst.astype(np.float64) ** 2))


def test_flushing_an_unused_encoder_gives_nothing() -> None:
    """No audio, no packets."""
    assert OpusEncoder(48_000, 2).flush() == []
    encoder = OpusEncoder(48_000, 1)
    assert encoder.encode(np.zeros(0, np.float32)) == []
    assert encoder.flush() == []


@pytest.mark.parametrize(("sent", "heard"), [(1, 2), (2, 1)])
def test_a_packet_of_the_other_channel_count_is_mixed(sent: int, heard: int) -> None:
    """A stereo packet in a mono call is heard as mono, and the other way round."""
    tone = _sine(48_000, 0.2)
    encoder, decoder = OpusEncoder(48_000, sent), OpusDecoder(heard)
    packets = encoder.encode(tone if sent == 1 else np.stack([tone, tone], axis=1))
    decoded = np.concatenate([decoder.decode(packet) for packet in packets])
    assert decoded.shape == ((9_600,) if heard == 1 else (9_600, 2))
    for column in decoded.reshape(-1, heard).T:
        assert np.sqrt(np.mean(column[4_800:].astype(np.float64) ** 2)) > 5_000


def test_two_calls_share_no_state() -> None:
    """A decoder hears its own packets only: interleaving another call's changes nothing."""
    one, other = _sine(48_000, 0.4, 440), _sine(48_000, 0.4, 1_900)
    encoder, second_encoder = OpusEncoder(48_000, 1), OpusEncoder(48_000, 1)
    packets, other_packets = encoder.encode(one), second_encoder.encode(other)
    alone = OpusDecoder(1)
    expected = [alone.decode(packet) for packet in packets]
    decoder, second_decoder = OpusDecoder(1), OpusDecoder(1)
    for packet, other_packet, want in zip(packets, other_packets, expected, strict=True):
        assert np.array_equal(decoder.decode(packet), want)
        second_decoder.decode(other_packet)


def test_a_decoder_that_disagrees_with_the_framing_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should libopus give another length than the packet announces, the message is refused: positions stay true."""
    monkeypatch.setattr(opus, "packet_samples", lambda _packet: 480)
    with pytest.raises(BadAudioError, match="960 samples instead of 480"):
        OpusDecoder(1).decode(bytes([CELT_20_MS]))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux shows them")
def test_codecs_start_no_threads() -> None:
    """FFmpeg's own default is a thread for each CPU beside every encoder; here a call costs none, and its CPUs stay."""

    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before, cpus = threads(), os.sched_getaffinity(0)
    encoders = [OpusEncoder(rate, channels) for rate in (16_000, 48_000) for channels in (1, 2)]
    for encoder in encoders:
        packets = encoder.encode(np.zeros((9_600, encoder._channels), np.float32))
        decoder = OpusDecoder(1)
        for packet in packets:
            decoder.decode(packet)
    assert threads() <= before
    assert os.sched_getaffinity(0) == cpus
