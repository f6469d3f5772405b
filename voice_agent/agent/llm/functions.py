"""Tools for a language model: typed Python functions, told to it as JSON schemas made from their annotations.

An async function with a docstring becomes a :class:`~voice_agent.agent.tools.Tool`, with an attrs class of its parameters;
``Annotated[date, "a day from today on"]`` describes one. docs/language-model.md has an example.
"""

import enum
import inspect
import types
import typing
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import attrs

from voice_agent.agent.tools import Tool

Schema = dict[str, Any]

DEFAULT_LIMIT_SECONDS: Final = 5.0

_PLAIN: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Decimal: {"type": "string", "description": "a decimal number, as text"},
    date: {"type": "string", "format": "date"},
    datetime: {"type": "string", "format": "date-time"},
    types.NoneType: {"type": "null"},
    Any: {},
}


def tool(
    *, limit_seconds: float | Callable[[], float] = DEFAULT_LIMIT_SECONDS, is_pure: bool = False
) -> Callable[[Callable[..., Awaitable[Any]]], Tool[Any, Any]]:
    """Make a tool of an async function; its name and its docstring are told to the model.

    ``is_pure`` says that it changes nothing in the world, so that it may be used while the caller might still speak on.

    Raises:
        TypeError: the function is not async, has no docstring, or a parameter without annotation, or of a kind that JSON can't hold.
    """

    def made(function: Callable[..., Awaitable[Any]]) -> Tool[Any, Any]:
        name = function.__name__
        purpose = inspect.cleandoc(function.__doc__ or "")
        if not purpose or not inspect.iscoroutinefunction(function):
            raise TypeError(
                f"the tool {name} must be an async function with a docstring, which tells its purpose"
            )
        arguments = _arguments_of(function)
        schema_of(arguments)

        async def do(given: Any) -> Any:
            return await function(
                **{field.name: getattr(given, field.name) for field in attrs.fields(arguments)}
            )

        limit = limit_seconds if callable(limit_seconds) else lambda: limit_seconds
        return Tool(
            name=name,
            purpose=purpose,
            arguments=arguments,
            result=object,
            do=do,
            limit_seconds=limit,
            is_pure=is_pure,
        )

    return made


def _arguments_of(function: Callable[..., Any]) -> type[Any]:
    """Return an attrs class with the function's parameters as its fields."""
    hints = typing.get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in hints or parameter.kind in {
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
            parameter.POSITIONAL_ONLY,
        }:
            raise TypeError(
                f"the tool {function.__name__}: {parameter} must be one named parameter with an annotation"
            )
        default = attrs.NOTHING if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = attrs.field(type=hints[parameter.name], default=default, kw_only=True)
    return attrs.make_class(f"{function.__name__}_arguments", fields, frozen=True)


def described(tools: Sequence[Tool[Any, Any]]) -> list[Schema]:
    """Return tools as a request tells them: the API's reference, "Create chat completion", ``tools``."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.purpose,
                "parameters": schema_of(tool.arguments),
            },
        }
        for tool in tools
    ]


def schema_of(kind: Any) -> Schema:  # noqa: PLR0911 - a row for each kind
    """Return the JSON schema of what :data:`voice_agent.agent.tools.CONVERTER` structures to a kind; classes stand inline.

    Raises:
        TypeError: no JSON is known for it.
    """
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        words = [word for word in arguments[1:] if isinstance(word, str)]
        return schema_of(arguments[0]) | ({"description": " ".join(words)} if words else {})
    if origin is Literal and all(isinstance(choice, str) for choice in arguments):
        return {"type": "string", "enum": list(arguments)}
    if origin in {types.UnionType, typing.Union}:
        return {"anyOf": [schema_of(argument) for argument in arguments]}
    if origin is list or (origin is tuple and arguments[1:] == (Ellipsis,)):
        return {"type": "array", "items": schema_of(arguments[0])}
    if inspect.isclass(kind) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if inspect.isclass(kind) and attrs.has(kind):
        return _object(kind)
    raise TypeError(f"no JSON schema is known for {kind!r}")


def _object(kind: type[Any]) -> Schema:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = attrs.fields(kind)
    return {
        "type": "object",
        "properties": {field.name: schema_of(hints[field.name]) for field in fields},
        "required": [field.name for field in fields if field.default is attrs.NOTHING],
        "additionalProperties": False,
    }
