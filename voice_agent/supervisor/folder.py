"""The folder of the workers' sockets: for one user alone, made anew at each start, gone at the end."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from voice_agent.core.errors import SettingsError

RUNTIME_VARIABLE: Final = "RUNTIME_DIRECTORY"
"""systemd names the folders of a unit's RuntimeDirectory= in it (systemd.exec(5)), separated by colons."""
FOLDER_NAME: Final = "workers"
OWNER_ONLY: Final = 0o700
LONGEST_PATH: Final = 80
"""The address of a Unix socket has 108 bytes with its end (unix(7)); a worker's name takes some of them."""


@contextmanager
def open_folder(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """Make the folder, in systemd's runtime directory or else in the one for temporary files; remove it at the end.

    Raises:
        SettingsError: it can't be made.
    """
    runtime = environ.get(RUNTIME_VARIABLE, "").partition(":")[0]
    try:
        folder = _below(Path(runtime)) if runtime else Path(tempfile.mkdtemp(prefix="voice-agent-"))
        if len(os.fsencode(folder)) > LONGEST_PATH:
            folder.rmdir()
            folder = Path(tempfile.mkdtemp(prefix="voice-agent-", dir="/tmp"))
    except OSError as error:
        raise SettingsError(
            f"no folder for the workers' sockets can be made ({error.strerror}: {error.filename}); "
            f"let {RUNTIME_VARIABLE} or TMPDIR name a folder that can be written"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _below(runtime: Path) -> Path:
    """Return a new folder in systemd's, whose own mode lets others look into it."""
    folder = runtime / FOLDER_NAME
    if folder.exists():
        shutil.rmtree(folder)  # of a supervisor that was killed
    folder.mkdir(mode=OWNER_ONLY)
    return folder
