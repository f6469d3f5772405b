"""Shipped fake of a voice: a tone for each word, and under a mock clock no time."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import attrs
import numpy as np
import trio

from voice_agent.core.errors import SynthesisFailedError
from voice_agent.speech.voice import MonoAudio, Sentence

TONE_HZ: Final = 440.0


@attrs.define(eq=False)
class ScriptedVoice:
    """A :class:`~voice_agent.speech.voice.Voice` whose words are tones of ``seconds_per_word``, one piece each.

    Each piece takes ``latency_seconds``. A word that stands in ``fails_at`` raises instead. ``said`` collects
    sentences that came whole, ``abandoned`` those that were stopped.
    """

    sample_rate: int = 16_000
    seconds_per_word: float = 0.3
    latency_seconds: float = 0.0
    fails_at: frozenset[str] = frozenset()
    said: list[Sentence] = attrs.field(factory=list, init=False)
    abandoned: list[Sentence] = attrs.field(factory=list, init=False)

    @asynccontextmanager
    async def speaking(self, sentence: Sentence) -> AsyncIterator[AsyncIterator[MonoAudio]]:
        """Give the words' tones."""
        count = len(self.said)
        try:
            async with aclosing(self._pieces(sentence)) as sound:
                yield sound
        finally:
            if len(self.said) == count:
                self.abandoned.append(sentence)

    async def _pieces(self, sentence: Sentence) -> AsyncGenerator[MonoAudio, None]:
        times = np.arange(round(self.seconds_per_word * self.sample_rate)) / self.sample_rate
        for word in sentence.text.split():
            await trio.sleep(self.latency_seconds)
            if word in self.fails_at:
                raise SynthesisFailedError(f"the scripted voice fails at {word!r}")
            yield (0.5 * np.sin(2 * np.pi * TONE_HZ * times)).astype(np.float32)
        self.said.append(sentence)
