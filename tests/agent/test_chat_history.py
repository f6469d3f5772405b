"""The history holds what was heard, fits its bound, and survives as JSON."""

import json

import attrs
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.agent.llm.agent import ChatAgent
from voice_agent.agent.llm.chunks import ToolCall
from voice_agent.agent.llm.history import (
    ChatState,
    Message,
    Role,
    bounded,
    hear,
    keep_heard,
    note_answer,
    note_tools,
    say,
    written,
)
from voice_agent.core.errors import InvalidFieldError
from voice_agent.settings.schema import ChatSettings

EMPTY = ChatState(ends_at=9.0)
CHAT = ChatSettings(url="http://127.0.0.1:9/v1", model="m")
CALL = Message(role=Role.AGENT, calls=(ToolCall("1", "price", "{}"),))
ANSWER = Message(role=Role.TOOL, text="9000", call_id="1")


def test_what_was_said_gives_way_to_what_was_heard() -> None:
    """Of the last turn alone; its tools stay, for they were used; nothing heard leaves nothing."""
    first = say(hear(EMPTY, "hello"), "Hello.")
    second = say(
        note_tools(say(hear(first, "how much?"), "Let me see."), [CALL, ANSWER]), "It is 9000 rupees."
    )
    texts = [message.text for message in second.messages]
    assert texts == ["hello", "Hello.", "how much?", "", "9000", "Let me see. It is 9000 rupees."]
    assert keep_heard(second, "Let me").messages[-2:] == (ANSWER, Message(role=Role.AGENT, text="Let me"))
    assert keep_heard(second, "").messages[-1] == ANSWER
    assert keep_heard(hear(first, "wait"), "").messages == hear(first, "wait").messages


def test_the_agent_leaves_its_filler_out_of_what_was_heard() -> None:
    """Whole, or cut off in its middle; and an interrupted goodbye is none."""
    agent = ChatAgent(lambda: CHAT)
    state = attrs.evolve(say(hear(EMPTY, "hello"), "It is gold."), is_over=True)
    for heard, kept in (
        ("One moment, please. It is", "It is"),
        ("One moment, please.", ""),
        ("One mom", ""),
        ("It is", "It is"),
    ):
        now = agent.heard(state, heard)
        assert [message.text for message in now.messages] == ["hello", *([kept] if kept else [])]
        assert not agent.is_over(now)


def test_an_answer_belongs_to_the_newest_call_of_its_id() -> None:
    """Some servers number the calls of each reply anew."""
    once = say(note_tools(hear(EMPTY, "one"), [CALL, ANSWER]), "So.")
    twice = note_tools(hear(once, "two"), [CALL, attrs.evolve(ANSWER, text="unknown")])
    messages = note_answer(twice, attrs.evolve(ANSWER, text="9100")).messages
    assert [message.text for message in messages if message.role is Role.TOOL] == ["9000", "9100"]


WORDS = st.text(st.sampled_from("ab é"), max_size=80)
TURNS = st.lists(st.tuples(WORDS, st.booleans(), WORDS), max_size=12)


@given(TURNS, st.integers(100, 400))
def test_the_history_fits_and_begins_with_a_caller(turns: list[tuple[str, bool, str]], most: int) -> None:
    """Whole turns, the newest; a tool's answer never stands without its call."""
    state = EMPTY
    for heard, uses_tool, said in turns:
        state = hear(state, heard)
        state = note_tools(state, [CALL, ANSWER]) if uses_tool else state
        state = say(state, said)
    kept = bounded(state.messages, most)
    assert sum(message.tokens for message in kept) <= most
    assert state.messages[len(state.messages) - len(kept) :] == kept
    assert not kept or kept[0].role is Role.CALLER
    assert bool(kept) == bool(turns)


def test_one_turn_that_is_too_long_is_cut() -> None:
    """What the caller said is there, if not all of it; in whole characters."""
    state = note_tools(hear(EMPTY, "é" * 5000), [CALL, attrs.evolve(ANSWER, text="x" * 5000)])
    kept = bounded(state.messages, 200)
    assert sum(message.tokens for message in kept) <= 200
    assert [message.role for message in kept] == [Role.CALLER, Role.AGENT, Role.TOOL]
    assert set(kept[0].text) == {"é"}


def test_two_of_one_speaker_become_one() -> None:
    """Many models' templates take turns alone; tools stay as they are."""
    state = hear(hear(EMPTY, "wait"), "how much?")
    told = written(note_tools(state, [CALL, ANSWER]).messages, "Be kind.")
    assert [message["role"] for message in told] == ["system", "user", "assistant", "tool"]
    assert told[1]["content"] == "wait\nhow much?"
    assert told[2]["tool_calls"][0]["function"] == {"name": "price", "arguments": "{}"}
    assert told[3]["tool_call_id"] == "1"
    assert written((), "") == []


async def test_a_state_goes_through_json(autojump_clock: trio.testing.MockClock) -> None:
    """And keeps the time that is left, whatever the other process's clock says."""
    agent = ChatAgent(lambda: CHAT)
    autojump_clock.jump(100)
    state = say(note_tools(hear(agent.begin(100.0), "hi"), [CALL, ANSWER]), "Hello.")
    dumped = json.loads(json.dumps(agent.dump(state)))
    assert agent.load(dumped) == state
    autojump_clock.jump(30)
    assert agent.load(dumped) == attrs.evolve(state, ends_at=state.ends_at + 30)
    assert agent.may_record(state)


@pytest.mark.parametrize(
    "told",
    [{}, {"ends_at": "soon"}, {"ends_at": 1, "messages": [{"role": "king"}]}, {"ends_at": 1, "other": 2}],
)
async def test_what_is_no_state_is_a_typed_error(told: dict[str, object]) -> None:
    """A journal that was written by something else."""
    with pytest.raises(InvalidFieldError):
        ChatAgent(lambda: CHAT).load(told)
