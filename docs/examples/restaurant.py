"""A restaurant's telephone: a table for how many, and when."""

from datetime import date, datetime

import attrs

from voice_agent.agent.dialogue import SAME, Row, Stage, State, Table
from voice_agent.agent.table_agent import TableAgent, Understood
from voice_agent.agent.understanding.answers import Answer, read_answer
from voice_agent.agent.understanding.dates import read_day
from voice_agent.agent.understanding.numbers import read_number


@attrs.frozen
class Booking:
    """What has to be known."""

    guests: int | None = None
    day: date | None = None


TABLE = Table(
    name="restaurant", facts=Booking, limit_seconds=300, events=("told", "yes", "no"),
    stages=(
        Stage(name="guests", limit_seconds=60, question="ask guests", requires=("guests",)),
        Stage(name="day", limit_seconds=60, question="ask day", requires=("day",)),
        Stage(name="confirm", limit_seconds=60, question="ask yes"),
        Stage(name="done", is_final=True),
    ),
    rows=(
        Row(stages="guests", events="told, yes, no", to="day", do=("question",), when=("complete",)),
        Row(stages="day", events="told, yes, no", to="confirm", do=("question",), when=("complete",)),
        Row(stages="guests, day", events="told, yes, no", to=SAME, do=("question",), when=("not complete",)),
        Row(stages="confirm", events="yes, told", to="done", do=("thank",)),
        Row(stages="confirm", events="no", to="guests", do=("question",), sets={"guests": None, "day": None}),
    ),
)  # fmt: skip
SENTENCES = {
    "ask guests": "For how many?",
    "ask day": "On which day?",
    "ask yes": "A table for {guests} on {day}. Is that right?",
    "thank": "I have written that down here. Goodbye.",
}


def understand(text: str, state: State[Booking]) -> Understood[Booking]:
    """Yes and no count where something is to be confirmed; elsewhere a number is guests, and a day a day."""
    if state.stage == "confirm":
        return Understood({Answer.YES: "yes", Answer.NO: "no"}.get(read_answer(text), "unclear"), state.facts)
    today = datetime.now().astimezone().date()
    told = {"guests": read_number(text)} if state.stage == "guests" else {"day": read_day(text, today)}
    facts = attrs.evolve(state.facts, **{name: value for name, value in told.items() if value is not None})
    return Understood("told" if facts != state.facts else "unclear", facts)


def make_agent() -> TableAgent[Booking]:
    """What ``agent.factory = "restaurant:make_agent"`` names."""
    return TableAgent(TABLE, understand=understand, acts=SENTENCES)
