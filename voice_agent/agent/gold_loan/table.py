"""The one table of the gold-loan dialogue. What each action says and does stands in ``acts.py`` and ``phrases.py``."""

from typing import Any, Final

from voice_agent.agent.customer import LENDER_NOT_TOLD, NO_LENDER, Profile
from voice_agent.agent.dialogue import (
    ANY,
    FAILURE,
    HANGUP,
    SAME,
    SILENCE,
    STAGE_TIME_UP,
    TALK_TIME_UP,
    UNCLEAR,
    Condition,
    Row,
    State,
    Table,
)
from voice_agent.agent.gold_loan.stages import FACTS, INTENTS, STAGES
from voice_agent.core.units import MINUTES

_TELLING: Final = "facts, loan inquiry, eligibility, switch lender, repeat, unclear"
"""Events that, while a stage gathers facts, mean no more than what was told with them."""
_UNRECORDED: Final = {"consent": False}
_NOT_TOLD: Final = {"lender": LENDER_NOT_TOLD}


def _gold_known(state: State[Any]) -> bool:
    return state.facts.grams is not None and state.facts.karat is not None


def _visit_known(state: State[Any]) -> bool:
    return state.facts.visit_day is not None


_CONDITIONS: Final[dict[str, Condition]] = {"gold known": _gold_known, "visit known": _visit_known}

_GREETING: Final = (
    Row(
        stages="greeting",
        events="affirmative",
        to="discovery",
        do=("thank", "question"),
        sets={"consent": True},
    ),
    Row(
        stages="greeting",
        events="negative",
        to="discovery",
        do=("go on unrecorded", "question"),
        sets=_UNRECORDED,
    ),
    Row(
        stages="greeting",
        events=f"{_TELLING}, interest rate, objection, schedule visit, documentation, greeting",
        to=SAME,
        do=("consent first",),
        when=("not tried",),
    ),
    # Who does not answer is not recorded.
    Row(
        stages="greeting",
        events=f"{_TELLING}, interest rate, objection, schedule visit, documentation, greeting",
        to="discovery",
        do=("go on unrecorded", "question"),
        when=("tried",),
        sets=_UNRECORDED,
    ),
    Row(
        stages="greeting",
        events=STAGE_TIME_UP,
        to="discovery",
        do=("go on unrecorded", "question"),
        sets=_UNRECORDED,
    ),
)

_DISCOVERY: Final = (
    Row(
        stages="discovery",
        events=f"{_TELLING}, affirmative",
        to=SAME,
        do=("question",),
        when=("not complete", "not tried"),
    ),
    Row(
        stages="discovery",
        events=f"{_TELLING}, affirmative",
        to="qualification",
        do=("question",),
        when=("not complete", "tried", "not gold known"),
        sets=_NOT_TOLD,
    ),
    Row(
        stages="discovery",
        events=f"{_TELLING}, affirmative",
        to="presentation",
        do=("present", "question"),
        when=("not complete", "tried", "gold known"),
        sets=_NOT_TOLD,
    ),
    Row(
        stages="discovery",
        events=f"{_TELLING}, affirmative",
        to="qualification",
        do=("question",),
        when=("complete", "not gold known"),
    ),
    Row(
        stages="discovery",
        events=f"{_TELLING}, affirmative",
        to="presentation",
        do=("present", "question"),
        when=("complete", "gold known"),
    ),
    Row(
        stages="discovery",
        events="negative",
        to="qualification",
        do=("question",),
        when=("not gold known",),
        sets={"lender": NO_LENDER},
    ),
    Row(
        stages="discovery",
        events="negative",
        to="presentation",
        do=("present", "question"),
        when=("gold known",),
        sets={"lender": NO_LENDER},
    ),
    Row(stages="discovery", events=STAGE_TIME_UP, to="qualification", do=("question",), sets=_NOT_TOLD),
)

_QUALIFICATION: Final = (
    Row(
        stages="qualification",
        events=f"{_TELLING}, affirmative",
        to="presentation",
        do=("present", "question"),
        when=("complete",),
    ),
    Row(
        stages="qualification",
        events=f"{_TELLING}, affirmative",
        to=SAME,
        do=("question",),
        when=("not complete", "not tried"),
    ),
    # Who doesn't know weight or purity has it weighed and tested for nothing.
    Row(
        stages="qualification",
        events=f"{_TELLING}, affirmative",
        to="closing",
        do=("offer weighing", "question"),
        when=("not complete", "tried"),
        waives=True,
    ),
    Row(
        stages="qualification",
        events="negative",
        to=SAME,
        do=("question",),
        when=("complete",),
        sets={"grams": None, "karat": None},
    ),
    Row(
        stages="qualification",
        events="negative",
        to=SAME,
        do=("question",),
        when=("not complete", "not tried"),
    ),
    Row(
        stages="qualification",
        events="negative",
        to="closing",
        do=("offer weighing", "question"),
        when=("not complete", "tried"),
        waives=True,
    ),
    Row(
        stages="qualification",
        events=STAGE_TIME_UP,
        to="closing",
        do=("offer weighing", "question"),
        waives=True,
    ),
)

