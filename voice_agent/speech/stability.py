"""What of a partial will not change: the words that consecutive hypotheses agree on.

Local agreement (Liu, Spanakis and Niehues, Interspeech 2020): a prefix that consecutive hypotheses share, each made
from more audio than the last, is likely right. Likely is not enough for a promise, so the agreed tokens are also
given to the engine as the forced beginning of every later hypothesis of the utterance: what was told as stable then
stands in every later partial and in the final by construction.
"""

from typing import Final

import attrs

from voice_agent.speech.engine import Recognition

HELD_BACK_WORDS: Final = 2
"""The newest words of a partial rest on audio that is still arriving, so agreement on them counts for little."""

AGREEING_HYPOTHESES: Final = 2


@attrs.define
class StablePrefix:
    """The stable prefix of one utterance's hypotheses; grows, never shrinks."""

    tokens: tuple[int, ...] = ()
    """What the engine must begin its next hypothesis with."""
    text: str = ""
    _recent: list[Recognition] = attrs.field(factory=list)

    def push(self, hypothesis: Recognition, *, may_grow: bool = True) -> str:
        """Take the next hypothesis and return the stable prefix of its text.

        ``may_grow`` is false where later audio may still be cut away from this utterance.
        """
        self._recent = [*self._recent, hypothesis][-AGREEING_HYPOTHESES:]
        if may_grow and len(self._recent) == AGREEING_HYPOTHESES:
            self._grow(hypothesis)
        return self.text

    def _grow(self, hypothesis: Recognition) -> None:
        agreed = len(hypothesis.tokens)
        for other in self._recent[:-1]:
            agreed = min(agreed, _common_length(hypothesis.tokens, other.tokens))
        ends = hypothesis.word_ends[: max(0, len(hypothesis.word_ends) - HELD_BACK_WORDS)]
        words = sum(end <= agreed for end in ends)
        if words and ends[words - 1] > len(self.tokens):
            self.tokens = hypothesis.tokens[: ends[words - 1]]
            self.text = _first_words(hypothesis.text, words)


def _common_length(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    length = 0
    for ours, theirs in zip(first, second, strict=False):
        if ours != theirs:
            break
        length += 1
    return length


def _first_words(text: str, count: int) -> str:
    """Return the text up to the end of its ``count``-th word."""
    position = 0
    for word in text.split()[:count]:
        position = text.index(word, position) + len(word)
    return text[:position]
