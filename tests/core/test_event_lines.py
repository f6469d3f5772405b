"""Server-sent events are read as the HTML Standard says, whatever a server sends."""

import pytest

from voice_agent.core.event_lines import MAX_EVENT_CHARS, EventReader, EventTooLargeError, ServerSentEvent


def read(*lines: str, last_id: str = "") -> list[ServerSentEvent]:
    reader = EventReader(last_id)
    return [event for line in lines if (event := reader.feed(line)) is not None]


def test_an_event_is_read_from_its_fields() -> None:
    """Number, kind and data; an empty line completes it."""
    assert read("id: 7", "event: final", 'data: {"a":1}', "") == [
        ServerSentEvent(kind="final", data='{"a":1}', id="7")
    ]


def test_the_corners_of_the_standard() -> None:
    """One space is dropped, lines of data are joined, comments and unknown fields are nothing, a kind has a default."""
    assert read(": comment", "data:one", "data:  two", "retry: 10", "nonsense", "") == [
        ServerSentEvent(kind="message", data="one\n two")
    ]


def test_what_has_no_data_is_no_event() -> None:
    """Its number counts all the same; its kind does not stay for the next one."""
    assert read("id: 3", "event: x", "", "data: y", "") == [ServerSentEvent(kind="message", data="y", id="3")]


def test_a_number_stays_until_another_comes() -> None:
    """An event without one does not move where a client goes on; a number with NUL is none."""
    events = read("data: a", "", "id: 9", "data: b", "", "id: 1\0", "data: c", "", last_id="8")
    assert [event.id for event in events] == ["8", "9", "9"]


def test_an_event_that_breaks_off_is_not_told() -> None:
    """Without the empty line it is not known to be whole."""
    assert read("id: 1", "data: a") == []


def test_an_event_without_end_is_an_error() -> None:
    """A client's memory is bounded too; many events of any size are none of its business."""
    reader = EventReader()
    for _ in range(100):
        reader.feed("data: " + "x" * (MAX_EVENT_CHARS // 10))
        reader.feed("")
    for _ in range(9):
        reader.feed("data: " + "x" * (MAX_EVENT_CHARS // 10))
    with pytest.raises(EventTooLargeError):
        reader.feed("data: " + "x" * (MAX_EVENT_CHARS // 10))
