"""What the session needs from speech models: two small protocols, both asynchronous.

An implementation never works on the Trio thread; the shipped fakes (``scripted.py``) use no thread at all, so that
they run under virtual time.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final, Protocol

import attrs
import numpy as np
import numpy.typing as npt

HEARING_RATE: Final = 16_000
"""Hz; both models hear 16 kHz mono float32."""

VAD_WINDOW: Final = 512
"""Samples of one voice-activity decision: 32 ms at 16 kHz."""

MonoAudio = npt.NDArray[np.float32]


class Urgency(IntEnum):
    """What is recognised first; lower goes first."""

    FINAL = 0
    SPECULATIVE = 1
    """A pause has begun: this will be the final if the caller says no more."""
    PARTIAL = 2
    PROBE = 3
    """Nobody's speech: a look whether the engine answers. It gives way to everything."""


def _unwatched() -> None:
    """Nobody wants to know when."""


@attrs.frozen(kw_only=True, eq=False)
class RecognitionRequest:
    """One piece of speech to recognise.

    ``samples`` are 16 kHz mono float32 of shape (n,). ``utterance_key`` names the utterance across calls: a newer
    partial of the same key replaces one that still waits. ``prefix_tokens`` are tokens that the result must begin
    with (what was already told as stable).

    A short utterance is understood better with what was said before it: ``samples`` may begin with earlier speech,
    and ``context_tokens`` are then what was recognised there. They guide the model and are not in the result.
    ``context_samples`` is the length of that first part, silence included.
    """

    samples: MonoAudio
    urgency: Urgency
    utterance_key: tuple[str, int]
    prefix_tokens: tuple[int, ...] = ()
    context_tokens: tuple[int, ...] = ()
    context_samples: int = 0
    on_taken: Callable[[], None] = _unwatched
    """Called on the Trio thread when a worker takes the request up."""


@attrs.frozen(kw_only=True)
class Recognition:
    """What the model made of it.

    ``tokens`` and ``token_probabilities`` run in step; ``word_ends`` holds, for each word of ``text``, the number of
    tokens up to and with that word. ``text`` is stripped. ``is_looping`` tells that the decoder began to repeat
    itself and was cut.
    """

    text: str
    tokens: tuple[int, ...] = ()
    token_probabilities: tuple[float, ...] = ()
    word_ends: tuple[int, ...] = ()
    confidence: float = 0.0
    is_looping: bool = False


class Engine(Protocol):
    """Speech to text for many calls at once."""

    async def recognise(self, request: RecognitionRequest) -> Recognition | None:
        """Recognise; ``None`` when a newer partial of the same utterance took this one's place.

        Cancelling the caller abandons the work: it is not begun, or stops at the next decoder step.

        Raises:
            RecognitionFailedError: the model raised.
        """
        ...


class VoiceActivityStream(Protocol):
    """Voice activity of one call; holds that call's state."""

    async def probabilities(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the speech probability of each window: shape (k, 512) gives shape (k,)."""
        ...

    def reset(self) -> None:
        """Forget what was heard: the audio is not continuous here."""
        ...


class VoiceActivity(Protocol):
    """Voice activity for many calls."""

    def open_stream(self) -> VoiceActivityStream:
        """Return a new call's stream."""
        ...
