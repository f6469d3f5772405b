"""Phrases: what was said before is not synthesised again. Around any voice; bounded by the length of its sound."""

from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import numpy as np

from voice_agent.speech.voice import MonoAudio, Sentence, Voice


class CachedVoice:
    """A voice that remembers; the phrase that was not said for longest is forgotten first.

    Only what came whole is remembered. Two calls that want the same new phrase at once have it made twice: waiting for
    the other one would tie the calls together.
    """

    def __init__(self, voice: Voice, *, max_seconds: float) -> None:
        self._voice = voice
        self._max_samples = round(max_seconds * voice.sample_rate)
        self._samples = 0
        self._phrases: OrderedDict[str, MonoAudio] = OrderedDict()

    @property
    def sample_rate(self) -> int:
        """Hz."""
        return self._voice.sample_rate

    @property
    def seconds(self) -> float:
        """How much sound is kept."""
        return self._samples / self.sample_rate

    @asynccontextmanager
    async def speaking(self, sentence: Sentence) -> AsyncIterator[AsyncIterator[MonoAudio]]:
        """Synthesise, or remember."""
        known = self._phrases.get(sentence.text)
        if known is not None:
            self._phrases.move_to_end(sentence.text)
            async with aclosing(_one(known)) as sound:
                yield sound
            return
        async with (
            self._voice.speaking(sentence) as pieces,
            aclosing(self._listened_to(sentence.text, pieces)) as sound,
        ):
            yield sound

    async def _listened_to(
        self, text: str, pieces: AsyncIterator[MonoAudio]
    ) -> AsyncGenerator[MonoAudio, None]:
        heard: list[MonoAudio] = []
        kept = 0
        async for piece in pieces:
            kept += len(piece)
            if kept <= self._max_samples:
                heard.append(piece)
            yield piece
        if 0 < kept <= self._max_samples and text not in self._phrases:
            self._remember(text, np.concatenate(heard))

    def _remember(self, text: str, sound: MonoAudio) -> None:
        # Whoever plays it must not change it for the next call.
        sound.setflags(write=False)
        self._phrases[text] = sound
        self._samples += len(sound)
        while self._samples > self._max_samples:
            _, forgotten = self._phrases.popitem(last=False)
            self._samples -= len(forgotten)


async def _one(piece: MonoAudio) -> AsyncGenerator[MonoAudio, None]:
    yield piece
