"""What the soak's callers say: real speech with pauses."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import attrs
import numpy as np

from voice_agent.audio.files import read_audio
from voice_agent.audio.resample import open_resampler
from voice_agent.cli.call_audio import AudioMessage
from voice_agent.core.formats import AudioFormat
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

RATE = 16_000
FRAME = 640
"""Samples of one message: 40 ms."""


@attrs.frozen
class Talk:
    """A recording that is spoken in real time; an :class:`~voice_agent.cli.call_audio.AudioSource`."""

    samples: np.ndarray
    audio_format: AudioFormat = attrs.field(factory=AudioFormat)
    is_live: bool = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[AudioMessage]]:
        """Begin at its first sample."""
        async with aclosing(self._messages()) as messages:
            yield messages

    async def _messages(self) -> Any:
        for begin in range(0, len(self.samples), FRAME):
            piece = self.samples[begin : begin + FRAME]
            yield AudioMessage(piece.tobytes(), (begin + len(piece)) / RATE)


def talks(chance: random.Random) -> Iterator[Talk]:
    """Give conversations: phrases of real speech with pauses between, 10 to 40 s."""
    (path,) = [
        file.path.parents[1] / "two_cities.wav" for file in find_models(Settings()) if "encoder" in file.name
    ]
    audio = read_audio(path)
    resampler = open_resampler(audio.sample_rate, RATE)
    speech = np.concatenate([resampler.process(audio.to_mono_float32()), resampler.flush()])
    speech = (np.clip(speech, -1, 1) * 32767).astype(np.int16)
    while True:
        parts = []
        for _ in range(chance.randint(2, 6)):
            length = round(chance.uniform(1.5, 5) * RATE)
            begin = chance.randrange(len(speech) - length)
            parts += [speech[begin : begin + length], np.zeros(round(chance.uniform(1, 4) * RATE), np.int16)]
        yield Talk(np.concatenate(parts))
