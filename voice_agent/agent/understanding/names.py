"""Names out of a list that is known beforehand, such as lenders and cities, also where a recogniser misheard them."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from voice_agent.agent.understanding.words import spoken, words_of

ALIKE: Final = 0.8
"""How alike letters must be to count as the same name (``difflib``'s ratio): "mutoot" is "Muthoot", "bank" is no "Punk"."""
_SHORTEST: Final = 4
"""Letters of a name that may be misheard; shorter ones must be heard exactly."""


def read_name(text: str, names: Iterable[str]) -> str | None:
    """Return the one name of the list that was said; None where none was, or two that are equally likely.

    A name said exactly wins over one that was said nearly.
    """
    words = spoken(words_of(text))
    scores = {name: _score(words, spoken(words_of(name))) for name in names}
    best = max(scores.values(), default=0.0)
    if best < ALIKE:
        return None
    likely = [name for name, score in scores.items() if score == best]
    return likely[0] if len(likely) == 1 else None


def _score(words: Sequence[str], name: Sequence[str]) -> float:
    """Return 0 to 1 for how well the best run of words fits; an exact longer name beats a shorter one inside it."""
    wanted = "".join(name)
    best = 0.0
    for run in _runs(words, len(name)):
        if run == wanted:
            return 1 + len(wanted) / 1000
        if len(wanted) >= _SHORTEST:
            best = max(best, difflib.SequenceMatcher(None, run, wanted, autojunk=False).ratio())
    return min(best, 1.0)


def _runs(words: Sequence[str], length: int) -> Iterator[str]:
    """Every run of about so many words, run together: recognisers cut names in two, and glue them."""
    for size in range(max(1, length - 1), length + 2):
        for at in range(len(words) - size + 1):
            yield "".join(words[at : at + size])
