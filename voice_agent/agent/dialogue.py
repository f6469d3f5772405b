"""The dialogue machine: one table says what follows on what, and one pure step walks it.

Rules. Everything that decides where a dialogue goes stands in its table, and the table is held to these when it is made:

1. For every stage that is not final and every declared event, exactly one row holds, whatever the conditions say: no event is
   unhandled, and no two rows compete.
2. Every stage can be reached, and from every stage a final one.
3. Time alone ends every dialogue: following only "time is up" from any stage leads to a final one, without a circle.
4. A stage is left forward (to one that stands later in the list) only when the facts that it requires are known, unless the row
   sets them, or says that it waives them.
5. A final stage takes no event: that step is illegal, and raises.

Rows for a stage win over rows for ``ANY`` stage, and those over the standard rows, which only know what every dialogue meets:
silence, unclear words, failures, time and hang-up. Conditions are pure; they read the state and nothing else.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from itertools import product
from typing import Any, Final, Generic, TypeVar

import attrs

from voice_agent.agent.dialogue_errors import DialogueTableError, IllegalStepError

FactsT = TypeVar("FactsT")

ANY: Final = "*"
"""Every stage that is not final."""
SAME: Final = "="
"""The stage that the dialogue is in."""
QUESTION: Final = "question"
"""The action that asks what the stage wants to know; each stage names its own."""

UNCLEAR: Final = "unclear"
SILENCE: Final = "silence"
FAILURE: Final = "failure"
STAGE_TIME_UP: Final = "stage time is up"
TALK_TIME_UP: Final = "talk time is up"
HANGUP: Final = "hang-up"
SYSTEM_EVENTS: Final = (UNCLEAR, SILENCE, FAILURE, STAGE_TIME_UP, TALK_TIME_UP, HANGUP)
"""What every dialogue meets; declared for each table."""
TIMERS: Final = (STAGE_TIME_UP, TALK_TIME_UP)

COMPLETE: Final = "complete"
"""The condition that all facts are known which the stage requires."""
TRIED: Final = "tried"
"""The condition that the stage has been asked in vain often enough."""
PATIENCE: Final = 2
"""Steps in vain, after which a stage counts as tried."""
NOT: Final = "not "


@attrs.frozen(kw_only=True)
class Stage:
    """One stage. ``question`` is the action that asks for what it wants; a final stage has neither question nor limit."""

    name: str
    limit_seconds: float = 0.0
    question: str = ""
    requires: tuple[str, ...] = ()
    """Facts that must be known before the dialogue goes forward."""
    is_final: bool = False
    is_parting: bool = False
    """Whether only goodbyes are left: the limit of the whole talk does not cut them off."""


@attrs.frozen(kw_only=True)
class Row:
    """One line of a table. ``stages`` and ``events`` are lists in one string, separated by commas."""

    stages: str
    events: str
    to: str
    do: tuple[str, ...] = ()
    """Actions, in order."""
    when: tuple[str, ...] = ()
    """Conditions that must all hold; "not " in front of one turns it round."""
    sets: Mapping[str, Any] = attrs.field(factory=dict)
    """Facts that the step itself sets."""
    waives: bool = False
    """Goes forward without the facts that the stage requires."""
    counts: bool = True
    """Whether staying counts as a step in vain; a question of the caller's on the side does not."""


@attrs.frozen(kw_only=True)
class State(Generic[FactsT]):
    """Where a dialogue is. Frozen: a step gives another one, so that a step can be tried and thrown away."""

    stage: str
    facts: FactsT
    began_at: float
    entered_at: float
    tries: int = 0
    """Steps in a row that stayed in the stage and taught nothing."""


@attrs.frozen
class Step(Generic[FactsT]):
    """What follows on an event: the state after it, and what to do, in order."""

    state: State[FactsT]
    actions: tuple[str, ...]


@attrs.frozen
class Due:
    """The time at which a dialogue wants to be told that time is up, and the event that says so."""

    at: float
    event: str


Condition = Callable[[State[Any]], bool]


