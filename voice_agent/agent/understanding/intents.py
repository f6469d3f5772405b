"""What a caller wants, by phrases with weights: a rule that can be read, and its score."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from voice_agent.agent.understanding.words import spoken, words_of

MARGIN: Final = 0.5
"""By how much the best intent must lead the second; closer ones are not told apart, and the dialogue asks."""
MINIMUM: Final = 1.0

_GAP: Final = r"(?:\S+ ){0,3}?"


@attrs.frozen
class Scored:
    """An intent and the weights of the phrases that speak for it."""

    intent: str
    score: float


class IntentLexicon:
    """Phrases by intent. ``*`` in a phrase stands for up to three words: "how much * get"."""

    def __init__(self, phrases: Mapping[str, Iterable[tuple[str, float]]]) -> None:
        self._patterns = {
            intent: tuple((_compiled(phrase), weight) for phrase, weight in weighted)
            for intent, weighted in phrases.items()
        }

    @property
    def intents(self) -> frozenset[str]:
        """The intents that can be found."""
        return frozenset(self._patterns)

    def scores(self, text: str) -> tuple[Scored, ...]:
        """Return every intent that something speaks for, the best first."""
        said = " ".join((*spoken(words_of(text)), ""))
        found = (
            Scored(intent, sum(weight for pattern, weight in weighted if pattern.search(said)))
            for intent, weighted in self._patterns.items()
        )
        return tuple(sorted((one for one in found if one.score > 0), key=lambda one: -one.score))

    def best(self, text: str) -> str | None:
        """Return the intent that leads clearly; None where none does."""
        scored = self.scores(text)
        if not scored or scored[0].score < MINIMUM:
            return None
        if len(scored) > 1 and scored[0].score - scored[1].score < MARGIN:
            return None
        return scored[0].intent


def _compiled(phrase: str) -> re.Pattern[str]:
    parts = [_GAP if part == "*" else f"{re.escape(part)} " for part in phrase.split()]
    return re.compile(r"(?<!\S)" + "".join(parts))
