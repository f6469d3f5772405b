"""The tools that a model may use in a turn: told to it, called with what it wrote, answered in JSON."""

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final, NoReturn

import attrs
import structlog

from voice_agent.agent.dialogue_errors import ActionFailedError
from voice_agent.agent.llm.chunks import ToolCall
from voice_agent.agent.llm.functions import Schema, described
from voice_agent.agent.llm.history import Message, Role, note_answer, note_tools
from voice_agent.agent.talk import Turn
from voice_agent.agent.tools import Tool, Toolbox
from voice_agent.core.errors import InvalidFieldError

END_CALL: Final = "end_call"
"""The tool that every model is given: it ends the call when the answer has been said."""
MAX_ARGUMENTS_CHARS: Final = 16_384
MAX_RESULT_CHARS: Final = 8192
"""Of a tool's answer; the rest is cut off, or it would push the talk out of the history."""
_UNKNOWN: Final = json.dumps({"error": "interrupted; whether it was done is not known"})
_NOTHING_TO_DO: Final = json.dumps({"done": True})
_END_CALL_TOLD: Final[Schema] = {
    "type": "function",
    "function": {
        "name": END_CALL,
        "description": "End the call, when the caller has said goodbye or wants nothing more. Say goodbye first.",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}

log: Final = structlog.get_logger(__name__)


class UsedTools:
    """The tools of an agent, by what a model asks for.

    Raises:
        ValueError: two have one name, or one has the name of :data:`END_CALL`.
        TypeError: a tool's arguments have a kind that no JSON schema is known for.
    """

    def __init__(self, tools: Iterable[Tool[Any, Any]]) -> None:
        self._box = Toolbox(*tools)
        if END_CALL in self._box.tools:
            raise ValueError(f"{END_CALL} is a tool that there is already")
        self.told: Final = [*described(list(self._box.tools.values())), _END_CALL_TOLD]

    async def use(self, turn: Turn, calls: Iterable[ToolCall]) -> list[Message]:
        """Use tools one after the other; return the messages that tell the model of it.

        What a tool does is kept in the turn's state at once, and that it began before it begins: a caller who interrupts it
        must not have it done twice. What could have an effect waits until the caller has surely finished.
        """
        wanted = tuple(calls)
        used = [_usable(call) for call in wanted]
        if any(not self._is_pure(call.name) for call in used):
            await turn.settled()
        answers = [Message(role=Role.TOOL, text=_UNKNOWN, call_id=call.id) for call in used]
        asked = Message(role=Role.AGENT, calls=tuple(used))
        kept = {call.id for call in used if call.name != END_CALL}
        if kept:
            turn.state = note_tools(
                turn.state,
                [
                    attrs.evolve(asked, calls=tuple(call for call in used if call.id in kept)),
                    *(answer for answer in answers if answer.call_id in kept),
                ],
            )
        for place, call in enumerate(wanted):
            answers[place] = attrs.evolve(answers[place], text=await self._answer(call))
            if call.id in kept:
                turn.state = note_answer(turn.state, answers[place])
        return [asked, *answers]

    def _is_pure(self, name: str) -> bool:
        tool = self._box.tools.get(name)
        return tool.is_pure if tool is not None else name != END_CALL

    async def _answer(self, call: ToolCall) -> str:
        if call.name == END_CALL:
            return _NOTHING_TO_DO
        try:
            told = json.dumps(
                await self._box.call(call.name, _arguments(call)), ensure_ascii=False, default=str
            )
        except (InvalidFieldError, ActionFailedError) as error:
            log.warning("tool_failed", tool=call.name, code=error.code, reason=error.message)
            return json.dumps({"error": error.message}, ensure_ascii=False)
        except Exception:
            # A defect of an integrator's tool is in the log; the talk goes on.
            log.exception("tool_crashed", tool=call.name)
            return json.dumps({"error": "it failed; whether anything was done is not known"})
        return told[:MAX_RESULT_CHARS]


def _usable(call: ToolCall) -> ToolCall:
    """Return a call that may be sent back: templates of some models read the arguments again, and fail where they can't."""
    try:
        _arguments(call)
    except InvalidFieldError:
        return attrs.evolve(call, arguments="{}")
    return attrs.evolve(call, arguments=call.arguments.strip() or "{}")


def _arguments(call: ToolCall) -> Any:
    """Return what the model wrote; fractions are decimals, for a float would lose paise.

    Raises:
        InvalidFieldError: it is no JSON.
    """
    if len(call.arguments) > MAX_ARGUMENTS_CHARS:
        raise InvalidFieldError(f"{call.name}: the arguments are too long", field="arguments")
    try:
        return json.loads(call.arguments.strip() or "{}", parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError, ArithmeticError):
        raise InvalidFieldError(f"{call.name}: the arguments are no JSON", field="arguments") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
