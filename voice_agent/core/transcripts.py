"""TranscriptResult: what was understood of one utterance, so far or for good."""

import attrs


@attrs.frozen
class Word:
    """One word with its place in the call (seconds) and its probability, where the engine gives them."""

    text: str
    start: float
    end: float
    confidence: float


@attrs.frozen(kw_only=True)
class TranscriptResult:
    """What was understood of one utterance.

    ``start`` and ``end`` are seconds of the call. ``utterance`` counts from 1 in a call; ``revision`` counts the
    results of one utterance from 1. ``stable`` is the prefix of ``text`` that no later result of this utterance
    changes; for a final it is the whole text. ``confidence`` is the geometric mean of the model's own token
    probabilities, in [0, 1].
    """

    text: str
    is_final: bool
    start: float
    end: float
    utterance: int
    revision: int = 1
    confidence: float = 1.0
    language: str = "en"
    speaker_id: str = "caller"
    stable: str = ""
    words: tuple[Word, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not self.text.startswith(self.stable):
            raise ValueError(f"stable {self.stable!r} is not a prefix of {self.text!r}")
        if self.end < self.start:
            raise ValueError(f"a transcript ends ({self.end}) before it starts ({self.start})")
