"""Spoken context at its limits: what just fits, and speech without a gap."""

import numpy as np

from voice_agent.speech.context import Spoken, SpokenContext

SECOND = 16_000


def piece(samples: int) -> np.ndarray:
    return np.full(samples, 0.5, np.float32)


def test_what_fits_exactly_is_kept_and_used() -> None:
    """Eight seconds remembered are eight seconds; with one second new, seven of them."""
    context = SpokenContext(8)
    context.add(Spoken(0, piece(8 * SECOND), (1,)))
    assert len(context._spoken) == 1
    context.add(Spoken(8 * SECOND, piece(7 * SECOND), (2,)))
    assert context.before(15 * SECOND, piece(SECOND))[1] == (2,)
    assert context.before(15 * SECOND, piece(SECOND + 1))[1] == ()


def test_speech_without_a_gap_stands_without_a_gap() -> None:
    """An utterance that was cut goes on where it was: no sample is put between, and none is left out."""
    context = SpokenContext(8)
    context.add(Spoken(0, piece(SECOND), (1,)))
    audio, tokens = context.before(SECOND, piece(SECOND))
    assert tokens == (1,)
    assert audio.shape == (2 * SECOND,)
    assert audio.all()


def test_overlapping_speech_is_put_side_by_side() -> None:
    """The settled tail of an utterance may reach into the pre-roll of the next: that is no gap, and no error."""
    context = SpokenContext(8)
    context.add(Spoken(0, piece(SECOND), (1,)))
    audio, tokens = context.before(SECOND - 512, piece(SECOND))
    assert (len(audio), tokens) == (2 * SECOND, (1,))
