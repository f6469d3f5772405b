"""What a turn needs of text-to-speech: one small protocol, asynchronous, with sound that comes in pieces.

An implementation never works on the Trio thread. Text is what is to be heard: figures, money and dates are written out
before it comes here.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import IntEnum
from typing import Protocol

import attrs
import numpy as np
import numpy.typing as npt

MonoAudio = npt.NDArray[np.float32]


class VoiceUrgency(IntEnum):
    """What is synthesised first; lower goes first."""

    SPOKEN = 0
    """A caller waits for it."""
    SPECULATIVE = 1
    """It will be said if the caller says no more."""
    AHEAD = 2
    """Nobody waits: a phrase is made before it is needed."""


@attrs.frozen(kw_only=True)
class Sentence:
    """What is to be said in one go."""

    text: str
    urgency: VoiceUrgency = VoiceUrgency.SPOKEN


class Voice(Protocol):
    """Text to speech for many calls at once."""

    @property
    def sample_rate(self) -> int:
        """Hz of what :meth:`speaking` gives; one channel."""
        ...

    def speaking(self, sentence: Sentence) -> AbstractAsyncContextManager[AsyncIterator[MonoAudio]]:
        """Synthesise; inside the block the sound comes in order, as float32 pieces of shape (n,), n at least 1.

        Leaving the block early, or cancelling it, stops the synthesis as soon as it looks up. A sentence without
        anything that can be said has no pieces.

        Raises:
            SynthesisFailedError: it could not be made, or not all of it; pieces that came before are sound.
        """
        ...
