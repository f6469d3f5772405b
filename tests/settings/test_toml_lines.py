"""The scanner that finds each key's line, held against tomllib's own reading."""

import textwrap

import hypothesis
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.settings.toml_lines import TomlSyntaxError, parse

TRICKY = textwrap.dedent('''\
    # a = 1 in a comment, "quotes" and [brackets]
    top = 1  # not = a key

    "quoted key" = 2
    a.b . "c d" = 3
    [server] # header = comment
    text = """one
    port = 1
    [vad]
    \\""" still inside ""four quotes end it""""
    literal = \'\'\'it's
    # fine = 1\'\'\'
    list = [
      1, # level = "x"
      "]", [2,
      3],
    ]
    port = 8080
    inline = { x = 1, y = { z = [2] } }
      [ "vad" . inner ]
    \tindented = 'a\\'
    [[many]]
    one = 1
    [[many]]
    two = 2
    [logging]''')


def keys_of(values: dict[str, object], above: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
    """Every path of tables, and of what they hold."""
    paths = set()
    for key, value in values.items():
        paths.add((*above, key))
        if isinstance(value, dict):
            paths |= keys_of(value, (*above, key))
    return paths


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("top",), 2),
        (("quoted key",), 4),
        (("a", "b", "c d"), 5),
        (("server",), 6),
        (("server", "text"), 7),
        (("server", "literal"), 11),
        (("server", "list"), 13),
        (("server", "port"), 18),
        (("server", "inline"), 19),
        (("vad", "inner"), 20),
        (("vad", "inner", "indented"), 21),
        (("many",), 22),
        (("logging",), 26),
    ],
)
def test_each_key_is_found_on_its_line(path: tuple[str, ...], line: int, newline: str) -> None:
    """Strings, comments, arrays and headers that look like keys mislead nobody; CRLF counts like LF."""
    document = parse(TRICKY.replace("\n", newline))
    assert document.line(path) == line
    assert path in document.lines


def test_what_only_looks_like_a_key_has_no_line() -> None:
    """Text inside strings, arrays and comments is never taken for a key."""
    document = parse(TRICKY)
    assert {path for path in document.lines if path[0] != "many"} <= keys_of(document.values)


def test_a_key_in_an_inline_table_has_the_line_of_that_table() -> None:
    """The nearest line that is known is given, none where nothing is."""
    document = parse("\nserver = { port = 1 }\n")
    assert document.line(("server", "port")) == 2
    assert document.line(("vad", "port")) is None


_KEYS = st.text(max_size=6)
_LEAVES = st.one_of(st.integers(-9, 9), st.booleans(), st.text(max_size=20), st.lists(st.text(max_size=5)))
_TABLES = st.dictionaries(_KEYS, st.dictionaries(_KEYS, _LEAVES, max_size=4), max_size=4)


@hypothesis.settings(deadline=None)  # a shared machine is slow at times
@given(_TABLES, st.booleans())
def test_every_key_of_any_document_is_found_where_it_stands(
    tables: dict[str, dict[str, object]], multiline: bool
) -> None:
    """For any document that tomli-w writes, each path has a line, that line holds the key, and lines rise."""
    text = tomli_w.dumps(tables, multiline_strings=multiline)
    document = parse(text)
    lines = text.split("\n")
    assert keys_of(document.values) == set(document.lines)
    for table, values in document.values.items():
        header = tomli_w.dumps({table: {}}).strip()
        assert lines[document.lines[table,] - 1] == header
        for key in values:
            written = tomli_w.dumps({key: 0}).removesuffix("0\n")
            assert lines[document.lines[table, key] - 1].startswith(written)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a = 1\nb =\nc = 2", 2),
        ("a = 1\na = 2\n\n", 2),
        ("a = [1,\n2", 2),
        ("[a\n", 1),
        ("x = " + "9" * 5000, None),
        ("x = " + "[" * 20_000, None),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(text: str, line: int | None) -> None:
    """Broken syntax, doubled keys, absurd numbers and absurd nesting give one error class, with a line if known."""
    with pytest.raises(TomlSyntaxError) as caught:
        parse(text)
    assert caught.value.line == line
    assert " (at " not in caught.value.message
