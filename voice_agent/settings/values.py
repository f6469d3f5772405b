"""One value at a time: from what a layer holds to what the schema wants, and back into words for an error.

Strict on purpose. A settings file that says ``port = "8080"`` or ``partials = 1`` was not meant that way; only the
environment, which holds nothing but text, is parsed by the type of the field.
"""

import json
import math
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import cattrs

from voice_agent.settings.fields import Scalar, SettingField

REDACTED: Final = "********"

_WORDS_FOR_BOOLEANS: Final[Mapping[str, bool]] = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
_TOML_INTEGERS: Final = range(-(2**63), 2**63)
"""TOML 1.0, "Integer": 64-bit signed; a longer one must not be accepted silently."""
_LONGEST_SHOWN: Final = 80
"""Characters of a value that an error shows; enough to recognise it."""


class WrongValueError(ValueError):
    """A value does not fit its setting; the message completes "server.port = 3.5 …"."""


def structure(field: SettingField, raw: object, *, from_text: bool) -> Scalar:
    """Turn what a layer holds into the setting's value.

    ``from_text`` says that the layer holds only text, so that text is parsed by the field's type.

    Raises:
        WrongValueError: wrong type, not finite, not a choice, or out of range; says what is allowed.
    """
    converter = _FROM_TEXT if from_text and isinstance(raw, str) else TYPED
    try:
        value: Scalar = converter.structure(raw, field.kind)
    except WrongValueError as error:
        raise WrongValueError(f"{error}; must be {field.allowed}") from None
    if not field.admits(value):
        raise WrongValueError(f"is out of range; must be {field.allowed}")
    return value


def shown(raw: object) -> str:
    """Write a value for an error message: recognisable, on one line, and of bounded length."""
    match raw:
        case bool():
            text = str(raw).lower()
        case int() if raw not in _TOML_INTEGERS:
            # Python refuses to write an integer of thousands of digits in decimal; hexadecimal has no limit.
            text = f"{raw:#x}"
        case str():
            text = quoted(raw)
        case list():
            text = "[…]" if raw else "[]"
        case dict():
            text = "{…}" if raw else "{}"
        case _:
            text = str(raw)
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def quoted(text: str) -> str:
    """Write text in quotes, on one line, with every character that can't be seen escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())


def _refusal(raw: object) -> WrongValueError:
    names = {bool: "true or false", int: "a whole number", float: "a fraction", str: "text"}
    names |= {list: "an array", dict: "a table"}
    return WrongValueError(f"is {names.get(type(raw), f'a {type(raw).__name__}')}")


def _boolean(raw: object, _kind: type[bool]) -> bool:
    if not isinstance(raw, bool):
        raise _refusal(raw)
    return raw


def _integer(raw: object, _kind: type[int]) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise _refusal(raw)
    if raw not in _TOML_INTEGERS:
        raise WrongValueError("has too many digits")
    return raw


def _fraction(raw: object, _kind: type[float]) -> float:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return float(_integer(raw, int))
    if not isinstance(raw, float):
        raise _refusal(raw)
    if not math.isfinite(raw):
        raise WrongValueError("is not finite")
    return raw


def _text(raw: object, _kind: type[str]) -> str:
    if not isinstance(raw, str):
        raise _refusal(raw)
    # Neither can be part of a path or be written in UTF-8: surrogates stand for bytes of the environment that
    # are no UTF-8 (PEP 383).
    if "\0" in raw or any("\ud800" <= character <= "\udfff" for character in raw):
        raise WrongValueError("holds a NUL character or bytes that are no UTF-8")
    return raw


def _choice(raw: object, kind: Any) -> str:
    text = _text(raw, str)
    if text not in typing.get_args(kind):
        raise WrongValueError("is not a choice")
    return text


def _is_choice(kind: object) -> bool:
    return typing.get_origin(kind) is Literal


def _boolean_from_text(raw: str, _kind: type[bool]) -> bool:
    word = raw.strip().lower()
    if word not in _WORDS_FOR_BOOLEANS:
        raise WrongValueError("is neither true/yes/on/1 nor false/no/off/0")
    return _WORDS_FOR_BOOLEANS[word]


def _integer_from_text(raw: str, kind: type[int]) -> int:
    # int() and float() read the digits of every script; a settings value is ASCII.
    if not raw.isascii():
        raise WrongValueError("is not a whole number")
    try:
        return _integer(int(raw), kind)
    except WrongValueError:
        raise
    except ValueError:
        raise WrongValueError("is not a whole number") from None


def _fraction_from_text(raw: str, kind: type[float]) -> float:
    if not raw.isascii():
        raise WrongValueError("is not a number")
    try:
        return _fraction(float(raw), kind)
    except WrongValueError:
        raise
    except ValueError:
        raise WrongValueError("is not a number") from None


def _converter(hooks: Mapping[type[Any], Callable[[Any, Any], Any]]) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind, hook in hooks.items():
        converter.register_structure_hook(kind, hook)
    converter.register_structure_hook_func(_is_choice, _choice)
    return converter


TYPED: Final = _converter({bool: _boolean, int: _integer, float: _fraction, str: _text})
"""Structures what is typed already: values of a TOML file, and a whole schema."""
_FROM_TEXT: Final = _converter(
    {bool: _boolean_from_text, int: _integer_from_text, float: _fraction_from_text, str: _text}
)
