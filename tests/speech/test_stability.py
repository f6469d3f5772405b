"""The stable prefix: grows by agreement, never shrinks."""

from hypothesis import given
from hypothesis import strategies as st

from voice_agent.speech.engine import Recognition
from voice_agent.speech.stability import HELD_BACK_WORDS, StablePrefix


def hypothesis_of(*words: str) -> Recognition:
    """One token a word; the token is the word's hash."""
    return Recognition(
        text=" ".join(words),
        tokens=tuple(sum(map(ord, w)) for w in words),
        word_ends=tuple(range(1, len(words) + 1)),
        confidence=0.9,
    )


def test_one_hypothesis_is_never_stable() -> None:
    """Agreement takes two."""
    assert StablePrefix().push(hypothesis_of("it", "was", "the", "best")) == ""


def test_agreed_words_are_stable_but_for_the_newest() -> None:
    """The last two words rest on audio that is still arriving."""
    prefix = StablePrefix()
    prefix.push(hypothesis_of("it", "was", "the", "best"))
    assert prefix.push(hypothesis_of("it", "was", "the", "best", "of")) == "it was the"
    assert prefix.push(hypothesis_of("it", "was", "the", "rest", "of", "times")) == "it was the"


def test_growth_can_be_held() -> None:
    """Where the audio may still be cut away, nothing new is promised."""
    prefix = StablePrefix()
    prefix.push(hypothesis_of("a", "b", "c", "d"))
    assert prefix.push(hypothesis_of("a", "b", "c", "d"), may_grow=False) == ""


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=10))
def test_the_prefix_never_shrinks_and_always_fits(hypotheses: list[list[str]]) -> None:
    """When the engine honours the forced tokens, each stable prefix is a prefix of all that follow."""
    prefix = StablePrefix()
    last = ""
    forced: list[str] = []
    for words in hypotheses:
        honoured = forced + words[len(forced) :]
        stable = prefix.push(hypothesis_of(*honoured))
        assert stable.startswith(last)
        assert " ".join(honoured).startswith(stable)
        assert len(stable.split()) <= max(len(forced), len(honoured) - HELD_BACK_WORDS)
        last, forced = stable, stable.split()
