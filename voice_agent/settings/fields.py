"""What the schema says about each setting, read from its attrs classes for those who read, check and write settings.

A schema is an attrs class whose fields are sections; a section is an attrs class whose fields are made by
:func:`voice_agent.settings.declare.setting`. Nothing here knows which settings there are.
"""

import functools
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

Scalar = bool | int | float | str

VARIABLE_PREFIX: Final = "VOICE_AGENT__"
"""Two underscores: Kubernetes gives every pod near a service `voice-agent` variables like VOICE_AGENT_PORT."""
FILE_SUFFIX: Final = "_FILE"

_WORDS: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}


@attrs.frozen(kw_only=True)
class SettingField:
    """One setting as its schema declares it.

    ``kind`` is the annotation: bool, int, float, str, or a ``Literal`` of strings. ``minimum`` and ``maximum`` bound
    a number's value, or a text's length in UTF-8 bytes.
    """

    section: str
    name: str
    kind: Any
    default: Scalar = attrs.field(repr=False)
    why: str
    unit: str
    minimum: float | None
    maximum: float | None
    secret: bool
    live: bool = False
    """Whether a change takes effect while the server runs."""

    @property
    def key(self) -> str:
        """Its path, as in ``server.port``."""
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{VARIABLE_PREFIX}{self.section}__{self.name}".upper()

    @property
    def file_variable(self) -> str:
        """The environment variable that names a mounted file with the value; for secrets."""
        return self.variable + FILE_SUFFIX

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it may be, where it is a choice; else empty."""
        return typing.get_args(self.kind)

    @property
    def range(self) -> str:
        """``from 0 to 65535``, ``from 1``, ``to 9``, or nothing."""
        low = "" if self.minimum is None else f"from {_digits(self.minimum)}"
        high = "" if self.maximum is None else f"to {_digits(self.maximum)}"
        return " ".join(filter(None, (low, high)))

    @property
    def allowed(self) -> str:
        """What it may be, in words that follow "must be"."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        unit = "bytes" if self.kind is str and self.range else self.unit
        return " ".join(filter(None, (_WORDS[self.kind], self.range, unit)))

    def admits(self, value: Scalar) -> bool:
        """Whether a value of the right type is within the range."""
        size = len(value.encode()) if isinstance(value, str) else value
        return (self.minimum is None or size >= self.minimum) and (
            self.maximum is None or size <= self.maximum
        )


@attrs.frozen
class SectionFields:
    """One section: its name, its one line of description, and its settings in the schema's order."""

    name: str
    title: str
    fields: tuple[SettingField, ...]


def describe(root: type[Any]) -> tuple[SectionFields, ...]:
    """Read a schema, in its own order; once, since it is asked for all the time and never changes.

    Raises:
        TypeError: a field is of a kind that TOML, environment and flags can't all hold, or has a validator; checks
            that span settings belong into the table of rules, where their message can name each source.
    """
    return _read(root)  # type: ignore[arg-type]  # mypy takes a class for unhashable


@functools.cache
def _read(root: type[Any]) -> tuple[SectionFields, ...]:
    defaults = root()
    annotations = typing.get_type_hints(root)
    sections = []
    for section in attrs.fields(root):
        kind = annotations[section.name]
        if not attrs.has(kind):
            raise TypeError(f"{root.__name__}.{section.name} is no section: it must be an attrs class")
        title = (kind.__doc__ or "").strip().partition("\n")[0]
        sections.append(
            SectionFields(section.name, title, _fields(section.name, kind, getattr(defaults, section.name)))
        )
    return tuple(sections)


def fields_by_key(root: type[Any]) -> dict[str, SettingField]:
    """Every setting of a schema under its path."""
    return {field.key: field for section in describe(root) for field in section.fields}


def _fields(section: str, kind: type[Any], defaults: object) -> tuple[SettingField, ...]:
    annotations = typing.get_type_hints(kind)
    fields = []
    for attribute in attrs.fields(kind):
        annotation = annotations[attribute.name]
        is_choice = typing.get_origin(annotation) is Literal and all(
            isinstance(choice, str) for choice in typing.get_args(annotation)
        )
        if annotation not in _WORDS and not is_choice:
            raise TypeError(f"{section}.{attribute.name}: no setting can be of the kind {annotation}")
        if attribute.validator is not None:
            raise TypeError(f"{section}.{attribute.name} has a validator; use a range, or a rule in rules.py")
        fields.append(
            SettingField(
                section=section,
                name=attribute.name,
                kind=annotation,
                default=getattr(defaults, attribute.name),
                **attribute.metadata,
            )
        )
    return tuple(fields)


def _digits(number: float) -> str:
    return f"{number:.15g}"
