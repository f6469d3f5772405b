"""A TOML document with the line of each key, which ``tomllib`` does not keep.

``tomllib`` judges the document and reads its values; a scanner that may then take the document for valid finds where
each key stands. TOML 1.0, "Keys" and "Table": a statement is a ``[header]``, a ``[[header]]`` or ``key = value``.
"""

import re
import tomllib
from enum import Enum, auto
from typing import Any, Final

import attrs

KeyPath = tuple[str, ...]
"""A key's path: ``("server", "port")``."""

_PIECE: Final = re.compile(
    r"""
      \"{3} (?: \\. | [^\\] )*? \"{3,5}   # up to two quotes may stand right before the closing three
    | '{3} .*? '{3,5}
    | " (?: \\. | [^"\\] )* "
    | ' [^']* '
    | \# [^\n]*
    | [\[\]{}=\n]
    | [^"'\#\[\]{}=\n]+
    """,
    re.VERBOSE | re.DOTALL,
)
_PLACE: Final = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)


class _Place(Enum):
    """Where in a statement the scanner stands."""

    KEY = auto()
    HEADER = auto()
    AFTER_HEADER = auto()
    VALUE = auto()


class TomlSyntaxError(ValueError):
    """A document is not TOML; ``line`` counts from 1 and is None where no line is at fault."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@attrs.frozen
class TomlDocument:
    """The values of a document, and the line on which each path is named first."""

    values: dict[str, Any] = attrs.field(repr=False)
    lines: dict[KeyPath, int]

    def line(self, path: KeyPath) -> int | None:
        """Return the line of a path, or that of the inline table which holds it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)


def parse(text: str) -> TomlDocument:
    """Read a TOML document.

    Raises:
        TomlSyntaxError: it is not one; names the line.
    """
    text = text.replace("\r\n", "\n")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.fullmatch(str(error))
        message, line = place.groups() if place else (str(error), None)
        raise TomlSyntaxError(message, int(line) if line else text.rstrip().count("\n") + 1) from None
    except ValueError:
        raise TomlSyntaxError("A number has too many digits", None) from None
    except RecursionError:
        raise TomlSyntaxError("Arrays or tables are nested too deep", None) from None
    return TomlDocument(values, _key_lines(text))


def _key_lines(text: str) -> dict[KeyPath, int]:
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    line, depth = 1, 0
    key: list[str] = []
    place = _Place.KEY
    for piece in _PIECE.findall(text):
        if place is _Place.VALUE:
            depth += (piece in ("[", "{")) - (piece in ("]", "}"))
            if piece == "\n" and depth == 0:
                place, key = _Place.KEY, []
        elif place is _Place.AFTER_HEADER:
            if piece == "\n":
                place, key = _Place.KEY, []
        elif piece == "[":
            place = _Place.HEADER
        elif piece == "]":
            table = _path("".join(key))
            lines.setdefault(table, line)
            place = _Place.AFTER_HEADER
        elif piece == "=":
            lines.setdefault(table + _path("".join(key)), line)
            place = _Place.VALUE
        elif piece != "\n" and not piece.startswith("#"):
            key.append(piece)
        line += piece.count("\n")
    return lines


def _path(key: str) -> KeyPath:
    # Bare, quoted and dotted keys have escapes and rules of their own; the parser that knows them is at hand.
    inner: Any = tomllib.loads(f"{key} = 0")
    path = []
    while isinstance(inner, dict):
        ((part, inner),) = inner.items()
        path.append(part)
    return tuple(path)
