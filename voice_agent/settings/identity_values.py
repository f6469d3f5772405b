"""What an identity is described with, in a keys file or a token's claims: scopes, tenant, quotas; read strictly.

A description that is half understood would let somebody do more than was meant, so that a wrong type, an unknown
field or a negative quota refuses the whole. No message repeats a value, because what stands in the wrong place may
be a secret.
"""

import operator
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NewType

import attrs
import cattrs

from voice_agent.core.identity import Hours, Quotas, Scope

Hook = Callable[[object], Any]
"""From what was written to the value it means; raises :class:`FaultError`."""

Tenant = NewType("Tenant", str)
"""Whose calls an identity sees: 1 to 64 visible ASCII characters."""

DEFAULT_TENANT: Final = Tenant("default")
"""The tenant of whoever is given none: where there is only one, nobody needs to name it."""

MAX_QUOTA: Final = 1e9
"""More than any server can give; a larger number is a mistake, and would not fit everywhere."""

MAX_RETENTION_HOURS: Final = 87_600
"""Ten years, as of the setting ``store.retention_hours``."""

_TENANT: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_FIELD_NAME: Final = re.compile(r"[a-z_]{1,32}", re.ASCII)


class FaultError(ValueError):
    """A value is not what it has to be; the message completes "scopes …" and holds nothing of the value."""


def make_converter(**hooks: tuple[Any, Hook]) -> cattrs.Converter:
    """Return a converter that reads scopes, tenants and quotas; unknown fields are refused.

    ``hooks`` are further kinds and their readers, under any name.
    """
    converter = cattrs.Converter(forbid_extra_keys=True)
    own = (
        (frozenset[Scope], _scopes),
        (Tenant, tenant),
        (int | None, _count),
        (float | None, _amount),
        (Hours | None, _hours),
    )
    for kind, hook in (*own, *hooks.values()):
        if isinstance(kind, type):
            converter.register_structure_hook(kind, partial(_apply, hook))
        else:
            converter.register_structure_hook_func(partial(operator.eq, kind), partial(_apply, hook))
    return converter


def _apply(hook: Hook, raw: object, _kind: object) -> Any:
    return hook(raw)


def faults(error: BaseException) -> str:
    """Say in one line what a converter of :func:`make_converter` refused, without any value."""
    told = cattrs.transform_error(error, path="", format_exception=lambda inner, _: _words(inner))
    return "; ".join(_field_first(line) for line in told)


def quotas(raw: object) -> Quotas:
    """Read quotas.

    Raises:
        FaultError: it is no table, has an unknown field, or a number that is none, negative or endless.
    """
    if not isinstance(raw, Mapping):
        raise FaultError("must be a table")
    try:
        return _QUOTAS.structure(raw, Quotas)
    except cattrs.BaseValidationError as error:
        raise FaultError(faults(error)) from None


def tenant(raw: object) -> Tenant:
    """Read a tenant's name.

    Raises:
        FaultError: it is none.
    """
    if not isinstance(raw, str) or not _TENANT.fullmatch(raw):
        raise FaultError("must be 1 to 64 visible ASCII characters without spaces")
    return Tenant(raw)


def _scopes(raw: object) -> frozenset[Scope]:
    known = {str(scope): scope for scope in Scope}
    if (
        not isinstance(raw, list)
        or not raw
        or not all(isinstance(name, str) and name in known for name in raw)
    ):
        raise FaultError(f"must be a list of one or more of {', '.join(known)}")
    return frozenset(known[name] for name in raw)


def _count(raw: object) -> int | None:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw <= MAX_QUOTA:
        raise FaultError("must be a whole number from 0")
    return raw


def _amount(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise FaultError("must be a number")
    if not 0 < raw <= MAX_QUOTA:  # nor is NaN
        raise FaultError("must be a number above 0")
    return float(raw)


def _hours(raw: object) -> Hours | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= MAX_RETENTION_HOURS:
        raise FaultError(f"must be a number of hours from 0 to {MAX_RETENTION_HOURS}")
    return Hours(float(raw))


def _words(error: BaseException) -> str:
    match error:
        case FaultError():
            return str(error)
        case cattrs.ForbiddenExtraKeysError():
            known = ", ".join(attribute.name for attribute in attrs.fields(_class(error)))
            # A name that looks like none may be a secret that slipped to the left of the equals sign.
            names = [name if _FIELD_NAME.fullmatch(str(name)) else "…" for name in error.extra_fields]
            return f"unknown field {', '.join(sorted(names))}; the fields are {known}"
        case KeyError():
            return "is missing"
        case _:
            return "is of the wrong type"


def _class(error: cattrs.ForbiddenExtraKeysError) -> Any:
    return error.cl


def _field_first(line: str) -> str:
    # cattrs writes "what is wrong @ .path".
    words, _, path = line.rpartition(" @ ")
    return f"{path.removeprefix('.')} {words}".strip()


_QUOTAS: Final = make_converter()
