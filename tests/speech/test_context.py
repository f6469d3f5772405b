"""Spoken context: what was said just before, in front of an utterance."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.speech.context import Spoken, SpokenContext


def piece(seconds: float, value: float = 0.5) -> np.ndarray:
    return np.full(int(seconds * 16_000), value, np.float32)


def test_nothing_said_nothing_added() -> None:
    """The first utterance of a call goes as it is."""
    samples = piece(1)
    assert SpokenContext(8).before(0, samples) == (samples, ())


def test_earlier_speech_stands_in_front_with_silence_in_the_gap() -> None:
    """One second said, half a second of silence, one second new: 2.5 s of audio, and the first second's tokens."""
    context = SpokenContext(8)
    context.add(Spoken(0, piece(1, 0.25), (7, 8)))
    audio, tokens = context.before(24_000, piece(1))
    assert tokens == (7, 8)
    assert len(audio) == 40_000
    assert audio[15_999] == 0.25
    assert not audio[16_000:24_000].any()
    assert audio[24_000] == 0.5


def test_a_long_silence_begins_something_new() -> None:
    """After more than a second and a half, what was said before says nothing about what comes."""
    context = SpokenContext(8)
    context.add(Spoken(0, piece(1), (7,)))
    assert context.before(16_000 + 24_001, piece(1))[1] == ()
    assert context.before(16_000 + 24_000, piece(1))[1] == (7,)


def test_a_share_reaches_less_far_back() -> None:
    """Half of the limit holds the nearer utterance only."""
    context = SpokenContext(8)
    context.add(Spoken(0, piece(2), (1,)))
    context.add(Spoken(32_000, piece(2), (2,)))
    assert context.before(64_000, piece(1))[1] == (1, 2)
    assert context.before(64_000, piece(1), share=0.6)[1] == (2,)


def test_no_context_when_none_is_wanted() -> None:
    """Zero seconds of context switch it off, and nothing is kept in memory."""
    context = SpokenContext(0)
    context.add(Spoken(0, piece(1), (7,)))
    assert context.before(16_000, piece(1))[1] == ()
    assert context._spoken == []


@given(st.lists(st.tuples(st.floats(0.1, 6), st.floats(0, 2)), max_size=12), st.floats(0.1, 12))
def test_audio_and_tokens_always_belong_together(said: list[tuple[float, float]], seconds: float) -> None:
    """Whatever was said when: within the limit, in order, contiguous, ending with the utterance itself."""
    context = SpokenContext(8)
    position = 0
    for number, (length, gap) in enumerate(said):
        spoken = Spoken(position, piece(length), (number,))
        context.add(spoken)
        position = spoken.end + int(gap * 16_000)
    samples = piece(seconds)
    audio, tokens = context.before(position, samples)
    assert len(audio) <= max(8 * 16_000, len(samples))
    assert list(tokens) == list(range(len(said)))[len(said) - len(tokens) :]
    np.testing.assert_array_equal(audio[len(audio) - len(samples) :], samples)
