"""The dialogue machine: a table is checked when it is made, and walked by pure steps."""

from typing import Any

import attrs
import pytest

from voice_agent.agent.dialogue import (
    ANY,
    FAILURE,
    HANGUP,
    SAME,
    SILENCE,
    STAGE_TIME_UP,
    TALK_TIME_UP,
    UNCLEAR,
    Row,
    Stage,
    Table,
)
from voice_agent.agent.dialogue_errors import DialogueTableError, IllegalStepError


@attrs.frozen
class Facts:
    name: str | None = None
    size: int | None = None


STAGES = (
    Stage(name="ask", limit_seconds=30, question="ask size", requires=("size",)),
    Stage(name="confirm", limit_seconds=20, question="ask yes"),
    Stage(name="done", is_final=True),
)
ROWS = (
    Row(stages="ask", events="told, yes, no", to=SAME, do=("question",), when=("not complete",)),
    Row(stages="ask", events="told, yes, no", to="confirm", do=("question",), when=("complete",)),
    Row(stages="confirm", events="yes", to="done", do=("thank",), when=("small",)),
    Row(
        stages="confirm",
        events="yes",
        to="ask",
        do=("too many", "question"),
        when=("not small",),
        sets={"size": None},
    ),
    Row(stages="confirm", events="no, told", to="ask", do=("question",)),
)
CONDITIONS = {"small": lambda state: (state.facts.size or 0) < 10}


def table(**changes: Any) -> Table[Facts]:
    """Make the table, with something else in it."""
    parts: dict[str, Any] = {
        "name": "test",
        "stages": STAGES,
        "events": ("told", "yes", "no"),
        "rows": ROWS,
        "facts": Facts,
        "limit_seconds": 100,
        "conditions": CONDITIONS,
    }
    return Table(**(parts | changes))


def test_a_talk_walks_the_table() -> None:
    """Stage, facts and actions follow the rows; the question of a stage is the one it names."""
    it = table()
    opened = it.start(0)
    assert opened.actions == ("ask size",)
    asked = it.step(opened.state, "told", 1, Facts(name="Asha"))
    assert (asked.state.stage, asked.actions) == ("ask", ("ask size",))
    known = it.step(asked.state, "told", 2, attrs.evolve(asked.state.facts, size=4))
    assert (known.state.stage, known.actions) == ("confirm", ("ask yes",))
    assert (known.state.entered_at, known.state.began_at) == (2, 0)
    done = it.step(known.state, "yes", 3)
    assert (done.state.stage, done.actions) == ("done", ("thank",))
    assert done.state.facts == Facts(name="Asha", size=4)
    assert it.is_over(done.state)
    assert it.due(done.state) is None


def test_a_step_changes_nothing_in_place() -> None:
    """A step can be tried and thrown away."""
    it = table()
    state = it.start(0).state
    assert it.step(state, "told", 1, Facts(size=3)) == it.step(state, "told", 1, Facts(size=3))
    assert state == it.start(0).state


def test_a_row_may_set_facts() -> None:
    """A backward step forgets what was wrong."""
    it = table()
    state = attrs.evolve(it.start(0, Facts(size=12)).state, stage="confirm")
    step = it.step(state, "yes", 1)
    assert (step.state.stage, step.state.facts.size, step.actions) == ("ask", None, ("too many", "ask size"))


def test_steps_in_vain_are_counted() -> None:
    """Twice the question again, then the standard rows give up; what teaches something begins anew."""
    it = table()
    state = it.start(0).state
    for tries in (1, 2):
        step = it.step(state, UNCLEAR, tries)
        assert (step.actions, step.state.tries) == (("ask size",), tries)
        state = step.state
    learnt = it.step(state, "told", 3, Facts(name="Asha")).state
    assert learnt.tries == 0
    assert it.is_over(it.step(state, UNCLEAR, 3).state)


@pytest.mark.parametrize("event", [SILENCE, FAILURE, UNCLEAR])
def test_what_every_dialogue_meets_has_standard_rows(event: str) -> None:
    """A table needs no rows for silence, failures and unclear words."""
    it = table()
    assert it.step(it.start(0).state, event, 1).actions == ("ask size",)


@pytest.mark.parametrize("event", [HANGUP, STAGE_TIME_UP, TALK_TIME_UP])
def test_standard_rows_end_a_dialogue(event: str) -> None:
    """Hang-up and time do."""
    it = table()
    assert it.is_over(it.step(it.start(0).state, event, 1).state)


def test_time_is_that_of_the_stage_or_of_the_whole_talk() -> None:
    """Whichever comes first; staying in a stage does not begin its time anew."""
    it = table(limit_seconds=45)
    state = it.start(5).state
    due = it.due(state)
    assert due is not None
    assert (due.at, due.event) == (35, STAGE_TIME_UP)
    assert it.due(it.step(state, UNCLEAR, 20).state) == due
    late = it.due(it.step(state, "told", 34, Facts(size=2)).state)
    assert late is not None
    assert (late.at, late.event) == (50, TALK_TIME_UP)


