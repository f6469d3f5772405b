"""The layers that settings come from, and how they lie on each other. Pure: nothing here reads a file or decides.

Later wins, setting by setting: defaults < settings.toml < settings.local.toml < environment < flags. A layer maps a
setting's path to what the layer holds and where it holds it; it may hold paths that no schema knows.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import attrs

from voice_agent.settings.fields import VARIABLE_PREFIX, SettingField
from voice_agent.settings.toml_lines import KeyPath, parse
from voice_agent.settings.values import quoted

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
"""TOML 1.0, "Keys": what needs no quotes."""


class LayerKind(StrEnum):
    """The kinds of layer, lowest first."""

    DEFAULT = "default"
    FILE = "settings file"
    ENVIRONMENT = "environment"
    MOUNTED_FILE = "file named by"
    """A file with a secret that a ``*_FILE`` variable names; part of the environment's layer."""
    FLAG = "flag"


@attrs.frozen
class Source:
    """Where a value comes from; ``str()`` writes it for people.

    ``name`` is the settings file's path, the environment variable or the flag; ``line`` counts from 1.
    """

    kind: LayerKind
    name: str = ""
    line: int | None = None

    def __str__(self) -> str:
        if self.kind is LayerKind.DEFAULT:
            return "default"
        if self.kind is not LayerKind.FILE:
            return f"{self.kind} {_on_one_line(self.name)}"
        name = _on_one_line(self.name)
        return name if self.line is None else f"{name}:{self.line}"


DEFAULT: Final = Source(LayerKind.DEFAULT)


@attrs.frozen
class Entry:
    """What a layer holds for one setting; it may be a secret, so no ``repr`` shows it."""

    value: object = attrs.field(repr=False)
    source: Source


Layer = Mapping[str, Entry]


def merge(layers: Iterable[Layer]) -> dict[str, Entry]:
    """Lay each layer on the ones before it."""
    merged: dict[str, Entry] = {}
    for layer in layers:
        merged |= layer
    return merged


def default_layer(fields: Mapping[str, SettingField]) -> Layer:
    """Return what the schema itself says."""
    return {key: Entry(field.default, DEFAULT) for key, field in fields.items()}


def toml_layer(text: str, file_name: str) -> Layer:
    """Return what a settings file says: ``[section]`` and ``key = value``.

    What is not in a section stands under its own name, and so does a section without a key.

    Raises:
        TomlSyntaxError: the text is no TOML.
    """
    document = parse(text)
    layer: dict[str, Entry] = {}
    for name, value in document.values.items():
        inside = value if isinstance(value, dict) else {}
        held: dict[KeyPath, object] = {(name, key): inner for key, inner in inside.items()}
        for path, inner in (held or {(name,): value}).items():
            layer[_dotted(path)] = Entry(inner, Source(LayerKind.FILE, file_name, document.line(path)))
    return layer


def environment_layer(environ: Mapping[str, str], fields: Mapping[str, SettingField]) -> Layer:
    """Return what the environment says in variables ``VOICE_AGENT__SECTION__KEY``.

    A variable that names a secret's file becomes an entry whose source is that variable and whose value is the
    file's path, still to be read. A variable of the prefix that sets nothing stands under its own name.
    """
    direct = {field.variable: field.key for field in fields.values()}
    files = {field.file_variable: field.key for field in fields.values() if field.secret}
    layer: dict[str, Entry] = {}
    for variable in sorted(name for name in environ if name.startswith(VARIABLE_PREFIX)):
        if variable not in direct and variable in files:
            key, kind = files[variable], LayerKind.MOUNTED_FILE
        else:
            key, kind = direct.get(variable, variable), LayerKind.ENVIRONMENT
        layer[key] = Entry(environ[variable], Source(kind, variable))
    return layer


def flag_layer(flags: Mapping[str, object]) -> Layer:
    """Return what the command line says; a flag that is None was not given."""
    return {
        key: Entry(value, Source(LayerKind.FLAG, key)) for key, value in flags.items() if value is not None
    }


def _dotted(path: Iterable[str]) -> str:
    # Quoted, a key that holds a dot itself ("server.port" = 1) can't be taken for a path.
    return ".".join(part if _BARE_KEY.fullmatch(part) else quoted(part) for part in path)


def _on_one_line(name: str) -> str:
    return name if name.isprintable() else quoted(name)
