"""Query parameters are read strictly: what is misspelt, doubled or malformed is named, and never ignored."""

from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import attrs
import pytest

from voice_agent.core.errors import InvalidFieldError
from voice_agent.web.query import parameter, read_query


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen(kw_only=True)
class Wanted:
    colour: Colour | None = parameter(None, "Only these.")
    count: int = parameter(5, "How many.", minimum=1, maximum=20)
    name: str | None = parameter(None, "Whose.", minimum=1, maximum=4)
    mark: str | None = parameter(None, "Where.", minimum=1, maximum=4, pattern="[a-f]+")
    since: datetime | None = parameter(None, "From when.")


@attrs.frozen(kw_only=True)
class Nothing:
    pass


def test_what_is_left_out_has_its_default() -> None:
    """No parameter is needed."""
    assert read_query(Wanted, []) == Wanted()


def test_what_is_given_has_its_type() -> None:
    """Text becomes what the class declares."""
    found = read_query(
        Wanted,
        [
            ("colour", "blue"),
            ("count", "20"),
            ("name", "a&ü "),
            ("mark", "ff"),
            ("since", "2026-01-31T12:00:00Z"),
        ],
    )
    assert found == Wanted(
        colour=Colour.BLUE, count=20, name="a&ü ", mark="ff", since=datetime(2026, 1, 31, 12, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31t12:00:00.123456789z", datetime(2026, 1, 31, 12, 0, 0, 123456, UTC)),
        ("2026-01-31T12:00:00+05:30", datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=5.5)))),
    ],
)
def test_times_are_those_of_rfc_3339(text: str, expected: datetime) -> None:
    """Fractions, zones and lower case, as RFC 3339, section 5.6 has them."""
    assert read_query(Wanted, [("since", text)]).since == expected


@pytest.mark.parametrize(
    ("pairs", "field"),
    [
        ([("color", "red")], "color"),
        ([("count", "1"), ("count", "1")], "count"),
        *(
            ([("count", text)], "count")
            for text in ("", "0", "21", "1.0", "01", "+1", " 1", "\u0661", "1e1", "9" * 99)
        ),
        *(([("colour", text)], "colour") for text in ("", "RED", "green")),
        *(([("name", text)], "name") for text in ("", "12345")),
        *(([("mark", text)], "mark") for text in ("", "g", "fffff", "f\n", "f f")),
        *(
            ([("since", text)], "since")
            for text in (
                "",
                "now",
                "1767225600",
                "2026-01-31",
                "2026-01-31T12:00:00",
                "2026-01-31 12:00:00Z",
                "2026-02-31T12:00:00Z",
                "2026-01-31T25:00:00Z",
                "20260131T120000Z",
                "2026-W05-6T12:00:00Z",
            )
        ),
    ],
)
def test_what_is_wrong_is_named(pairs: list[tuple[str, str]], field: str) -> None:
    """A filter that is not understood must not mean "everything"."""
    with pytest.raises(InvalidFieldError) as caught:
        read_query(Wanted, pairs)
    assert caught.value.field == field
    assert field in caught.value.message


def test_where_there_are_none_that_is_said() -> None:
    """A route without parameters refuses them."""
    with pytest.raises(InvalidFieldError, match="there are none here"):
        read_query(Nothing, [("a", "b")])


def test_a_long_name_is_not_repeated_whole() -> None:
    """An answer does not grow with what was sent."""
    with pytest.raises(InvalidFieldError) as caught:
        read_query(Wanted, [("x" * 10_000, "")])
    assert len(caught.value.message) < 200
