"""Shipped fakes of the speech models: no threads, no files, and under a mock clock no time.

For the tests of programs that use this package, and for trying the rest of it without models.
"""

from collections.abc import Callable, Sequence
from typing import Final

import attrs
import numpy as np
import numpy.typing as npt
import trio

from voice_agent.core.units import SECONDS
from voice_agent.speech.engine import HEARING_RATE, Recognition, RecognitionRequest, Urgency

SECONDS_PER_WORD: Final = 0.3 * SECONDS
SPEECH_PROBABILITY: Final = 0.95
SILENCE_PROBABILITY: Final = 0.02

Script = Sequence[str] | Callable[[RecognitionRequest], str]


@attrs.define(eq=False)
class ScriptedEngine:
    """An :class:`~voice_agent.speech.engine.Engine` that recognises what it was told to.

    ``script`` is a text for each utterance of a call, counted from 1 as sessions do (beyond the last, nothing is
    recognised), or is asked for the full text of each request and may raise. A partial gives as many words as fit
    its audio at ``seconds_per_word``. Each answer takes ``latency_seconds``, any number of them at once.

    ``requests`` collects what was asked, ``abandoned`` what was cancelled before the answer.
    """

    script: Script = ()
    latency_seconds: float = 0.0
    seconds_per_word: float = SECONDS_PER_WORD
    confidence: float = 0.9
    requests: list[RecognitionRequest] = attrs.field(factory=list, init=False)
    abandoned: list[RecognitionRequest] = attrs.field(factory=list, init=False)
    _tokens: dict[str, int] = attrs.field(factory=dict, init=False)

    async def recognise(self, request: RecognitionRequest) -> Recognition:
        """Answer from the script after the latency; each word is one token."""
        self.requests.append(request)
        request.on_taken()
        try:
            await trio.sleep(self.latency_seconds)
        except trio.Cancelled:
            self.abandoned.append(request)
            raise
        words = self._full_text(request).split()
        if request.urgency is Urgency.PARTIAL:
            seconds = len(request.samples) / HEARING_RATE
            words = words[: int(seconds / self.seconds_per_word)]
        tokens = tuple(self._tokens.setdefault(word, len(self._tokens)) for word in words)
        return Recognition(
            text=" ".join(words),
            tokens=tokens,
            token_probabilities=(self.confidence,) * len(tokens),
            word_ends=tuple(range(1, len(tokens) + 1)),
            confidence=self.confidence if tokens else 0.0,
        )

    def _full_text(self, request: RecognitionRequest) -> str:
        if callable(self.script):
            return self.script(request)
        place = request.utterance_key[1] - 1
        return self.script[place] if place < len(self.script) else ""


@attrs.frozen
class _ScriptedStream:
    threshold_rms: float

    async def probabilities(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        await trio.lowlevel.checkpoint()
        loudness = np.sqrt(np.mean(np.square(windows, dtype=np.float64), axis=1))
        return np.where(loudness > self.threshold_rms, SPEECH_PROBABILITY, SILENCE_PROBABILITY).astype(
            np.float32
        )

    def reset(self) -> None:
        """Nothing is remembered."""


@attrs.frozen
class ScriptedVoiceActivity:
    """Voice activity by loudness: a window is speech when its root mean square is above ``threshold_rms``."""

    threshold_rms: float = 0.01

    def open_stream(self) -> _ScriptedStream:
        """Return a new call's stream."""
        return _ScriptedStream(self.threshold_rms)
