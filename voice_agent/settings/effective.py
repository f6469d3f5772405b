"""The settings in force, as they may be shown: each with its source, secrets redacted."""

from collections.abc import Mapping
from typing import Any

import attrs

from voice_agent.settings.fields import Scalar, fields_by_key
from voice_agent.settings.layers import DEFAULT, Source
from voice_agent.settings.values import REDACTED


@attrs.frozen(kw_only=True)
class SettingInForce:
    """One setting."""

    value: Scalar
    """A secret that was given is shown as asterisks."""
    source: str
    """``default``, a file with its line, a variable or a flag."""
    live: bool
    """Whether a change takes effect while the server runs."""


@attrs.frozen(kw_only=True)
class EffectiveSettings:
    """All settings, by their paths as in ``server.port``."""

    version: int
    """Counts the replacements, from 1."""
    settings: dict[str, SettingInForce]


def effective_settings(
    settings: Any, sources: Mapping[str, Source], *, version: int = 1
) -> EffectiveSettings:
    """Return what is in force; a setting without a source has its default's."""
    shown = {}
    for key, field in fields_by_key(type(settings)).items():
        value = getattr(getattr(settings, field.section), field.name)
        shown[key] = SettingInForce(
            value=REDACTED if field.secret and value != field.default else value,
            source=str(sources.get(key, DEFAULT)),
            live=field.live,
        )
    return EffectiveSettings(version=version, settings=shown)
