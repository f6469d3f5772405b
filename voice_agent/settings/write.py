"""Write settings as TOML: those in force with their sources, and the reference file that every default stands in."""

import re
from typing import Any, Final

import tomli_w

from voice_agent.settings.fields import Scalar, SectionFields, SettingField, describe
from voice_agent.settings.layers import LayerKind
from voice_agent.settings.load import Loaded
from voice_agent.settings.schema import Settings
from voice_agent.settings.values import REDACTED

_HEADER: Final = """\
# Every setting of voice-agent with its default. Written by `voice-agent settings reference`.
#
# Later wins: defaults < settings.toml < settings.local.toml < environment < flags. In the environment, server.port
# is VOICE_AGENT__SERVER__PORT. Secrets never stand in a settings file: they come from the environment only, or from
# the file that VOICE_AGENT__SECTION__KEY_FILE names.
# A running server takes over what changes in its files, but for what says that it waits for a restart.
# `voice-agent settings check` tells what is wrong; `voice-agent settings show` tells what is in force, and why.
"""
_IN_FORCE_HEADER: Final = """\
# A running server takes over what changes here, but for what is marked "restart".
"""
_RESTART: Final = "A change waits for a restart."
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
"""TOML 1.0, "Comment": control characters are not permitted in comments (tab is, but has no use here)."""


def render_settings(loaded: Loaded[Any]) -> str:
    """Return the settings in force as TOML, each with its source as a comment; given secrets are redacted."""
    return "\n".join(
        [_IN_FORCE_HEADER, *(_in_force(section, loaded) for section in describe(type(loaded.settings)))]
    )


def render_reference(root: type[Any] = Settings) -> str:
    """Return the reference settings file: each setting with its default, why, unit and range, in schema order."""
    return "\n".join([_HEADER, *(_explained(section) for section in describe(root))])


def _in_force(section: SectionFields, loaded: Loaded[Any]) -> str:
    values = getattr(loaded.settings, section.name)
    lines = [f"[{section.name}]"]
    for field in section.fields:
        source = loaded.sources[field.key]
        redacted = field.secret and source.kind is not LayerKind.DEFAULT
        assignment = _assignment(field, REDACTED if redacted else getattr(values, field.name))
        restart = "" if field.live else ", restart"
        lines.append(f"{assignment}  # {_UNPRINTABLE.sub('?', str(source))}{restart}")
    return "\n".join(lines) + "\n"


def _explained(section: SectionFields) -> str:
    paragraphs = [f"# {section.title}\n[{section.name}]\n"]
    for field in section.fields:
        comment = " ".join(filter(None, (field.why, _bounds(field), "" if field.live else _RESTART)))
        if field.secret:
            place = f"A secret: set {field.variable} or {field.file_variable}."
            paragraphs.append(f"# {field.name}: {comment} {place}\n")
        else:
            paragraphs.append(f"# {comment}\n{_assignment(field, field.default)}\n")
    return "\n".join(paragraphs)


def _bounds(field: SettingField) -> str:
    bounds = field.allowed
    return f"{bounds[0].upper()}{bounds[1:]}."


def _assignment(field: SettingField, value: Scalar) -> str:
    return tomli_w.dumps({field.name: value}).rstrip("\n")
