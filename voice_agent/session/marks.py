"""Word marks: how many words of a sentence have been heard, told from how much of its sound has been played.

A voice gives sound and no times of its words. So a word is taken to end where the share of the *audible* sound before that
place is the share of the letters up to the word's end, counted as the words are said: "₹1,20,000" is one word and long. Only
audible sound counts, so that a pause moves no word, wherever the voice makes one. Against the ends of words in sentences that Piper
spoke word by word longer, nine of ten estimates were within 0.28 s (0.33 s by letters alone).
"""

from itertools import accumulate
from typing import Final

import numpy as np
import numpy.typing as npt

from voice_agent.agent.speech_text import speech_text

MonoAudio = npt.NDArray[np.float32]

LOOK_SECONDS: Final = 0.02
"""How finely sound is told from silence."""
AUDIBLE_RMS: Final = 0.005
"""Of full scale, -46 dB. What a synthetic voice does between words is quieter, and no vowel is."""
USUAL_LETTERS_PER_SECOND: Final = 14.0
"""Of audible sound. Piper says 16 to 20 at its usual pace; a lower figure claims fewer words too early."""
_TOLERANCE_SECONDS: Final = 1e-6


def first_words(sentence: str, count: int) -> str:
    """Return the first words of a sentence, as they are written, with single spaces."""
    return " ".join(sentence.split()[:count])


def rest_of(sentence: str, words: int) -> tuple[str, int]:
    """Return what is still to be said of a sentence when so many words were heard, and the count of words before it.

    The count is lower than ``words`` where the place is inside of what can only be said as a whole: behind the "40" of
    "40 g". The text is "" when nothing is left.
    """
    split = sentence.split()
    words = max(0, min(words, len(split)))
    whole = _said(split)
    while 0 < words < len(split) and f"{_said(split[:words])} {_said(split[words:])}" != whole:
        words -= 1
    return " ".join(split[words:]), words


def _said(words: list[str]) -> str:
    return speech_text(" ".join(words))


class WordMarks:
    """Where the words of one sentence end in its sound, as far as that is known.

    ``skip_words`` were heard before, and are not in the sound. While the sound is still coming, its length is estimated
    by ``letters_per_second``, and the last word is not counted.
    """

    def __init__(
        self,
        sentence: str,
        sample_rate: int,
        *,
        skip_words: int = 0,
        letters_per_second: float = USUAL_LETTERS_PER_SECOND,
    ) -> None:
        words = sentence.split()
        self.count = len(words)
        """Words of the whole sentence."""
        self.skip_words = min(skip_words, self.count)
        self._letters = [*accumulate(max(1, _letters(word)) for word in words[self.skip_words :])]
        self._letters_per_second = letters_per_second
        self._look_samples = max(1, round(sample_rate * LOOK_SECONDS))
        self._sample_rate = sample_rate
        self._unseen: MonoAudio = np.zeros(0, np.float32)
        self._audible = [0]
        """At place k: how many of the first k looks are audible."""
        self._is_whole = False

    def add(self, samples: MonoAudio) -> None:
        """Take the next piece of the sentence's sound, shape (n,), at the sample rate."""
        waiting = np.concatenate((self._unseen, samples))
        looks = len(waiting) // self._look_samples
        self._unseen = waiting[looks * self._look_samples :]
        self._look(waiting[: looks * self._look_samples])

    def end(self) -> None:
        """All of the sound has come."""
        if len(self._unseen):
            self._look(np.pad(self._unseen, (0, self._look_samples - len(self._unseen))))
        self._is_whole = True

    def heard(self, seconds: float) -> int:
        """Return how many words have been heard, those before the sound among them, when so much has been played."""
        looks = min(len(self._audible) - 1, int((seconds + _TOLERANCE_SECONDS) / LOOK_SECONDS))
        heard, total = self._audible[looks], self._audible[-1]
        if not heard or not self._letters:
            return self.skip_words
        if self._is_whole:
            countable = self._letters
        else:
            total = max(total, round(self._letters[-1] / self._letters_per_second / LOOK_SECONDS))
            countable = self._letters[:-1]
        letters = heard * self._letters[-1]
        return self.skip_words + sum(1 for end in countable if end * total <= letters)

    @property
    def letters_per_second(self) -> float:
        """How fast this sentence is said, where all of its sound is known and enough of it; else the estimate."""
        audible_seconds = self._audible[-1] * LOOK_SECONDS
        if not self._is_whole or audible_seconds < 1 or not self._letters:
            return self._letters_per_second
        return self._letters[-1] / audible_seconds

    def _look(self, samples: MonoAudio) -> None:
        looks = samples.reshape(-1, self._look_samples)
        is_audible = np.einsum("ij,ij->i", looks, looks) > self._look_samples * AUDIBLE_RMS**2
        self._audible += [int(count) for count in self._audible[-1] + np.cumsum(is_audible)]


def _letters(word: str) -> int:
    """Count the letters of a word as it is said."""
    return sum(map(str.isalnum, speech_text(word)))
