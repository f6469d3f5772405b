"""What is made up in place of lost packets, and the seams of what is played."""

import numpy as np
import pytest

from voice_agent.transports.webrtc.concealment import Concealer
from voice_agent.transports.webrtc.outbound import FRAME_SAMPLES, OutboundBuffer


def tone(samples: int, hertz: float = 150.0, level: int = 10_000) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(samples) / 48_000)).astype(np.int16)


def largest_step(samples: np.ndarray) -> int:
    return int(np.abs(np.diff(samples.astype(np.int32))).max())


def test_a_lost_packet_goes_on_as_the_voice_did() -> None:
    """20 ms that are lost in a steady vowel sound much like the vowel, without a click on either side."""
    voice = tone(48_000)
    concealer = Concealer()
    pieces = [concealer.smooth(voice[start : start + 960]) for start in range(0, 9600, 960)]
    made = concealer.conceal(960)
    after = concealer.smooth(voice[10_560:11_520])
    heard = np.concatenate([*pieces, made, after])
    assert largest_step(heard) < 2 * largest_step(voice)
    correlation = np.corrcoef(made.astype(float), voice[9600:10_560].astype(float))[0, 1]
    assert correlation > 0.9


def test_a_long_loss_fades_to_silence() -> None:
    """After 60 ms nothing is made up any more."""
    concealer = Concealer()
    concealer.smooth(tone(9600))
    made = concealer.conceal(48_000)
    assert len(made) == 48_000
    assert np.abs(made[:960]).max() > 5000
    assert not made[2880:].any()


def test_nothing_before_is_silence() -> None:
    """A loss before any sound is silent."""
    assert not Concealer().conceal(960).any()


def test_what_is_played_is_sample_exact() -> None:
    """Audio comes out as it went in, however it was cut."""
    voice = tone(FRAME_SAMPLES * 5)
    buffer = OutboundBuffer(48_000)
    for start, end in [(0, 100), (100, 2000), (2000, 2001), (2001, len(voice))]:
        buffer.put(voice[start:end])
    played = [buffer.take() for _ in range(5)]
    assert np.array_equal(np.concatenate(played), voice)
    assert buffer.waiting_samples == 0


def test_silence_is_none() -> None:
    """An empty buffer gives nothing to encode."""
    assert OutboundBuffer(48_000).take() is None


@pytest.mark.parametrize("cut", [960 * 2, 1500])
def test_the_end_of_sound_does_not_click(cut: int) -> None:
    """Sound that ends at full level falls within 5 ms, in the same frame or in the next."""
    voice = np.full(cut, 9000, np.int16)
    buffer = OutboundBuffer(48_000)
    buffer.put(voice)
    played = np.concatenate([piece for _ in range(4) if (piece := buffer.take()) is not None])
    assert largest_step(played[960:]) < 300
    assert played[-1] == 0 or abs(int(played[-1])) < 512


def test_clearing_takes_effect_at_once_and_without_a_click() -> None:
    """After clearing nothing of the old audio is played beyond a 5 ms fall, and new audio is played instead."""
    buffer = OutboundBuffer(480_000)
    buffer.put(np.full(48_000, 9000, np.int16))
    first = buffer.take()
    assert buffer.clear() == 48_000 - 960
    assert buffer.clear() == 0
    buffer.put(tone(960))
    second = buffer.take()
    assert largest_step(np.concatenate([first[-10:], second])) < 600
    assert np.array_equal(second[240:], tone(960)[240:])
    assert buffer.waiting_samples == 0
