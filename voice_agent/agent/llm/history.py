"""What a talk with a language model has come to: the messages so far, bounded by tokens. Pure, and kept as JSON.

The state of a call is a :class:`ChatState`. Its messages stand in turns: each turn begins with one of the caller's (or with a
note in brackets for what is no words: the call begins, the caller is silent), then come the tools that were used, then **one**
message with what the agent said. So what was said can be replaced by what was heard of it, and old turns are forgotten whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import attrs
import cattrs

from voice_agent.agent.llm.chunks import ToolCall

BYTES_PER_TOKEN: Final = 3
"""Tokenizers take four bytes of English for a token, and fewer of other languages; each model has another. Too high an estimate
forgets a little early, too low a one would be refused by the endpoint."""
TOKENS_AROUND: Final = 6
"""Of one message: its role, and what separates it from the next."""
CALL_BEGINS: Final = "(The caller has been connected.)"
CALLER_IS_SILENT: Final = "(The caller says nothing.)"


class Role(StrEnum):
    """Who speaks; as the API's reference names them."""

    CALLER = "user"
    AGENT = "assistant"
    TOOL = "tool"


@attrs.frozen(kw_only=True)
class Message:
    """One message: words of the caller or the agent, tools that the agent asks for, or what one of them answered."""

    role: Role
    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    """Of the agent, where it asks for tools; such a message has no words."""
    call_id: str = ""
    """Of a tool: which call it answers."""

    @property
    def tokens(self) -> int:
        """About how many tokens it takes; an estimate, rather too high."""
        text = self.text + "".join(call.name + call.arguments for call in self.calls)
        return TOKENS_AROUND + -(-len(text.encode()) // BYTES_PER_TOKEN)

    @property
    def is_said(self) -> bool:
        """Whether it holds what the agent said."""
        return self.role is Role.AGENT and not self.calls


@attrs.frozen(kw_only=True)
class ChatState:
    """What an agent knows of one call."""

    messages: tuple[Message, ...] = ()
    ends_at: float
    """When the talk has lasted as long as it may, by Trio's clock."""
    reprompts: int = 0
    """How often in a row a silent caller was asked again."""
    failures: int = 0
    """Turns in a row that failed."""
    is_over: bool = False


def hear(state: ChatState, text: str) -> ChatState:
    """Begin a turn with what the caller said."""
    return attrs.evolve(state, messages=(*state.messages, Message(role=Role.CALLER, text=text)))


def note_tools(state: ChatState, messages: Iterable[Message]) -> ChatState:
    """Put tools that were used into the turn, before what has been said in it."""
    before, said = _parted(state)
    return attrs.evolve(state, messages=(*before, *messages, *said))


def note_answer(state: ChatState, answer: Message) -> ChatState:
    """Replace what was noted as the answer to the newest call of that id by the answer itself."""
    messages = list(state.messages)
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role is Role.TOOL and messages[place].call_id == answer.call_id:
            messages[place] = answer
            break
    return attrs.evolve(state, messages=tuple(messages))


def say(state: ChatState, sentence: str) -> ChatState:
    """Add a sentence to what the agent has said in this turn."""
    before, said = _parted(state)
    text = " ".join([*(message.text for message in said), sentence])
    return attrs.evolve(state, messages=(*before, Message(role=Role.AGENT, text=text)))


def keep_heard(state: ChatState, heard: str) -> ChatState:
    """Replace what the agent said in its last turn by what was heard of it; nothing where nothing was."""
    before, _ = _parted(state)
    kept = (Message(role=Role.AGENT, text=heard),) if heard else ()
    return attrs.evolve(state, messages=(*before, *kept))


def _parted(state: ChatState) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Return the messages before what the agent said in the last turn, and that."""
    if state.messages and state.messages[-1].is_said:
        return state.messages[:-1], state.messages[-1:]
    return state.messages, ()


def bounded(messages: Sequence[Message], max_tokens: int) -> tuple[Message, ...]:
    """Return the newest turns that fit; of the last one, whatever it is, at least what the caller said, cut if it must be."""
    turns = _turns(messages)
    kept: list[Message] = []
    for turn in reversed(turns):
        if sum(message.tokens for message in (*turn, *kept)) > max_tokens:
            break
        kept = [*turn, *kept]
    if kept or not turns:
        return tuple(kept)
    return _cut(turns[-1], max_tokens)


def _turns(messages: Iterable[Message]) -> list[list[Message]]:
    turns: list[list[Message]] = []
    for message in messages:
        if message.role is Role.CALLER or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns


def _cut(turn: list[Message], max_tokens: int) -> tuple[Message, ...]:
    """Shorten the longest texts of one turn until it fits; calls stay, for their answers would refer to nothing."""
    room = max_tokens
    for message in turn:
        room -= attrs.evolve(message, text="").tokens
    share = max(room * BYTES_PER_TOKEN // len(turn), 0)
    return tuple(
        attrs.evolve(message, text=message.text.encode()[:share].decode(errors="ignore")) for message in turn
    )


def written(messages: Sequence[Message], system_prompt: str) -> list[dict[str, Any]]:
    """Return the messages as the API wants them.

    Two of one speaker in a row become one: the templates of many models take turns alone.
    """
    told: list[dict[str, Any]] = [{"role": "system", "content": system_prompt}] if system_prompt else []
    for message in messages:
        one = _written(message)
        if message.role is not Role.TOOL and not message.calls and told and told[-1]["role"] == message.role:
            last = told[-1]
            if "tool_calls" not in last:
                last["content"] = f"{last['content']}\n{one['content']}"
                continue
        told.append(one)
    return told


def _written(message: Message) -> dict[str, Any]:
    if message.role is Role.TOOL:
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    if not message.calls:
        return {"role": str(message.role), "content": message.text}
    return {
        "role": "assistant",
        "content": message.text or None,
        "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ],
    }


_CONVERTER: Final = cattrs.Converter(forbid_extra_keys=True)


def dump(state: ChatState, now: float) -> Mapping[str, Any]:
    """Return a state as JSON has it; the time that is left, for another process has another clock."""
    told: dict[str, Any] = _CONVERTER.unstructure(state)
    return {**told, "ends_at": state.ends_at - now}


def load(told: Mapping[str, Any], now: float) -> ChatState:
    """Return the state that was dumped.

    Raises:
        cattrs.BaseValidationError: it is none.
    """
    state = _CONVERTER.structure(told, ChatState)
    return attrs.evolve(state, ends_at=state.ends_at + now)
