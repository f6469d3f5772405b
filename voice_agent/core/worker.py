"""WorkerPlace: which of the processes that serve one port together this one is, and how it reaches the others.

A supervisor hands it to its workers in the environment, apart from the settings: no operator chooses any of it.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

import attrs

NUMBER_VARIABLE: Final = "VOICE_AGENT_WORKER_NUMBER"
COUNT_VARIABLE: Final = "VOICE_AGENT_WORKER_COUNT"
FOLDER_VARIABLE: Final = "VOICE_AGENT_WORKER_FOLDER"
LISTEN_VARIABLE: Final = "VOICE_AGENT_WORKER_LISTEN_FDS"
LIFELINE_VARIABLE: Final = "VOICE_AGENT_WORKER_LIFELINE_FD"
WORKER_VARIABLES: Final = (
    NUMBER_VARIABLE,
    COUNT_VARIABLE,
    FOLDER_VARIABLE,
    LISTEN_VARIABLE,
    LIFELINE_VARIABLE,
)


@attrs.frozen(kw_only=True)
class WorkerPlace:
    """One worker's place among ``count``, numbered from 1."""

    number: int
    count: int
    folder: Path
    """Where all of them have their Unix sockets; nobody but the user whom they run as can enter it."""
    listen_fds: tuple[int, ...] = ()
    """The listening sockets that they share, as file descriptors of the process."""
    lifeline_fd: int = -1
    """The end of a pipe that is closed when the supervisor is gone."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self | None:
        """Read what :meth:`to_environ` wrote; None in a process that is nobody's worker."""
        if NUMBER_VARIABLE not in environ:
            return None
        return cls(
            number=int(environ[NUMBER_VARIABLE]),
            count=int(environ[COUNT_VARIABLE]),
            folder=Path(environ[FOLDER_VARIABLE]),
            listen_fds=tuple(int(fd) for fd in environ[LISTEN_VARIABLE].split(",") if fd),
            lifeline_fd=int(environ[LIFELINE_VARIABLE]),
        )

    def to_environ(self) -> dict[str, str]:
        """Return the variables that say so."""
        return {
            NUMBER_VARIABLE: str(self.number),
            COUNT_VARIABLE: str(self.count),
            FOLDER_VARIABLE: str(self.folder),
            LISTEN_VARIABLE: ",".join(map(str, self.listen_fds)),
            LIFELINE_VARIABLE: str(self.lifeline_fd),
        }

    @property
    def name(self) -> str:
        """``worker-2``."""
        return f"worker-{self.number}"

    @property
    def socket_path(self) -> Path:
        """The Unix socket at which the worker serves the others what it serves everybody."""
        return self.folder / f"{self.name}.sock"

    @property
    def notify_path(self) -> Path:
        """The Unix socket at which the supervisor hears from the worker."""
        return self.folder / f"{self.name}.notify"

    @property
    def siblings(self) -> Mapping[int, Path]:
        """The others' numbers and their Unix sockets."""
        return {
            number: attrs.evolve(self, number=number).socket_path
            for number in range(1, self.count + 1)
            if number != self.number
        }