@attrs.frozen(kw_only=True, cache_hash=False, eq=False)
class Table(Generic[FactsT]):
    """A dialogue as data. Making one checks it.

    Raises:
        DialogueTableError: a rule of the module's header is broken; the message lists every place.
    """

    name: str
    stages: tuple[Stage, ...]
    """The first one is where a dialogue starts; the order says what is forward."""
    events: tuple[str, ...]
    """What callers can mean; :data:`SYSTEM_EVENTS` are added."""
    rows: tuple[Row, ...]
    facts: type[FactsT]
    """An attrs class in which None means that a fact is not known."""
    limit_seconds: float
    """Of the whole talk, whatever happens in it."""
    opening: tuple[str, ...] = (QUESTION,)
    """What is done when the talk begins."""
    conditions: Mapping[str, Condition] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            lines = "".join(f"\n  {problem}" for problem in problems)
            raise DialogueTableError(f"the dialogue {self.name} can't be used:{lines}")

    @cached_property
    def stage_of(self) -> Mapping[str, Stage]:
        """The stages by their names."""
        return {stage.name: stage for stage in self.stages}

    @property
    def all_events(self) -> tuple[str, ...]:
        """The declared events and those of the system."""
        return (*self.events, *(event for event in SYSTEM_EVENTS if event not in self.events))

    @cached_property
    def cells(self) -> Mapping[tuple[str, str], tuple[Row, ...]]:
        """The rows of each stage and event: its own, else those of ``ANY``, else the standard ones."""
        final = next((stage.name for stage in self.stages if stage.is_final), SAME)
        own: dict[tuple[str, str], list[Row]] = {}
        wide: dict[str, list[Row]] = {}
        for row in self.rows:
            for event in split(row.events):
                if row.stages == ANY:
                    wide.setdefault(event, []).append(row)
                else:
                    for stage in split(row.stages):
                        own.setdefault((stage, event), []).append(row)
        standard = {
            event: [row for row in _standard(final) if row.events == event] for event in SYSTEM_EVENTS
        }
        return {
            (stage.name, event): tuple(
                own.get((stage.name, event)) or wide.get(event) or standard.get(event, [])
            )
            for stage in self.stages
            if not stage.is_final
            for event in self.all_events
        }

    @property
    def actions(self) -> frozenset[str]:
        """Every action that the table can ask for, the stages' questions among them."""
        done = {action for rows in self.cells.values() for row in rows for action in row.do}
        questions = {stage.question for stage in self.stages if stage.question}
        return frozenset((done | questions | set(self.opening)) - {QUESTION})

    def start(self, at: float, facts: FactsT | None = None) -> Step[FactsT]:
        """Begin a dialogue at a time (seconds of any clock that the later steps use too)."""
        state = State(
            stage=self.stages[0].name,
            facts=self.facts() if facts is None else facts,
            began_at=at,
            entered_at=at,
        )
        return Step(state, self._asked(self.opening, state.stage))

    def is_over(self, state: State[FactsT]) -> bool:
        """Whether the dialogue has ended."""
        return self.stage_of[state.stage].is_final

    def due(self, state: State[FactsT]) -> Due | None:
        """Return when time is up; None when the dialogue has ended."""
        stage = self.stage_of[state.stage]
        if stage.is_final:
            return None
        of_stage = Due(state.entered_at + stage.limit_seconds, STAGE_TIME_UP)
        of_talk = Due(state.began_at + self.limit_seconds, TALK_TIME_UP)
        return of_talk if not stage.is_parting and of_talk.at < of_stage.at else of_stage

    def holds(self, row: Row, state: State[FactsT]) -> bool:
        """Whether every condition of a row holds."""
        return all(
            self._is(condition.removeprefix(NOT), state) != condition.startswith(NOT)
            for condition in row.when
        )

    def step(self, state: State[FactsT], event: str, at: float, facts: FactsT | None = None) -> Step[FactsT]:
        """Take an event, and what was learnt with it. Pure: nothing is awaited, nothing is changed.

        Raises:
            IllegalStepError: the dialogue has ended, or the event is not declared.
        """
        if self.is_over(state):
            raise IllegalStepError(f"{self.name}: {event!r} came after the dialogue ended ({state.stage})")
        if (state.stage, event) not in self.cells:
            raise IllegalStepError(f"{self.name}: {event!r} is none of the dialogue's events")
        learnt = state if facts is None else attrs.evolve(state, facts=facts)
        row = next(row for row in self.cells[state.stage, event] if self.holds(row, learnt))
        now_known = attrs.evolve(learnt.facts, **row.sets) if row.sets else learnt.facts  # type: ignore[misc]
        to = state.stage if row.to == SAME else row.to
        if to != state.stage:
            after = attrs.evolve(learnt, stage=to, facts=now_known, entered_at=at, tries=0)
        else:
            in_vain = state.tries + row.counts if now_known == state.facts else 0
            after = attrs.evolve(learnt, facts=now_known, tries=in_vain)
        return Step(after, self._asked(row.do, to))

    def _is(self, condition: str, state: State[FactsT]) -> bool:
        if condition == COMPLETE:
            return all(getattr(state.facts, name) is not None for name in self.stage_of[state.stage].requires)
        if condition == TRIED:
            return state.tries >= PATIENCE
        return self.conditions[condition](state)

    def _asked(self, actions: tuple[str, ...], stage: str) -> tuple[str, ...]:
        question = self.stage_of[stage].question
        asked = (question if action == QUESTION else action for action in actions)
        return tuple(action for action in asked if action)


def split(names: str) -> tuple[str, ...]:
    """Split a list that stands in one string."""
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _standard(final: str) -> tuple[Row, ...]:
    """Return what a dialogue does that has no rows of its own for what every dialogue meets."""
    asks = tuple(
        row
        for event in (UNCLEAR, SILENCE, FAILURE)
        for row in (
            Row(stages=ANY, events=event, to=SAME, do=(QUESTION,), when=(NOT + TRIED,)),
            Row(stages=ANY, events=event, to=final, when=(TRIED,), waives=True),
        )
    )
    ends = (Row(stages=ANY, events=event, to=final, waives=True) for event in (*TIMERS, HANGUP))
    return (*asks, *ends)


