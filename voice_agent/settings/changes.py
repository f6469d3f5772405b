"""What a change of the settings does to a server that runs: some of it takes effect, the rest waits for a restart."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs

from voice_agent.core.errors import SettingsError
from voice_agent.settings.fields import SettingField, fields_by_key
from voice_agent.settings.rules import RULES, Rule
from voice_agent.settings.schema import Settings

_FIELDS: Final[Mapping[str, SettingField]] = fields_by_key(Settings)


@attrs.frozen(kw_only=True)
class Adoption:
    """What comes of wanting other settings than those that are in force."""

    settings: Settings = attrs.field(repr=False)
    """In force from now on: the wanted ones, but for those that can't be changed while the server runs."""
    changed: tuple[str, ...]
    """The paths of the settings that take effect."""
    waiting: tuple[str, ...]
    """The paths of those that are wanted and wait for a restart."""


def differences(old: Settings, new: Settings) -> tuple[SettingField, ...]:
    """Return the settings whose values differ, in the schema's order."""
    return tuple(field for field in _FIELDS.values() if _value(old, field) != _value(new, field))


def adopt(running: Settings, wanted: Settings, *, rules: Sequence[Rule[Settings]] = RULES) -> Adoption:
    """Take over what is live; both are whole and have passed every check.

    Raises:
        SettingsError: the new live settings don't go with the old ones that only a restart changes.
    """
    differing = differences(running, wanted)
    kept: dict[str, dict[str, object]] = {}
    for field in differing:
        if not field.live:
            kept.setdefault(field.section, {})[field.name] = _value(running, field)
    sections = {section: attrs.evolve(getattr(wanted, section), **values) for section, values in kept.items()}
    settings = attrs.evolve(wanted, **sections)
    broken = [rule for rule in rules if not rule.holds(settings)]
    if broken:
        told = "".join(f"\n  {rule.demand}" for rule in broken)
        raise SettingsError(f"what is changed goes only with settings that wait for a restart:{told}")
    return Adoption(
        settings=settings,
        changed=tuple(field.key for field in differing if field.live),
        waiting=tuple(field.key for field in differing if not field.live),
    )


def _value(settings: Settings, field: SettingField) -> object:
    return getattr(getattr(settings, field.section), field.name)
