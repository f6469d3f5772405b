"""SettingsOrigin: where the settings of a running program come from, so that they can be loaded again."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import attrs

from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.load import FILE_NAME, LOCAL_FILE_NAME, LoadedSettings, load_settings
from voice_agent.settings.schema import Settings

_NO_FLAGS: Final[Mapping[str, object]] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class SettingsOrigin:
    """What :func:`~voice_agent.settings.load.load_settings` is called with, each time."""

    config_dir: Path | None = None
    files: tuple[Path, ...] | None = None
    environ: Mapping[str, str] = attrs.field(default=os.environ, repr=False)
    flags: Mapping[str, object] = _NO_FLAGS

    def load(self) -> LoadedSettings:
        """Read and check every layer.

        Raises:
            SettingsError: lists every mistake.
        """
        return load_settings(
            config_dir=self.config_dir, files=self.files, environ=self.environ, flags=self.flags
        )

    def paths(self) -> tuple[Path, ...]:
        """Return the files that may hold settings, and those that the environment names for secrets."""
        folder = self.config_dir or Path()
        files = self.files if self.files is not None else (folder / FILE_NAME, folder / LOCAL_FILE_NAME)
        secrets = (
            self.environ[field.file_variable]
            for field in fields_by_key(Settings).values()
            if field.secret and field.file_variable in self.environ
        )
        # An empty path, or one that can't be one, is an error of the settings; there is nothing to watch.
        return (*files, *(Path(name) for name in secrets if name and "\0" not in name))
