"""CurrentSettings: the settings in force, for those that follow a change while the server runs."""

from voice_agent.settings.schema import Settings


class CurrentSettings:
    """One value that is replaced whole. Who reads :attr:`now` at each use follows it; a call keeps what it began with."""

    def __init__(self, settings: Settings) -> None:
        self.now = settings
        self.version = 1
        """Counts the replacements, from 1."""

    def replace(self, settings: Settings) -> None:
        """Put other settings in force."""
        self.now = settings
        self.version += 1