_PRESENTATION: Final = (
    Row(stages="presentation", events="affirmative", to="closing", do=("question",)),
    Row(
        stages="presentation",
        events="negative, objection",
        to="objection",
        do=("answer objection", "question"),
    ),
    Row(
        stages="presentation, objection",
        events="facts, loan inquiry, repeat",
        to="presentation",
        do=("present", "question"),
        when=("gold known",),
    ),
    Row(
        stages="presentation, objection",
        events="facts, loan inquiry, repeat",
        to="qualification",
        do=("question",),
        when=("not gold known",),
    ),
    Row(
        stages="presentation, objection",
        events="eligibility",
        to="qualification",
        do=("check gold",),
    ),
    Row(
        stages="presentation",
        events="switch lender",
        to=SAME,
        do=("explain saving", "question"),
        counts=False,
    ),
    Row(
        stages="presentation, objection",
        events="unclear",
        to=SAME,
        do=("not understood", "question"),
        when=("not tried",),
    ),
    Row(stages="presentation, objection", events="unclear", to="closing", do=("question",), when=("tried",)),
    Row(stages="presentation, objection", events=STAGE_TIME_UP, to="closing", do=("question",)),
)

_OBJECTION: Final = (
    Row(stages="objection", events="affirmative", to="closing", do=("question",)),
    Row(
        stages="objection",
        events="negative, objection",
        to=SAME,
        do=("answer objection", "question"),
        when=("not tried",),
    ),
    Row(stages="objection", events="negative, objection", to="farewell", do=("respect no",), when=("tried",)),
    Row(
        stages="objection",
        events="switch lender",
        to="discovery",
        do=("question",),
        sets={"lender": None, "lender_rate_percent": None},
    ),
)

_CLOSING: Final = (
    # A day is repeated before anything is sent: "next Tuesday" means different days to different people.
    Row(
        stages="closing",
        events="affirmative",
        to="farewell",
        do=("book visit", "goodbye"),
        when=("visit known",),
    ),
    Row(stages="closing", events="facts, schedule visit", to=SAME, do=("question",), when=("visit known",)),
    Row(
        stages="closing",
        events="facts, affirmative, schedule visit",
        to=SAME,
        do=("ask day",),
        when=("not visit known", "not tried"),
    ),
    Row(
        stages="closing",
        events="facts, affirmative, schedule visit",
        to="farewell",
        do=("leave open", "goodbye"),
        when=("not visit known", "tried"),
    ),
    Row(
        stages="closing",
        events="negative",
        to=SAME,
        do=("ask day",),
        when=("visit known",),
        sets={"visit_day": None},
    ),
    Row(
        stages="closing",
        events="negative",
        to="farewell",
        do=("leave open", "goodbye"),
        when=("not visit known",),
    ),
    Row(stages="closing", events="objection", to="objection", do=("answer objection", "question")),
    Row(
        stages="closing",
        events="loan inquiry, eligibility",
        to="presentation",
        do=("present", "question"),
        when=("gold known",),
    ),
    Row(
        stages="closing",
        events="loan inquiry, eligibility",
        to="qualification",
        do=("question",),
        when=("not gold known",),
    ),
    Row(stages="closing", events="switch lender", to=SAME, do=("explain saving", "question"), counts=False),
    Row(
        stages="closing",
        events="unclear, repeat",
        to=SAME,
        do=("not understood", "question"),
        when=("not tried",),
    ),
    Row(
        stages="closing",
        events="unclear, repeat",
        to="farewell",
        do=("leave open", "goodbye"),
        when=("tried",),
    ),
    Row(stages="closing", events=STAGE_TIME_UP, to="farewell", do=("leave open", "goodbye")),
)

_EVERYWHERE: Final = (
    Row(stages=ANY, events="interest rate", to=SAME, do=("explain rate", "question"), counts=False),
    Row(stages=ANY, events="documentation", to=SAME, do=("explain documents", "question"), counts=False),
    Row(stages=ANY, events="greeting", to=SAME, do=("greet again", "question")),
    Row(
        stages=ANY,
        events="schedule visit",
        to="closing",
        do=("question",),
        when=("visit known",),
        waives=True,
    ),
    Row(
        stages=ANY,
        events="schedule visit",
        to="closing",
        do=("ask day",),
        when=("not visit known",),
        waives=True,
    ),
    Row(stages=ANY, events="objection", to="objection", do=("answer objection", "question"), waives=True),
    Row(stages=ANY, events="person", to="closing", do=("hand over", "question"), waives=True),
    Row(stages=ANY, events="farewell", to="farewell", do=("goodbye",), waives=True),
    Row(stages=ANY, events=SILENCE, to=SAME, do=("reprompt", "question"), when=("not tried",)),
    Row(stages=ANY, events=SILENCE, to="farewell", do=("goodbye",), when=("tried",), waives=True),
    Row(stages=ANY, events=FAILURE, to=SAME, do=("apologise", "question"), when=("not tried",)),
    Row(stages=ANY, events=FAILURE, to="farewell", do=("apologise", "goodbye"), when=("tried",), waives=True),
    Row(stages=ANY, events=TALK_TIME_UP, to="farewell", do=("time is over", "goodbye"), waives=True),
    Row(stages=ANY, events=HANGUP, to="ended", waives=True),
    # Goodbye was said: whatever comes now is the end.
    Row(
        stages="farewell",
        events=", ".join((*INTENTS, FACTS, UNCLEAR, SILENCE, FAILURE, STAGE_TIME_UP, TALK_TIME_UP)),
        to="ended",
    ),
)

TABLE: Final = Table(
    name="gold_loan",
    stages=STAGES,
    events=(*INTENTS, FACTS),
    rows=(
        *_GREETING,
        *_DISCOVERY,
        *_QUALIFICATION,
        *_PRESENTATION,
        *_OBJECTION,
        *_CLOSING,
        *_EVERYWHERE,
    ),
    facts=Profile,
    limit_seconds=15 * MINUTES,
    opening=("disclose", "question"),
    conditions=_CONDITIONS,
)
