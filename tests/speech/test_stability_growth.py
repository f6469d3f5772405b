"""How far a stable prefix grows: to the last word that both hypotheses hold whole, in tokens and in text alike."""

from voice_agent.speech.engine import Recognition
from voice_agent.speech.stability import StablePrefix


def hypothesis_of(*words: tuple[str, tuple[int, ...]]) -> Recognition:
    """Words with the tokens that each is made of."""
    tokens: tuple[int, ...] = ()
    ends: list[int] = []
    for _, pieces in words:
        tokens += pieces
        ends.append(len(tokens))
    return Recognition(
        text=" ".join(word for word, _ in words), tokens=tokens, word_ends=tuple(ends), confidence=0.9
    )


IT, WAS, THE = ("it", (1,)), ("was", (2, 3)), ("the", (4, 5, 6))
BEST, REST, OF, TIMES = ("best", (7, 8)), ("rest", (9, 8)), ("of", (10,)), ("times", (11,))


def test_agreement_to_the_end_of_a_word_includes_it() -> None:
    """Both say "it was the", then differ: all three words are stable, and so are exactly their tokens."""
    prefix = StablePrefix()
    prefix.push(hypothesis_of(IT, WAS, THE, BEST, OF))
    assert prefix.push(hypothesis_of(IT, WAS, THE, REST, OF)) == "it was the"
    assert prefix.tokens == (1, 2, 3, 4, 5, 6)


def test_a_prefix_grows_word_by_word() -> None:
    """Each hypothesis that agrees on one word more makes that word stable."""
    prefix = StablePrefix()
    told = [
        prefix.push(hypothesis_of(*words))
        for words in (
            (IT, WAS, THE),
            (IT, WAS, THE),
            (IT, WAS, THE, BEST),
            (IT, WAS, THE, BEST, OF),
        )
    ]
    assert told == ["", "it", "it was", "it was the"]


def test_half_a_word_is_not_stable() -> None:
    """A word whose first token alone agrees is left out, with all its tokens."""
    prefix = StablePrefix()
    prefix.push(hypothesis_of(IT, WAS, BEST, OF, TIMES))
    assert prefix.push(hypothesis_of(IT, ("want", (2, 20)), BEST, OF, TIMES)) == "it"
    assert prefix.tokens == (1,)


def test_a_prefix_of_the_same_length_does_not_take_its_place() -> None:
    """What was told stays told, also where an engine does not begin with it as it was asked to."""
    prefix = StablePrefix()
    for _ in range(2):
        prefix.push(hypothesis_of(IT, WAS, OF, TIMES))
    assert (prefix.text, prefix.tokens) == ("it was", (1, 2, 3))
    for _ in range(2):
        assert prefix.push(hypothesis_of(TIMES, BEST, OF, IT)) == "it was"
    assert prefix.tokens == (1, 2, 3)
