"""What do the models make of sounds that are no speech? Prints a table, for setting the gates of the recogniser.

For each sound: Silero's highest and mean probability, the share of windows over 0.5, and what Moonshine writes when it
is made to listen to 1.5 s and 5 s of it, with its confidence. Run: ``python scripts/probe_noise.py``.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile
import soxr

from voice_agent.settings.schema import Settings
from voice_agent.speech.engine import HEARING_RATE, VAD_WINDOW, MonoAudio, RecognitionRequest, Urgency
from voice_agent.speech.models import SpeechModels, load_models
from voice_agent.speech.silero import ListeningState, SileroJob

SECONDS = 5.0
CLIPS = (1.5, SECONDS)


def tones(*hertz: float, level: float = 0.2) -> MonoAudio:
    """Make a sum of steady sines."""
    time = np.arange(int(SECONDS * HEARING_RATE)) / HEARING_RATE
    return (level / len(hertz) * sum(np.sin(2 * np.pi * f * time) for f in hertz)).astype(np.float32)


def gated(sound: MonoAudio, on_seconds: float, off_seconds: float) -> MonoAudio:
    """Switch a sound on and off."""
    time = np.arange(len(sound)) / HEARING_RATE
    return (sound * (time % (on_seconds + off_seconds) < on_seconds)).astype(np.float32)


def coloured(rng: np.random.Generator, exponent: float, level: float) -> MonoAudio:
    """Make noise whose power falls with frequency to the ``exponent``: 0 white, 1 pink, 2 brown."""
    count = int(SECONDS * HEARING_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    bins = np.maximum(np.arange(len(spectrum)), 1)
    noise = np.fft.irfft(spectrum / bins ** (exponent / 2), count)
    return (level * noise / noise.std()).astype(np.float32)


def breathing(rng: np.random.Generator) -> MonoAudio:
    """Make band-limited noise that swells and fades every 3 s."""
    noise = coloured(rng, 0.7, 0.05)
    time = np.arange(len(noise)) / HEARING_RATE
    return (noise * np.maximum(0, np.sin(2 * np.pi * time / 3.0)) ** 2).astype(np.float32)


def dtmf() -> MonoAudio:
    """Dial 1 5 9 # again and again: ITU-T Q.23 pairs, 100 ms on, 100 ms off."""
    pairs = ((697, 1209), (770, 1336), (852, 1477), (941, 1477))
    press = int(0.1 * HEARING_RATE)
    time = np.arange(press) / HEARING_RATE
    dialled = np.concatenate(
        [
            np.concatenate(
                [0.15 * (np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)), np.zeros(press)]
            )
            for low, high in pairs
        ]
    )
    return np.tile(dialled, 7)[: int(SECONDS * HEARING_RATE)].astype(np.float32)


def music() -> MonoAudio:
    """Play a chord progression with harmonics and decaying notes, two chords a second."""
    chords = ((261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7))
    note = np.arange(HEARING_RATE // 2) / HEARING_RATE
    played = []
    for beat in range(int(SECONDS * 2)):
        chord = chords[beat // 2 % len(chords)]
        wave = sum(
            np.sin(2 * np.pi * f * harmonic * note) / harmonic for f in chord for harmonic in (1, 2, 3, 4)
        )
        played.append(0.08 * wave * np.exp(-3 * note))
    return np.concatenate(played).astype(np.float32)


def clicks(rng: np.random.Generator) -> MonoAudio:
    """Type on a keyboard: short bursts at irregular times."""
    sound = np.zeros(int(SECONDS * HEARING_RATE), np.float32)
    for start in rng.integers(0, len(sound) - 200, 30):
        sound[start : start + 160] += 0.3 * rng.standard_normal(160) * np.exp(-np.arange(160) / 30)
    return sound.astype(np.float32)


def hum_with_harmonics() -> MonoAudio:
    """Hum like a mains transformer."""
    return tones(50, 100, 150, 250, level=0.3)


def sounds() -> dict[str, MonoAudio]:
    """Return every sound by name."""
    rng = np.random.default_rng(7)
    return {
        "silence": np.zeros(int(SECONDS * HEARING_RATE), np.float32),
        "faint noise": coloured(rng, 0, 0.001),
        "white noise": coloured(rng, 0, 0.05),
        "loud white noise": coloured(rng, 0, 0.3),
        "pink noise": coloured(rng, 1, 0.1),
        "brown noise": coloured(rng, 2, 0.1),
        "dial tone EU 425": tones(425),
        "dial tone US": tones(350, 440),
        "busy tone EU": gated(tones(425), 0.5, 0.5),
        "ringback US": gated(tones(440, 480), 2, 4),
        "DTMF": dtmf(),
        "music": music(),
        "breathing": breathing(rng),
        "keyboard": clicks(rng),
        "mains hum": hum_with_harmonics(),
        "1 kHz beeps": gated(tones(1000), 0.25, 0.75),
    }


def read(path: Path) -> MonoAudio:
    """Read a sound file as 16 kHz mono."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(samples.mean(axis=1), rate, HEARING_RATE).astype(np.float32)


def activity(models: SpeechModels, sound: MonoAudio) -> np.ndarray:
    """Return Silero's probability of each window."""
    windows = sound[: len(sound) // VAD_WINDOW * VAD_WINDOW].reshape(-1, VAD_WINDOW)
    [result] = models.voice_activity.run_batch([SileroJob(ListeningState(), windows)], lambda _place: False)
    return result.probabilities


def written(models: SpeechModels, sound: MonoAudio) -> str:
    """Return what Moonshine writes, with its confidence."""
    request = RecognitionRequest(samples=sound, urgency=Urgency.FINAL, utterance_key=("", 0))
    [found] = models.recogniser.recognise_batch([request], lambda _place: False)
    looping = " (loop)" if found.is_looping else ""
    return f"{found.confidence:.2f} {found.text[:48]!r}{looping}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="more sounds to listen to")
    arguments = parser.parse_args()
    models = load_models(Settings())
    for name, sound in {**sounds(), **{path.name: read(path) for path in arguments.files}}.items():
        probabilities = activity(models, sound)
        print(
            f"{name:18} silero max {probabilities.max():.2f} mean {probabilities.mean():.2f} "
            f"over 0.5: {100 * (probabilities > 0.5).mean():3.0f} %",
            *(
                f"| {len(clip) / HEARING_RATE:.1f} s: {written(models, clip)}"
                for clip in (sound[: int(seconds * HEARING_RATE)] for seconds in CLIPS)
            ),
        )


if __name__ == "__main__":
    main()
