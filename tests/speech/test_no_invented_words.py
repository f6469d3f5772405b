"""Silence, noise, tones and music through the real models and a whole session: no final, whatever the format."""

from collections.abc import Callable

import numpy as np
import pytest
import trio

from voice_agent import AudioFrame, CloseReason, Fault, Settings, Transcript, open_services, open_session
from voice_agent.session.services import Services

RATE = 16_000
SECONDS = 6
RNG = np.random.default_rng(11)


def clock() -> np.ndarray:
    return np.arange(SECONDS * RATE) / RATE


def tones(*frequencies: float) -> np.ndarray:
    return sum(np.sin(2 * np.pi * f * clock()) for f in frequencies) * (0.3 / len(frequencies))


def pulsed(samples: np.ndarray, on_seconds: float, off_seconds: float) -> np.ndarray:
    return samples * ((clock() % (on_seconds + off_seconds)) < on_seconds)


def music() -> np.ndarray:
    """Three chords with decaying notes and a beat."""
    chords = [(261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (196.0, 246.9, 392.0)]
    beat = clock() % 0.5
    whole = np.zeros(SECONDS * RATE)
    for index, chord in enumerate(chords):
        part = (clock() // 2).astype(int) == index
        notes = sum(np.sin(2 * np.pi * f * clock()) + 0.5 * np.sin(4 * np.pi * f * clock()) for f in chord)
        whole += part * notes * np.exp(-3 * beat)
    return 0.1 * whole + 0.05 * RNG.standard_normal(SECONDS * RATE) * (beat < 0.05)


def pink() -> np.ndarray:
    spectrum = np.fft.rfft(RNG.standard_normal(SECONDS * RATE))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    samples = np.fft.irfft(spectrum, SECONDS * RATE)
    return 0.2 * samples / np.abs(samples).max()


SOUNDS: dict[str, Callable[[], np.ndarray]] = {
    "silence": lambda: np.zeros(SECONDS * RATE),
    "white noise": lambda: 0.1 * RNG.standard_normal(SECONDS * RATE),
    "loud white noise": lambda: RNG.uniform(-1, 1, SECONDS * RATE),
    "pink noise": pink,
    "dial tone": lambda: tones(350, 440),
    "busy tone": lambda: pulsed(tones(480, 620), 0.5, 0.5),
    "DTMF": lambda: pulsed(tones(770, 1336), 0.1, 0.1),
    "beep": lambda: pulsed(tones(1000), 0.3, 1.0),
    "music": music,
    "clicks": lambda: pulsed(RNG.uniform(-1, 1, SECONDS * RATE), 0.004, 0.25),
    "mains hum": lambda: tones(50, 100, 150),
}


async def transcripts_of(services: Services, samples: np.ndarray) -> list[str]:
    transcripts: list[str] = []
    async with open_session(services) as session, trio.open_nursery() as nursery:

        async def feed() -> None:
            await session.send_audio(AudioFrame(np.clip(samples, -1, 1).astype(np.float32), RATE))
            await session.finish()

        nursery.start_soon(feed)
        async for event in session.events():
            if isinstance(event, Transcript):
                transcripts.append(event.result.text)
            # A call that failed would have no words either.
            assert not isinstance(event, Fault)
    assert session.record is not None
    assert session.record.reason is CloseReason.STOPPED
    assert session.record.audio_seconds == SECONDS
    return transcripts


@pytest.mark.parametrize("sound", SOUNDS)
async def test_a_sound_without_words_gives_none(sound: str) -> None:
    """Neither partials nor finals."""
    async with open_services(Settings()) as services:
        assert await transcripts_of(services, SOUNDS[sound]()) == []
