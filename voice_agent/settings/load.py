"""Read the settings of all layers, check each value and structure them; one error names everything that is wrong.

Every layer is checked, also where a later one wins: a mistake that an environment variable hides today would come
to light on the day the variable goes.
"""

import difflib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Generic, TypeAlias, TypeVar

import attrs

from voice_agent.core.errors import SettingsError
from voice_agent.core.units import KIB
from voice_agent.settings.fields import VARIABLE_PREFIX, SettingField, fields_by_key
from voice_agent.settings.layers import (
    Entry,
    Layer,
    LayerKind,
    Source,
    default_layer,
    environment_layer,
    flag_layer,
    merge,
    toml_layer,
)
from voice_agent.settings.rules import RULES, Rule
from voice_agent.settings.schema import Settings
from voice_agent.settings.toml_lines import TomlSyntaxError
from voice_agent.settings.values import REDACTED, TYPED, WrongValueError, shown, structure

FILE_NAME: Final = "settings.toml"
LOCAL_FILE_NAME: Final = "settings.local.toml"
MAX_FILE_BYTES: Final = 128 * KIB
"""Several times the reference file. A running server reads them in a thread, but what parses a megabyte of mistakes holds
up everybody else at times (86 ms, measured)."""
MAX_SECRET_BYTES: Final = 64 * KIB
MAX_TOLD: Final = 1000
"""Mistakes that one error names; a file of another kind, taken for settings, has thousands."""

RootT = TypeVar("RootT")
_NO_FLAGS: Final[Mapping[str, object]] = MappingProxyType({})


@attrs.frozen
class Loaded(Generic[RootT]):
    """Settings that passed every check, and the source of each value under its path (``server.port``)."""

    settings: RootT = attrs.field(repr=False)
    sources: Mapping[str, Source]


LoadedSettings: TypeAlias = Loaded[Settings]


class _UnreadableError(Exception):
    """A file can't be read; the message completes "settings.toml …"."""


@attrs.frozen
class _Problem:
    """One thing that is wrong, in words, and the setting at fault; None where a whole file is."""

    words: str
    key: str | None = None


def load_settings(
    *,
    config_dir: Path | None = None,
    files: Sequence[Path] | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] = _NO_FLAGS,
) -> LoadedSettings:
    """Load the project's settings from every layer.

    ``config_dir`` (default: the working directory) is where ``settings.toml`` and ``settings.local.toml`` may be.
    ``files`` replaces both: exactly these are read, later wins, and each must exist; an empty sequence reads none.
    ``flags`` maps a path (``server.port``) to a value; None means not given, and text is parsed by the field's type.

    Raises:
        SettingsError: lists every mistake of every layer with its path, value, source and what is allowed.
    """
    return load(Settings, rules=RULES, config_dir=config_dir, files=files, environ=environ, flags=flags)


def load(
    root: type[RootT],
    *,
    rules: Sequence[Rule[RootT]] = (),
    config_dir: Path | None = None,
    files: Sequence[Path] | None = None,
    environ: Mapping[str, str] = os.environ,
    flags: Mapping[str, object] = _NO_FLAGS,
) -> Loaded[RootT]:
    """Load any schema; :func:`load_settings` says what the arguments mean.

    Raises:
        SettingsError: lists every mistake of every layer.
        TypeError: the schema is not one that can be loaded.
    """
    fields = fields_by_key(root)
    problems: list[_Problem] = []
    layers = [
        *_file_layers(config_dir, files, problems),
        _with_secrets(environment_layer(environ, fields), environ, fields, problems),
        flag_layer(flags),
    ]
    checked = [_checked(layer, fields, problems) for layer in layers]
    merged = merge([default_layer(fields), *checked])
    settings = TYPED.structure(_nested(merged, fields), root)
    faulty = {problem.key for problem in problems}
    for rule in rules:
        # Over a value that was refused, or with a file missing, a rule would judge values that nobody chose.
        if faulty.isdisjoint({*rule.keys, None}) and not rule.holds(settings):
            stated = ", ".join(_stated(fields[key], merged[key]) for key in rule.keys)
            problems.append(_Problem(f"{stated}: {rule.words(settings)}", rule.keys[0]))
    if problems:
        raise _error(problems)
    return Loaded(settings, MappingProxyType({key: merged[key].source for key in fields}))


def _file_layers(
    config_dir: Path | None, files: Sequence[Path] | None, problems: list[_Problem]
) -> Iterator[Layer]:
    if config_dir is not None and files is None and not _may_be_folder(config_dir):
        problems.append(_Problem(f"{Source(LayerKind.FILE, str(config_dir))}: no such folder"))
        return
    folder = config_dir or Path()
    for path in files if files is not None else (folder / FILE_NAME, folder / LOCAL_FILE_NAME):
        try:
            yield toml_layer(_read(path, MAX_FILE_BYTES), str(path))
        except _UnreadableError as error:
            # A link that leads nowhere is a mistake, not a file left out.
            left_out = isinstance(error.__cause__, FileNotFoundError) and not path.is_symlink()
            if files is not None or not left_out:
                problems.append(_Problem(f"{Source(LayerKind.FILE, str(path))}: {error}"))
        except TomlSyntaxError as error:
            source = Source(LayerKind.FILE, str(path), error.line)
            problems.append(_Problem(f"{source}: not valid TOML: {error.message}"))


