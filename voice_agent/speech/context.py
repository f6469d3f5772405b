"""What was said just before: earlier speech and its words, put before an utterance so that it is understood better.

A caller who pauses speaks in pieces of one or two seconds, and the model, which knows nothing but the piece, mishears
them: "Fail again" alone was "Fare again". With the pieces before it in the same audio, and their words given as the
forced beginning of the decoder's output, the model hears a sentence go on. The decision record has the figures.
"""

from typing import Final

import attrs
import numpy as np

from voice_agent.speech.engine import HEARING_RATE, MonoAudio

MAX_GAP_SECONDS: Final = 1.5
"""After a longer silence something new begins."""


@attrs.frozen(eq=False)
class Spoken:
    """An utterance that was understood: where it began (sample of the call at 16 kHz), its audio and its tokens."""

    start: int
    samples: MonoAudio
    tokens: tuple[int, ...]

    @property
    def end(self) -> int:
        """The sample behind its last."""
        return self.start + len(self.samples)


class SpokenContext:
    """The last utterances of one call, as far back as ``max_seconds`` of audio reach."""

    def __init__(self, max_seconds: float) -> None:
        self._max_samples = int(max_seconds * HEARING_RATE)
        self._spoken: list[Spoken] = []

    def add(self, spoken: Spoken) -> None:
        """Remember an utterance, and forget what no longer fits."""
        self._spoken.append(spoken)
        while self._spoken and sum(len(s.samples) for s in self._spoken) > self._max_samples:
            del self._spoken[0]

    def before(
        self, start: int, samples: MonoAudio, *, share: float = 1.0
    ) -> tuple[MonoAudio, tuple[int, ...]]:
        """Put what was said before in front of an utterance's ``samples``, up to a ``share`` of the limit.

        Returns the audio (silence stands in the gaps) and the tokens of its first part; as given, when nothing was
        said shortly before, or nothing fits.
        """
        parts = [samples]
        tokens: tuple[int, ...] = ()
        total = len(samples)
        for spoken in reversed(self._spoken):
            gap = max(0, start - spoken.end)
            total += gap + len(spoken.samples)
            if gap > MAX_GAP_SECONDS * HEARING_RATE or total > share * self._max_samples:
                break
            parts[:0] = [spoken.samples, np.zeros(gap, np.float32)]
            tokens = (*spoken.tokens, *tokens)
            start = spoken.start
        return (np.concatenate(parts) if tokens else samples), tokens
