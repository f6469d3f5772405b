"""CurrentSettings: the settings in force, for those that follow a change while the server runs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from voice_agent.settings.layers import Source
from voice_agent.settings.schema import Settings

SCOPE_KEY: Final = "voice_agent.settings"
"""Where the ``state`` of an ASGI scope holds the :class:`InForce` that its connection obeys."""


@attrs.frozen
class InForce:
    """Settings and their version: what a call keeps from its beginning to its end."""

    settings: Settings
    version: int = 1
    """Counts the replacements, from 1."""


class CurrentSettings:
    """One value that is replaced whole. Who reads :attr:`now` at each use follows it; a call keeps what it began with."""

    def __init__(self, settings: Settings, sources: Mapping[str, Source] = MappingProxyType({})) -> None:
        self.in_force = InForce(settings)
        self.waiting: tuple[str, ...] = ()
        """The settings that were changed and wait for a restart, by their path."""
        self.sources = sources
        """Where each value in force comes from, by its path; empty while nobody has said."""

    @property
    def now(self) -> Settings:
        """The settings in force."""
        return self.in_force.settings

    @property
    def version(self) -> int:
        """Their version."""
        return self.in_force.version

    def replace(self, settings: Settings) -> None:
        """Put other settings in force."""
        self.in_force = InForce(settings, self.version + 1)
