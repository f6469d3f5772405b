"""JSON schemas of attrs classes, for the API's description: what ``json_answers.py`` writes, and ``query.py`` reads.

Own code, because it is one function over the kinds that our classes use; the decision record says what was weighed.
"""

import enum
import inspect
import re
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

Schema = dict[str, Any]

_PLAIN: Final[Mapping[object, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    types.NoneType: {"type": "null"},
    Any: {},
}


class Schemas:
    """Collects the schemas of classes under their names, to be referred to."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._kinds: dict[str, type[Any]] = {}

    def of(self, kind: Any) -> Schema:
        """Return the schema of a kind of value; of an attrs class or an enumeration, a reference to it.

        Raises:
            TypeError: no JSON is known for it.
        """
        if isinstance(kind, dict):
            return kind
        if kind in _PLAIN:
            return dict(_PLAIN[kind])
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in {types.UnionType, typing.Union}:
            return self._union([self.of(argument) for argument in arguments])
        if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:  # noqa: PLR2004
            return {"type": "array", "items": self.of(arguments[0])}
        if origin in {dict, Mapping} and arguments[0] is str:
            return {"type": "object", "additionalProperties": self.of(arguments[1])}
        if inspect.isclass(kind) and (attrs.has(kind) or issubclass(kind, enum.StrEnum)):
            return self._reference(kind)
        raise TypeError(f"no JSON schema is known for {kind!r}")

    def _union(self, schemas: list[Schema]) -> Schema:
        kinds = [schema.get("type") for schema in schemas]
        if all(
            len(schema) == 1 and isinstance(kind, str) for schema, kind in zip(schemas, kinds, strict=True)
        ):
            return {"type": kinds}
        return {"anyOf": schemas}

    def _reference(self, kind: type[Any]) -> Schema:
        name = kind.__name__
        if self._kinds.setdefault(name, kind) is not kind:
            raise TypeError(f"two classes are named {name}: {kind!r} and {self._kinds[name]!r}")
        if name not in self.components:
            self.components[name] = {}  # first of all, for a class may refer to itself
            self.components[name] = (
                self._enumeration(kind) if issubclass(kind, enum.StrEnum) else self._object(kind)
            )
        return {"$ref": f"#/components/schemas/{name}"}

    def _enumeration(self, kind: type[enum.StrEnum]) -> Schema:
        return {"type": "string", "enum": [member.value for member in kind], "description": _first_line(kind)}

    def _object(self, kind: type[Any]) -> Schema:
        annotations = typing.get_type_hints(kind)
        names = [field.name for field in attrs.fields(kind)]
        return {
            "type": "object",
            "description": _first_line(kind),
            "properties": {name: self.of(annotations[name]) for name in names},
            "required": names,
        }


def parameter_schema(schemas: Schemas, kind: Any, metadata: Mapping[str, Any], default: object) -> Schema:
    """Return the schema of a query parameter that :func:`voice_agent.web.query.parameter` declares."""
    if isinstance(kind, types.UnionType):
        [kind] = [inner for inner in typing.get_args(kind) if inner is not types.NoneType]
    schema = schemas.of(kind)
    low, high = ("minimum", "maximum") if kind is int else ("minLength", "maxLength")
    for name, value in ((low, metadata["minimum"]), (high, metadata["maximum"])):
        if value is not None:
            schema[name] = value
    if metadata["pattern"] is not None:
        schema["pattern"] = f"^{metadata['pattern']}$"
    if default is not None:
        schema["default"] = default
    return schema


def _first_line(kind: type[Any]) -> str:
    """Return the first sentence of a class's docstring, without the marks of its markup."""
    line = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
    return re.sub(r":\w+:`~?([\w.]+)`", r"\1", line).replace("``", "`")