def _may_be_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return True  # reading the files in it fails too, and that error has the reason


def _with_secrets(
    layer: Layer, environ: Mapping[str, str], fields: Mapping[str, SettingField], problems: list[_Problem]
) -> Layer:
    """Read the mounted files that the environment names."""
    read: dict[str, Entry] = {}
    for key, entry in layer.items():
        field = fields.get(key)
        if field is not None and field.secret and {field.variable, field.file_variable} <= environ.keys():
            problems.append(
                _Problem(f"{key}: both {field.variable} and {field.file_variable} are set; unset one", key)
            )
        elif entry.source.kind is LayerKind.MOUNTED_FILE:
            try:
                read[key] = attrs.evolve(entry, value=_read_secret(Path(str(entry.value))))
            except _UnreadableError as error:
                named = f"{shown(entry.value)}, the file named by {entry.source.name},"
                problems.append(_Problem(f"{key}: {named} {error}", key))
        else:
            read[key] = entry
    return read


def _checked(layer: Layer, fields: Mapping[str, SettingField], problems: list[_Problem]) -> Layer:
    """Return what a layer may contribute, each value of its setting's type."""
    sections = {field.section for field in fields.values()}
    good: dict[str, Entry] = {}
    for key, entry in layer.items():
        field = fields.get(key)
        if field is None:
            if key not in sections or entry.value != {}:
                problems.append(_unknown(key, entry, fields if len(problems) < MAX_TOLD else {}))
            continue
        from_file = entry.source.kind is LayerKind.FILE
        if field.secret and (from_file or entry.source.kind is LayerKind.FLAG):
            remedy = f"set {field.variable}, or {field.file_variable} to the path of a file that holds it"
            problems.append(_Problem(f"{_stated(field, entry)}: a secret can't stand here; {remedy}", key))
            continue
        try:
            value = structure(field, entry.value, from_text=not from_file)
        except WrongValueError as error:
            problems.append(_Problem(f"{_stated(field, entry)}: {error}", key))
        else:
            good[key] = attrs.evolve(entry, value=value)
    return good


def _unknown(key: str, entry: Entry, fields: Mapping[str, SettingField]) -> _Problem:
    """Return what is wrong, with advice from the ``fields`` that there are; looking for what was meant takes its time."""
    # Text may be a secret under a misspelt name.
    value = REDACTED if isinstance(entry.value, str) else shown(entry.value)
    stated = f"{key} = {value} ({entry.source})"
    sections: dict[str, list[str]] = {field.section: [] for field in fields.values()}
    for field in fields.values():
        sections[field.section].append(field.name)
    if key in sections:
        return _Problem(f"{stated}: is a section; its settings stand below [{key}]", key)
    in_environment = entry.source.kind is LayerKind.ENVIRONMENT
    path = key.removeprefix(VARIABLE_PREFIX).replace("__", ".").lower() if in_environment else key
    section, _, name = path.rpartition(".")
    namesakes = [field.key for field in fields.values() if field.name == name]
    meant = namesakes if len(namesakes) == 1 else difflib.get_close_matches(path, fields, n=1)
    if meant:
        advice = f"did you mean {fields[meant[0]].variable if in_environment else meant[0]}?"
    elif section in sections:
        advice = f"[{section}] has {', '.join(sections[section])}"
    else:
        advice = f"the sections are {', '.join(sections)}"
    return _Problem(f"{stated}: no such setting; {advice}", key)


def _stated(field: SettingField, entry: Entry) -> str:
    value = REDACTED if field.secret else shown(entry.value)
    return f"{field.key} = {value} ({entry.source})"


def _nested(merged: Layer, fields: Mapping[str, SettingField]) -> dict[str, dict[str, object]]:
    nested: dict[str, dict[str, object]] = {}
    for key, field in fields.items():
        nested.setdefault(field.section, {})[field.name] = merged[key].value
    return nested


def _error(problems: Sequence[_Problem]) -> SettingsError:
    count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
    told = [problem.words for problem in problems[:MAX_TOLD]]
    if len(problems) > MAX_TOLD:
        told.append(f"and {len(problems) - MAX_TOLD} more")
    lines = "".join(f"\n  {words}" for words in told)
    keys = {problem.key for problem in problems}
    return SettingsError(f"{count} in the settings:{lines}", field=keys.pop() if len(keys) == 1 else None)


def _read(path: Path, max_bytes: int, *, private: bool = False) -> str:
    try:
        with path.open("rb") as file:
            open_to_all = os.fstat(file.fileno()).st_mode & stat.S_IROTH
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise _UnreadableError(f"can't be read: {error.strerror}") from error
    except ValueError:
        raise _UnreadableError("is no path of a file") from None
    if private and open_to_all:
        raise _UnreadableError("can be read by every user; take that right away (chmod o-r)")
    if len(content) > max_bytes:
        raise _UnreadableError(f"is larger than {max_bytes} bytes")
    try:
        # Editors of some systems begin UTF-8 with a byte-order mark, which TOML has no place for.
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(f"is not UTF-8 text (line {line})") from None


def _read_secret(path: Path) -> str:
    content = _read(path, MAX_SECRET_BYTES, private=True).strip()
    if not content:
        raise _UnreadableError("is empty")
    return content
