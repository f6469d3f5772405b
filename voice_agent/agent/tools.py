"""Tools: what an agent does for a caller, typed, in one register, each with a time limit.

A tool is an async function from one attrs class to another. It is called as a function (:meth:`Toolbox.run`), or by its name
with JSON (:meth:`Toolbox.call`), by a language model or over HTTP. Arguments are structured strictly: text is no number.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Generic, TypeVar

import attrs
import cattrs
import trio
from cattrs.preconf.json import make_converter

from voice_agent.agent.dialogue_errors import ActionFailedError
from voice_agent.core.errors import InvalidFieldError

ArgumentsT = TypeVar("ArgumentsT")
ResultT = TypeVar("ResultT")


@attrs.frozen(kw_only=True)
class Tool(Generic[ArgumentsT, ResultT]):
    """One thing that an agent can do. ``limit_seconds`` is asked at each call, because it may be a setting."""

    name: str
    purpose: str
    """For people, and for a language model that chooses."""
    arguments: type[ArgumentsT]
    result: type[ResultT]
    do: Callable[[ArgumentsT], Awaitable[ResultT]]
    limit_seconds: Callable[[], float]
    is_pure: bool = False
    """Whether it changes nothing in the world: then it may be used while the caller might still speak on."""


class Toolbox:
    """Every tool of an agent, by its name.

    Raises:
        ValueError: two tools have one name.
    """

    def __init__(self, *tools: Tool[Any, Any]) -> None:
        self.tools: Final[Mapping[str, Tool[Any, Any]]] = {tool.name: tool for tool in tools}
        if len(self.tools) < len(tools):
            raise ValueError("two tools have one name")

    async def run(self, tool: Tool[ArgumentsT, ResultT], arguments: ArgumentsT) -> ResultT:
        """Do it, within its time.

        Raises:
            ActionFailedError: it failed or took too long; whether it was done is then not known, and must not be said.
        """
        seconds = tool.limit_seconds()
        try:
            with trio.fail_after(seconds):
                return await tool.do(arguments)
        except trio.TooSlowError:
            raise ActionFailedError(f"{tool.name} took longer than {seconds:g} s") from None

    async def call(self, name: str, raw: object) -> Any:
        """Do it by name, with arguments as JSON has them; returns what JSON can hold.

        Raises:
            InvalidFieldError: there is no such tool, or the arguments are not its arguments; names the field.
            ActionFailedError: it failed or took too long.
        """
        tool = self.tools.get(name)
        if tool is None:
            raise InvalidFieldError(
                f"there is no tool {name!r}; there are {', '.join(self.tools)}", field="name"
            )
        if not isinstance(raw, Mapping):
            raise InvalidFieldError(f"{name}: the arguments must be an object", field="arguments")
        try:
            arguments = CONVERTER.structure(raw, tool.arguments)
        except (cattrs.BaseValidationError, TypeError, ValueError) as error:
            told = cattrs.transform_error(error, path="arguments")
            raise InvalidFieldError(f"{name}: {'; '.join(told)}", field="arguments") from None
        return CONVERTER.unstructure(await self.run(tool, arguments))


def _strictly(kind: type[Any]) -> Callable[[Any, Any], Any]:
    def structure(raw: Any, _: Any) -> Any:
        if type(raw) is not kind:
            raise TypeError(f"must be {kind.__name__}")
        return raw

    return structure


def _decimal(raw: Any, _: Any) -> Decimal:
    if isinstance(raw, bool) or not isinstance(raw, int | str | Decimal):
        raise TypeError("must be a decimal, as text or as a whole number")
    try:
        number = Decimal(raw)
    except InvalidOperation:
        raise ValueError("is no decimal") from None
    if not number.is_finite():
        raise ValueError("is not finite")
    return number


def _converter() -> cattrs.Converter:
    converter = make_converter(forbid_extra_keys=True)
    for kind in (str, int, bool):
        converter.register_structure_hook(kind, _strictly(kind))
    converter.register_structure_hook(Decimal, _decimal)
    converter.register_structure_hook(date, lambda raw, _: date.fromisoformat(_strictly(str)(raw, str)))
    converter.register_unstructure_hook(Decimal, str)
    converter.register_unstructure_hook(date, date.isoformat)
    converter.register_unstructure_hook(datetime, datetime.isoformat)
    return converter


CONVERTER: Final = _converter()
"""Between tools and JSON: decimals are text, for a float would lose paise; days and times are ISO 8601."""
