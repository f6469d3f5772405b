"""Yes and no, with the ways around them: "not really", "yeah no", "why not", "I guess so"."""

from collections.abc import Iterator
from enum import Enum
from typing import Final

from voice_agent.agent.understanding.words import spoken, words_of


class Answer(Enum):
    """What an utterance answers to a question that wants yes or no."""

    YES = "yes"
    NO = "no"
    UNSURE = "unsure"
    """Neither: a hedge alone. The dialogue asks again."""


_YES: Final = (
    "yes yeah yep yup ya yah sure okay ok alright fine right correct absolutely definitely certainly indeed exactly haan ha ji",
    "i don't mind|i do not mind|i wouldn't mind|would not mind|of course|all right|go ahead|why not|no problem|not a problem|no problems|no issue|no issues|don't mind|do not mind",
    "sounds good|sounds fine|that's right|that is right|that's correct|that is correct|that's fine|that works|works for me",
    "you may|you can|please do|i do|i would|i am|i agree|i have|we do|carry on|by all means|let's do it|do it|no objection|no objections",
)
_NO: Final = (
    "no nope nah never nahi nahin don't not",
    "not really|of course not|absolutely not|certainly not|definitely not|not at all|no way|no thanks|no thank you",
    "not interested|don't want|do not want|not now|not today|rather not|prefer not|please don't|do not|i don't|i do not",
    "don't think so|do not think so|not necessary|no need|that's wrong|that is wrong|not right|not correct|incorrect|wrong",
    "you may not|you can't|you cannot|i would not|i wouldn't|i'd rather not|i am not|i'm not|i have not|i haven't|don't have",
    "do not have|would not|haven't",
)
_UNSURE: Final = (
    "maybe perhaps possibly probably",
    "i don't know|i do not know|i don't really know|not sure|i guess|i guess so|i suppose|don't know|do not know|can't say|cannot say|hard to say|let me think|have to think",
    "need to think|will think|i'll think|depends|it depends|no idea",
)


def _phrases(lines: tuple[str, ...], answer: Answer) -> Iterator[tuple[tuple[str, ...], Answer]]:
    for line in lines:
        for phrase in line.split("|") if "|" in line else line.split():
            yield tuple(phrase.split()), answer


_MEANINGS: Final = dict(
    pair
    for lines, answer in ((_YES, Answer.YES), (_NO, Answer.NO), (_UNSURE, Answer.UNSURE))
    for pair in _phrases(lines, answer)
)
_LONGEST: Final = max(map(len, _MEANINGS))


def read_answer(text: str) -> Answer | None:
    """Return what was answered, or None where nothing was.

    Longer phrases win over the words in them ("not sure" is no "sure"). Of several answers the last one counts: "yeah, no" is a
    no and "no, yeah" a yes, as in speech. A hedge counts where nothing is said straight out, or where it comes last.
    """
    found = list(_found(spoken(words_of(text))))
    return found[-1] if found else None


def _found(words: tuple[str, ...]) -> Iterator[Answer]:
    at = 0
    while at < len(words):
        for length in range(min(_LONGEST, len(words) - at), 0, -1):
            answer = _MEANINGS.get(words[at : at + length])
            if answer is not None:
                yield answer
                at += length
                break
        else:
            at += 1