def test_a_step_after_the_end_is_illegal() -> None:
    """It raises, and says where."""
    it = table()
    over = it.step(it.start(0).state, HANGUP, 1).state
    with pytest.raises(IllegalStepError, match="'yes' came after the dialogue ended"):
        it.step(over, "yes", 2)


def test_an_undeclared_event_is_illegal() -> None:
    """A misspelt event is a defect, not silence."""
    it = table()
    with pytest.raises(IllegalStepError, match="'yess' is none of the dialogue's events"):
        it.step(it.start(0).state, "yess", 2)


WRONG = {
    "an unhandled event": (
        {"events": ("told", "yes", "no", "more")},
        "ask / more: no row for ()",
    ),
    "a gap between conditions": (
        {"rows": ROWS[1:]},
        "ask / told: no row for (not complete)",
    ),
    "two rows that compete": (
        {"rows": (*ROWS, Row(stages="confirm", events="no", to="done"))},
        "confirm / no: 2 rows for ()",
    ),
    "a stage out of reach": (
        {
            "stages": (*STAGES[:2], Stage(name="attic", limit_seconds=9), STAGES[2]),
            "rows": (*ROWS, Row(stages="attic", events="told, yes, no", to="done")),
        },
        "attic can't be reached",
    ),
    "a dead end": (
        {
            "rows": (
                *ROWS[:2],
                Row(
                    stages="confirm",
                    events="yes, no, told, unclear, silence, failure",
                    to=SAME,
                    when=("small",),
                ),
                Row(
                    stages="confirm",
                    events="yes, no, told, unclear, silence, failure",
                    to=SAME,
                    when=("not small",),
                ),
            )
        },
        "confirm is a dead end",
    ),
    "time that goes in a circle": (
        {
            "rows": (
                *ROWS,
                Row(stages="ask", events=STAGE_TIME_UP, to="confirm", waives=True),
                Row(stages="confirm", events=STAGE_TIME_UP, to="ask"),
            )
        },
        "ask: time alone leads back to it",
    ),
    "a stage left without its facts": (
        {"rows": (Row(stages="ask", events="told, yes, no", to="confirm"), *ROWS[2:])},
        "ask / told: goes to confirm without size",
    ),
    "an unknown stage": (
        {"rows": (*ROWS, Row(stages="cellar", events="yes", to=SAME))},
        "cellar / yes: no stage 'cellar'",
    ),
    "an unknown target": (
        {"rows": (*ROWS, Row(stages=ANY, events="yes", to="cellar"))},
        "* / yes: no stage 'cellar'",
    ),
    "an unknown event": (
        {"rows": (*ROWS, Row(stages="ask", events="yep", to=SAME))},
        "ask / yep: no event 'yep'",
    ),
    "an unknown condition": (
        {"rows": (*ROWS, Row(stages="ask", events="yes", to=SAME, when=("not tall",)))},
        "ask / yes: no condition 'tall'",
    ),
    "an unknown fact": (
        {"rows": (*ROWS, Row(stages="ask", events="yes", to=SAME, sets={"colour": 1}))},
        "ask / yes: no fact 'colour'",
    ),
    "an unknown required fact": (
        {"stages": (attrs.evolve(STAGES[0], requires=("colour",)), *STAGES[1:])},
        "ask: requires no known fact",
    ),
    "a condition that nothing asks for": (
        {"conditions": CONDITIONS | {"tall": lambda _: True}},
        "no row asks for the condition 'tall'",
    ),
    "a stage without a limit": (
        {"stages": (attrs.evolve(STAGES[0], limit_seconds=0), *STAGES[1:])},
        "ask: needs a limit",
    ),
    "no final stage": ({"stages": STAGES[:2]}, "there must be a stage to start in and a final one"),
    "two stages of one name": ({"stages": (*STAGES, STAGES[0])}, "two stages have one name"),
}


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_table_that_breaks_a_rule_is_refused(changes: dict[str, Any], words: str) -> None:
    """When it is made, with the place named."""
    with pytest.raises(DialogueTableError) as refused:
        table(**changes)
    assert words in refused.value.message


def test_own_rows_win() -> None:
    """A stage's rows win over those of any stage, and those over the standard ones; whole, for the event."""
    it = table(
        rows=(
            *ROWS,
            Row(stages=ANY, events=SILENCE, to=SAME, do=("hello?",)),
            Row(stages="confirm", events=SILENCE, to="done", do=("bye",)),
        )
    )
    state = it.start(0).state
    assert it.step(state, SILENCE, 1).actions == ("hello?",)
    assert it.step(attrs.evolve(state, stage="confirm"), SILENCE, 1).actions == ("bye",)
    assert it.actions == {"ask size", "ask yes", "thank", "too many", "hello?", "bye"}
