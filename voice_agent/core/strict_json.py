"""JSON read strictly: one object, of which two readers can't think differently.

RFC 8259 leaves repeated keys and unpaired surrogates open, and Python's reader takes NaN; here they are errors. Messages
of callers and claims of tokens are read with it.
"""

import json
import math
from typing import Final, NoReturn

from voice_agent.core.errors import InvalidJsonError, NotAnObjectError

MAX_DEPTH: Final = 32


def load_object(text: str) -> dict[str, object]:
    """Read one JSON object.

    Raises:
        InvalidJsonError: no JSON, a repeated key, NaN or infinity, deeper than 32, or an unpaired surrogate.
        NotAnObjectError: JSON, but no object.
    """
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise InvalidJsonError(_too_deep()) from None
    except json.JSONDecodeError as error:
        raise InvalidJsonError(f"no JSON: {error.msg} at character {error.pos}") from None
    except ValueError:
        # The interpreter refuses to convert an integer of thousands of digits.
        raise InvalidJsonError("a number has too many digits") from None
    _check_depth(value)
    _check_surrogates(text, value)
    if not isinstance(value, dict):
        raise NotAnObjectError("a message is a JSON object")
    return value


def _check_depth(value: object) -> None:
    """Refuse nesting beyond :data:`MAX_DEPTH`; level by level, so that it can't run out of stack itself."""
    level: list[object] = [value]
    depth = 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise InvalidJsonError(_too_deep())
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
        ]


def _check_surrogates(text: str, value: object) -> None:
    r"""Refuse half a character, raw or escaped (``\ud800``): it could not be written as UTF-8 again."""
    try:
        text.encode()
        if "\\u" in text:
            _ENCODER.encode(value).encode()
    except UnicodeEncodeError:
        raise InvalidJsonError("a string holds an unpaired surrogate") from None


def _too_deep() -> str:
    return f"nested deeper than {MAX_DEPTH}"


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise InvalidJsonError("an object repeats a key")
    return fields


def _finite_float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):  # an exponent beyond the range
        raise InvalidJsonError("a number is beyond the range of a double")
    return value


def _refuse_constant(literal: str) -> NoReturn:
    raise InvalidJsonError(f"{literal} is no JSON number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique_pairs, parse_float=_finite_float, parse_constant=_refuse_constant
)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
