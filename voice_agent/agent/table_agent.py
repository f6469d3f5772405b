"""TableAgent: a dialogue's table in the seat of an agent, with the functions that understand and act for it."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import attrs
import structlog
import trio

from voice_agent.agent.dialogue import FAILURE, HANGUP, SILENCE, STAGE_TIME_UP, State, Step, Table
from voice_agent.agent.dialogue_errors import ActionFailedError, DialogueTableError
from voice_agent.agent.talk import Heard, HungUp, Opened, Silence, Turn

FactsT = TypeVar("FactsT")

log: Final = structlog.get_logger(__name__)


@attrs.frozen
class Understood(Generic[FactsT]):
    """What a caller meant: an event of the table, and all facts as they are known after it."""

    event: str
    facts: FactsT


Understand = Callable[[str, State[FactsT]], Understood[FactsT]]
"""From words and the state they were said in to what they mean; pure."""
Act = str | Callable[[Turn, State[FactsT]], Awaitable[None]]
"""What an action does: a sentence, in which ``{name}`` stands for a fact; or a function that says and does more."""


class TableAgent(Generic[FactsT]):
    """An agent that follows a table.

    Raises:
        DialogueTableError: the table asks for an action that there isn't, or there is one that it never asks for.
    """

    def __init__(
        self, table: Table[FactsT], *, understand: Understand[FactsT], acts: Mapping[str, Act[FactsT]]
    ) -> None:
        if table.actions != acts.keys():
            without, unused = sorted(table.actions - acts.keys()), sorted(acts.keys() - table.actions)
            raise DialogueTableError(
                f"the dialogue {table.name} has actions that nobody does: {without}, or that it never asks for: {unused}"
            )
        self.table: Final = table
        self._understand = understand
        self._acts = acts

    def begin(self, at: float) -> State[FactsT]:
        """Return the state of a call that begins."""
        return self.table.start(at).state

    def due(self, state: State[FactsT]) -> float | None:
        """Return when to be told that time is up."""
        due = self.table.due(state)
        return None if due is None else due.at

    def is_over(self, state: State[FactsT]) -> bool:
        """Whether the dialogue has ended."""
        return self.table.is_over(state)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Nothing has to be done beside calls."""
        task_status.started()

    async def reply(self, turn: Turn) -> None:
        """Take the event's step, and do what the table says; what fails is followed by the table's row for failures."""
        state: State[FactsT] = turn.state
        if isinstance(turn.event, Opened):
            opening = self.table.start(turn.event.at, state.facts)
            await self._act(turn, opening)
            return
        event, facts = self._meant(turn, state)
        try:
            await self._act(turn, self.table.step(state, event, turn.event.at, facts))
        except ActionFailedError as error:
            log.warning(
                "action_failed", dialogue=self.table.name, stage=turn.state.stage, reason=error.message
            )
            if not self.table.is_over(turn.state):
                # What follows on a failure has no effects that could fail: the agent apologises.
                await self._act(turn, self.table.step(turn.state, FAILURE, turn.event.at))

    def _meant(self, turn: Turn, state: State[FactsT]) -> tuple[str, FactsT | None]:
        match turn.event:
            case Heard(text=text):
                understood = self._understand(text, state)
                return understood.event, understood.facts
            case Silence():
                return SILENCE, None
            case HungUp():
                return HANGUP, None
            case _:
                due = self.table.due(state)
                return (STAGE_TIME_UP if due is None else due.event), None

    async def _act(self, turn: Turn, step: Step[FactsT]) -> None:
        turn.state = step.state
        for name in step.actions:
            act = self._acts[name]
            if isinstance(act, str):
                await turn.say(act.format_map(_said(step.state.facts)))
            else:
                await act(turn, step.state)


def _said(facts: Any) -> dict[str, object]:
    return {field.name: getattr(facts, field.name) for field in attrs.fields(type(facts))}