def _problems(table: Table[Any]) -> Iterator[str]:
    """Find what breaks the rules; what is misspelt hides the rest, which would only follow from it."""
    misspelt = list(_misspelt(table))
    yield from misspelt
    if not misspelt:
        yield from _unclear_cells(table)
        yield from _forward_rows(table)
        yield from _unreachable(table)
        yield from _timer_circles(table)


def _misspelt(table: Table[Any]) -> Iterator[str]:
    names = [stage.name for stage in table.stages]
    if len(set(names)) < len(names):
        yield "two stages have one name"
    if not table.stages or table.stages[0].is_final or not any(stage.is_final for stage in table.stages):
        yield "there must be a stage to start in and a final one"
    known_facts = {field.name for field in attrs.fields(table.facts)}
    yield from (
        f"{stage.name}: {'needs a limit' if stage.limit_seconds <= 0 else 'requires no known fact'}"
        for stage in table.stages
        if not stage.is_final and (stage.limit_seconds <= 0 or not known_facts.issuperset(stage.requires))
    )
    conditions = {*table.conditions, COMPLETE, TRIED}
    used: set[str] = set()
    for row in table.rows:
        plain = {condition.removeprefix(NOT) for condition in row.when}
        used |= plain
        for what, known, named in (
            ("stage", {*names, ANY}, set(split(row.stages))),
            ("stage", {*names, SAME}, {row.to}),
            ("event", set(table.all_events), set(split(row.events))),
            ("condition", conditions, plain),
            ("fact", known_facts, set(row.sets)),
        ):
            yield from (f"{_of(row)}: no {what} {name!r}" for name in sorted(named - known))
    yield from (f"no row asks for the condition {name!r}" for name in sorted(set(table.conditions) - used))


def _unclear_cells(table: Table[Any]) -> Iterator[str]:
    for (stage, event), rows in table.cells.items():
        conditions = sorted({condition.removeprefix(NOT) for row in rows for condition in row.when})
        for truths in product((True, False), repeat=len(conditions)):
            is_true = dict(zip(conditions, truths, strict=True))
            holding = sum(
                all(is_true[name.removeprefix(NOT)] != name.startswith(NOT) for name in row.when)
                for row in rows
            )
            if holding != 1:
                case = ", ".join(f"{'' if true else NOT}{name}" for name, true in is_true.items())
                count = "no row" if not holding else f"{holding} rows"
                yield f"{stage} / {event}: {count} for ({case})"


def _forward_rows(table: Table[Any]) -> Iterator[str]:
    order = {stage.name: index for index, stage in enumerate(table.stages)}
    for (name, event), rows in table.cells.items():
        stage = table.stage_of[name]
        for row in rows:
            is_forward = row.to != SAME and order[row.to] > order[name]
            knows = COMPLETE in row.when or row.waives or set(stage.requires) <= set(row.sets)
            if is_forward and stage.requires and not knows:
                yield f"{name} / {event}: goes to {row.to} without {', '.join(stage.requires)}"


def _unreachable(table: Table[Any]) -> Iterator[str]:
    edges = _edges(table, table.all_events)
    start = table.stages[0].name
    reached = _reach(edges, start)
    yield from (f"{stage.name} can't be reached" for stage in table.stages if stage.name not in reached)
    finals = {stage.name for stage in table.stages if stage.is_final}
    # Hang-up ends every dialogue; a stage that only hang-up leads out of is a dead end all the same.
    talking = _edges(table, tuple(event for event in table.all_events if event not in {HANGUP, *TIMERS}))
    yield from (
        f"{stage.name} is a dead end: no talk leads from it to the end"
        for stage in table.stages
        if not finals & _reach(talking, stage.name)
    )


def _timer_circles(table: Table[Any]) -> Iterator[str]:
    edges = _edges(table, TIMERS)
    for stage in table.stages:
        if any(stage.name in _reach(edges, following) for following in edges.get(stage.name, ())):
            yield f"{stage.name}: time alone leads back to it"


def _edges(table: Table[Any], events: tuple[str, ...]) -> Mapping[str, set[str]]:
    edges: dict[str, set[str]] = {}
    for (stage, event), rows in table.cells.items():
        if event in events:
            edges.setdefault(stage, set()).update(stage if row.to == SAME else row.to for row in rows)
    return edges


def _reach(edges: Mapping[str, set[str]], start: str) -> set[str]:
    reached, waiting = {start}, [start]
    while waiting:
        for following in edges.get(waiting.pop(), set()) - reached:
            reached.add(following)
            waiting.append(following)
    return reached


def _of(row: Row) -> str:
    return f"{row.stages} / {row.events}"
