"""What a caller of the gold-loan line meant: the event of the table, and the profile as it is known afterwards."""

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Any, Final

import attrs

from voice_agent.agent.customer import NO_LENDER, Profile
from voice_agent.agent.dialogue import UNCLEAR, State
from voice_agent.agent.gold_loan.lexicon import LENDER_KINDS, LEXICON, NO_LENDER_PHRASES
from voice_agent.agent.gold_loan.stages import FACTS
from voice_agent.agent.gold_purity import FINENESS
from voice_agent.agent.table_agent import Understood
from voice_agent.agent.understanding.answers import Answer, read_answer
from voice_agent.agent.understanding.dates import read_day
from voice_agent.agent.understanding.names import read_name
from voice_agent.agent.understanding.quantities import Quantities, read_quantities
from voice_agent.agent.understanding.quantity_words import MAX_GRAMS
from voice_agent.agent.understanding.telephone import read_telephone
from voice_agent.agent.understanding.words import spoken, words_of

_WISH_FROM: Final = 1000
"""A number without a unit from here on is money, where a loan's size could be meant."""
_WEAK: Final = frozenset(("greeting",))
"""Intents that step back behind anything else that was said."""


def understand(
    text: str,
    state: State[Profile],
    *,
    lenders: Mapping[str, Decimal],
    cities: Mapping[str, str],
    today: date,
) -> Understood[Profile]:
    """Return what was meant in the stage at hand.

    Where consent is asked, yes or no comes first. Elsewhere: what is wanted, then what was told, then yes and no; two wants
    of the same strength are no want, and the table asks again.
    """
    facts = _told(text, state, lenders=lenders, cities=cities, today=today)
    return Understood(_event(text, state, is_new=facts != state.facts), facts)


def _event(text: str, state: State[Profile], *, is_new: bool) -> str:
    intent, answer = LEXICON.best(text), read_answer(text)
    answered = {Answer.YES: "affirmative", Answer.NO: "negative"}.get(answer) if answer else None
    if state.stage == "greeting" and answered and intent not in {"farewell", "person", "repeat"}:
        return answered
    if (
        state.stage == "discovery"
        and state.facts.lender is None
        and is_new
        and intent in {None, "loan inquiry"}
    ):
        return FACTS
    if intent is not None and intent not in _WEAK:
        return intent
    if is_new:
        return FACTS
    return answered or intent or UNCLEAR


def _told(
    text: str,
    state: State[Profile],
    *,
    lenders: Mapping[str, Decimal],
    cities: Mapping[str, str],
    today: date,
) -> Profile:
    """Return the profile with what was told; what was said before and is said otherwise now is replaced."""
    known = state.facts
    said = read_quantities(text)
    # A telephone number is digits that mean nothing else.
    telephone = read_telephone(text)
    new: dict[str, Any] = {
        "grams": said.grams,
        "karat": said.karat,
        "wished_rupees": said.rupees,
        "lender": _lender(text, state, lenders),
        "lender_rate_percent": said.rate_percent if _is_with_lender(state) else None,
        "telephone": telephone,
        "city": read_name(text, cities),
        "visit_day": read_day(text, today) if _is_about_a_visit(text, state) else None,
    }
    if telephone is None and said.bare is not None:
        new |= _bare(said, state)
    return attrs.evolve(known, **{name: value for name, value in new.items() if value is not None})


def _bare(said: Quantities, state: State[Profile]) -> dict[str, Any]:
    """Say what a number without a unit means: what was asked for, if it can be that."""
    number = said.bare
    known = state.facts
    if number is None or state.stage != "qualification":
        return {}
    grams = said.grams if said.grams is not None else known.grams
    karat = said.karat if said.karat is not None else known.karat
    if grams is None and 0 < number <= MAX_GRAMS and number < _WISH_FROM:
        return {"grams": number}
    if karat is None and number in FINENESS:
        return {"karat": int(number)}
    return {"wished_rupees": number} if number >= _WISH_FROM and grams is not None else {}


def _is_about_a_visit(text: str, state: State[Profile]) -> bool:
    """Whether a day that is said is that of a visit: early in a talk only where a visit is spoken of."""
    return state.stage in {"presentation", "objection", "closing"} or LEXICON.best(text) == "schedule visit"


def _is_with_lender(state: State[Profile]) -> bool:
    return state.stage in {"discovery", "qualification", "presentation", "objection"}


def _lender(text: str, state: State[Profile], lenders: Mapping[str, Decimal]) -> str | None:
    """Return the lender that was named: one of the settings, a kind of lender, or nobody."""
    named = read_name(text, lenders)
    if named is not None:
        return named
    if state.stage != "discovery":
        return None
    if NO_LENDER_PHRASES.best(text):
        return NO_LENDER
    words = set(spoken(words_of(text)))
    kinds = [kind for kind, names in LENDER_KINDS.items() if words & set(names.split())]
    return kinds[0] if len(kinds) == 1 else None
