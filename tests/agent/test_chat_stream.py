"""What an endpoint streams is read the same however the network cuts it, and whatever it sends is a reply or a typed error."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from voice_agent.agent.llm.chunks import MAX_CALLS, ReplyReader, ToolCall
from voice_agent.core.errors import LanguageModelFailedError
from voice_agent.core.event_lines import (
    MAX_EVENT_CHARS,
    EventDecoder,
    EventReader,
    EventTooLargeError,
    ServerSentEvent,
)


def decoded(data: bytes, size: int) -> list[ServerSentEvent]:
    """Feed a stream in pieces of a size."""
    decoder = EventDecoder()
    return [
        event for begin in range(0, len(data), size) for event in decoder.feed(data[begin : begin + size])
    ]


STREAM = st.lists(
    st.sampled_from(
        [b"data: {}", b"data:x", b"event: y", b": c", b"id: 1", b"\n", b"\r", b"\r\n", b"\n\n", "é\u2028".encode(), b"\xff", b"\0"]
    )
).map(b"".join)  # fmt: skip


@given(STREAM, st.integers(1, 9))
@example(b"data: a\r\n\r\ndata: b\r\r\n\n", 1)
@example(b"\xef\xbb\xbfdata: a\n\n", 2)
def test_it_does_not_matter_where_the_network_cuts(data: bytes, size: int) -> None:
    """Line ends of all three kinds, characters of several bytes, bytes that are no UTF-8."""
    assert decoded(data, size) == decoded(data, len(data) or 1)


@given(STREAM)
def test_the_lines_are_those_of_the_standard(data: bytes) -> None:
    """As by a reader that has the whole text and cuts it at returns and newlines alone (HTML, 9.2.6)."""
    reader = EventReader()
    text = data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")[:-1]
    assert decoded(data, 4) == [event for line in lines if (event := reader.feed(line)) is not None]


def test_a_line_without_end_is_an_error() -> None:
    """A client's memory is bounded, also within a line."""
    decoder = EventDecoder()
    for _ in range(MAX_EVENT_CHARS // 1024):
        decoder.feed(b"x" * 1024)
    with pytest.raises(EventTooLargeError):
        decoder.feed(b"x")


def chunk(**delta: Any) -> str:
    """A chunk with a delta."""
    return json.dumps({"choices": [{"delta": delta}]})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "index",
                    "id",
                    "error",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(ANYTHING.map(json.dumps) | st.text(max_size=20), max_size=6))
@example(['{"choices": [{"delta": {"tool_calls": [{"index": true}, null]}}]}'])
@example(["[" * 100_000])
@example(['{"choices": [{"delta": {"tool_calls": [{"index": {}, "function": []}]}}]}'])
def test_whatever_is_sent_is_read_or_a_typed_error(events: list[str]) -> None:
    """Garbage of the right shape too; the calls that come of it can be sent back."""
    reader = ReplyReader()
    for event in events:
        try:
            assert isinstance(reader.feed(event), str)
        except LanguageModelFailedError:
            continue
    calls = reader.calls()
    assert len(calls) <= MAX_CALLS
    assert len({call.id for call in calls}) == len(calls)
    assert all(call.name for call in calls)


def test_calls_are_put_together_from_their_fragments() -> None:
    """By their index, in whatever order they come; text beside them is text."""
    reader = ReplyReader()
    fragments: list[dict[str, Any]] = [
        {"index": 0, "id": "a", "function": {"name": "one", "arguments": ""}},
        {"index": 1, "id": "b", "function": {"name": "two", "arguments": "{"}},
        {"index": 0, "function": {"arguments": '{"x": '}},
        {"index": 1, "function": {"arguments": "}"}},
        {"index": 0, "function": {"arguments": "1}"}},
    ]
    assert [reader.feed(chunk(tool_calls=[fragment])) for fragment in fragments] == [""] * 5
    assert reader.feed(chunk(content="Wait.")) == "Wait."
    assert reader.calls() == (ToolCall("a", "one", '{"x": 1}'), ToolCall("b", "two", "{}"))
    assert not reader.is_whole
    reader.feed("[DONE]")
    assert reader.is_whole


def test_calls_of_servers_that_send_them_their_own_way() -> None:
    """Whole ones without index or id, with arguments as an object, with names that could not be sent back."""
    reader = ReplyReader()
    reader.feed(
        chunk(
            tool_calls=[
                {"function": {"name": "one two", "arguments": {"x": 1}}},
                {"function": {"name": "three", "arguments": None}},
            ]
        )
    )
    assert reader.calls() == (ToolCall("call_1", "one_two", '{"x": 1}'), ToolCall("call_2", "three", ""))


def test_too_many_calls_are_refused() -> None:
    """Memory is bounded by what can be sensible."""
    with pytest.raises(LanguageModelFailedError, match="more than"):
        ReplyReader().feed(chunk(tool_calls=[{"index": index} for index in range(MAX_CALLS + 1)]))


def test_an_error_in_the_middle_of_a_stream_is_told_in_its_words() -> None:
    """As some servers do behind a status of 200."""
    with pytest.raises(LanguageModelFailedError, match="out of memory"):
        ReplyReader().feed('{"error": {"message": "out of memory", "code": 500}}')
