"""Query parameters as an attrs class: one declaration is what a route reads, refuses and documents.

Reading is strict: a parameter that is unknown, given twice, or not of its form is an error that names it. Who misspells
a filter must not get everything.
"""

import re
import types
import typing
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeVar

import attrs

from voice_agent.core.errors import InvalidFieldError

QueryT = TypeVar("QueryT")

_BOOLEANS: Final = {"true": True, "false": False}
_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_DATE_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)


def parameter(
    default: Any,
    why: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    pattern: str | None = None,
) -> Any:
    """Declare one parameter; ``minimum`` and ``maximum`` bound a number, or a text's length in characters."""
    return attrs.field(
        default=default,
        metadata={"why": why, "minimum": minimum, "maximum": maximum, "pattern": pattern},
    )


def read_query(kind: type[QueryT], pairs: Iterable[tuple[str, str]]) -> QueryT:
    """Read the parameters of a request.

    Raises:
        InvalidFieldError: one is unknown, given twice or not of its form; ``field`` names it.
    """
    fields = {field.name: field for field in attrs.fields(kind)}  # type: ignore[arg-type]
    annotations = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, text in pairs:
        if name not in fields:
            known = f"use {', '.join(fields)}" if fields else "there are none here"
            raise InvalidFieldError(f"query parameter {name[:40]!r} is unknown; {known}", field=name[:40])
        if name in values:
            raise InvalidFieldError(f"{name} is given twice", field=name)
        try:
            values[name] = _read(_bare(annotations[name]), text, fields[name].metadata)
        except ValueError as error:
            raise InvalidFieldError(f"{name} must be {error}", field=name) from None
    return kind(**values)


def _bare(annotation: Any) -> type[Any]:
    """Return the kind itself of one that may be left out."""
    if isinstance(annotation, types.UnionType):
        [annotation] = [kind for kind in typing.get_args(annotation) if kind is not types.NoneType]
    return typing.cast("type[Any]", annotation)


def _read(kind: type[Any], text: str, metadata: typing.Mapping[str, Any]) -> Any:
    """Return the value; a ValueError's message completes "must be"."""
    minimum, maximum, pattern = metadata["minimum"], metadata["maximum"], metadata["pattern"]
    if issubclass(kind, StrEnum):
        if text not in set(kind):
            raise ValueError(f"one of {', '.join(kind)}")
        return kind(text)
    if kind is int:
        if not _INTEGER.fullmatch(text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)
    if kind is bool:
        if text not in _BOOLEANS:
            raise ValueError("true or false")
        return _BOOLEANS[text]
    if kind is datetime:
        return _date_time(text)
    if not minimum <= len(text) <= maximum or (pattern and not re.fullmatch(pattern, text, re.ASCII)):
        raise ValueError(f"{minimum} to {maximum} characters" + (f" like {pattern}" if pattern else ""))
    return text


def _date_time(text: str) -> datetime:
    # fromisoformat() takes more forms than RFC 3339 has, and dates without a zone.
    if not _DATE_TIME.fullmatch(text):
        raise ValueError("a time as in RFC 3339, 2026-01-31T12:00:00Z for one (write + as %2B)")
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError("a time that exists") from None
