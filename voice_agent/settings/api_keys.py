"""The keys file: which API keys are valid, one line each; TOML, so that it reads the same in a file and in a variable.

::

    # kiosk in the hall
    kiosk = { sha256 = "9f86d08…", scopes = ["call"], expires = 2030-01-31, quotas = { max_calls = 2 } }
    ops-2 = { sha256 = "60303ae…", scopes = ["observe", "admin"], tenant = "acme" }

The name before the equals sign is the key's id. An error names the line and the id, and never repeats a value.
"""

import datetime as dt
import re
from collections.abc import Mapping
from typing import Final

import attrs
import cattrs
import tomli_w

from voice_agent.core.identity import ANONYMOUS, Quotas, Scope
from voice_agent.settings.identity_values import (
    DEFAULT_TENANT,
    FaultError,
    Tenant,
    faults,
    make_converter,
    quotas,
)
from voice_agent.settings.toml_lines import TomlSyntaxError, parse

KEY_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
"""No underscore, because that separates the parts of a key, and no colon, because that marks a token's subject."""

_DIGEST: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@attrs.frozen(kw_only=True)
class ApiKey:
    """What the server knows of a key; not the key itself."""

    sha256: bytes = attrs.field(repr=False)
    """Of the whole key as it was printed; 32 bytes."""
    scopes: frozenset[Scope] = frozenset({Scope.CALL})
    tenant: Tenant = DEFAULT_TENANT
    expires: dt.datetime | None = None
    """From then on it is refused; a date alone means its first moment, UTC."""
    quotas: Quotas = attrs.field(factory=Quotas)


class KeysError(ValueError):
    """The text is no list of keys; the message says where, and holds nothing of any hash."""


def parse_keys(text: str) -> dict[str, ApiKey]:
    """Read the keys by id.

    Raises:
        KeysError: it is no TOML, or a key has an id, a field or a value that it can't have; names all such keys.
    """
    try:
        document = parse(text)
    except TomlSyntaxError as error:
        where = "" if error.line is None else f"line {error.line}: "
        raise KeysError(f"{where}not valid TOML: {error.message}") from None
    keys: dict[str, ApiKey] = {}
    wrong: list[str] = []
    for name, raw in document.values.items():
        line = f"line {document.line((name,))}"
        try:
            key_id = checked_key_id(name)
            keys[key_id] = _key(raw)
        except FaultError as error:
            # What is no id may be a hash or a key that slipped to the left of the equals sign.
            named = f"{line}, key {name}" if KEY_ID.fullmatch(name) else line
            wrong.append(f"{named}: {error}")
    if wrong:
        raise KeysError("; ".join(wrong))
    return keys


def key_line(key_id: str, key: ApiKey) -> str:
    """Write the line that :func:`parse_keys` reads; what is as by default is left out, but for the scopes."""
    fields = [
        f'sha256 = "{key.sha256.hex()}"',
        "scopes = [" + ", ".join(f'"{scope}"' for scope in Scope if scope in key.scopes) + "]",
    ]
    if key.tenant != DEFAULT_TENANT:
        fields.append(_written("tenant", key.tenant))
    if key.expires is not None:
        fields.append(_written("expires", key.expires.astimezone(dt.UTC)))
    quotas_given = {name: value for name, value in attrs.asdict(key.quotas).items() if value is not None}
    if quotas_given:
        inner = ", ".join(_written(name, value) for name, value in quotas_given.items())
        fields.append(f"quotas = {{ {inner} }}")
    return f"{key_id} = {{ {', '.join(fields)} }}"


def _written(name: str, value: object) -> str:
    return tomli_w.dumps({name: value}).strip()


def keys_fault(text: str) -> str | None:
    """Return what is wrong with a list of keys, or None."""
    try:
        parse_keys(text)
    except KeysError as error:
        return str(error)
    return None


def checked_key_id(name: str) -> str:
    """Return a name that a key can have.

    Raises:
        FaultError: it can't.
    """
    if not KEY_ID.fullmatch(name):
        raise FaultError("a key's id has 1 to 32 lower-case letters, digits and hyphens")
    if name == ANONYMOUS.key_id:
        raise FaultError("this id means callers without a key; choose another")
    return name


def _key(raw: object) -> ApiKey:
    if not isinstance(raw, Mapping):
        raise FaultError('must be a table, as { sha256 = "…", scopes = ["call"] }')
    try:
        return _CONVERTER.structure(raw, ApiKey)
    except cattrs.BaseValidationError as error:
        raise FaultError(faults(error)) from None


def _digest(raw: object) -> bytes:
    if not isinstance(raw, str) or not _DIGEST.fullmatch(raw):
        raise FaultError("must be the 64 hexadecimal digits of the key's SHA-256")
    return bytes.fromhex(raw)


def _moment(raw: object) -> dt.datetime:
    if isinstance(raw, dt.datetime):
        if raw.tzinfo is None:
            raise FaultError("must say its offset from UTC, as 2030-01-31T12:00:00Z")
        return raw
    if isinstance(raw, dt.date):
        return dt.datetime(raw.year, raw.month, raw.day, tzinfo=dt.UTC)
    raise FaultError("must be a date, as 2030-01-31, or a moment, as 2030-01-31T12:00:00Z, without quotes")


_CONVERTER: Final = make_converter(
    sha256=(bytes, _digest), expires=(dt.datetime | None, _moment), quotas=(Quotas, quotas)
)
