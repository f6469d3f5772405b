"""launch: a worker is a process of its own, which runs the same command with its place in the environment."""

import os
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from voice_agent.core.worker import WorkerPlace
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.layers import LayerKind
from voice_agent.settings.load import LoadedSettings
from voice_agent.settings.schema import Settings
from voice_agent.supervisor.slot import USEC_PER_SECOND

SECRET: Final = "cluster.secret"  # noqa: S105 (a setting's name)
THREADS: Final = "recogniser.worker_threads"
SECRET_BYTES: Final = 32
NOT_PASSED_ON: Final = ("WATCHDOG_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC")
"""What systemd says to the supervisor is not for its workers."""


@attrs.frozen(kw_only=True)
class Launcher:
    """Starts workers."""

    command: Sequence[str]
    """What a worker runs."""
    folder: Path
    count: int
    listen_fds: Sequence[int]
    lifeline_fd: int
    environ: Mapping[str, str] = attrs.field(repr=False)
    """Of every worker, but for its place."""
    hang_seconds: float

    def place(self, number: int) -> WorkerPlace:
        """Return where a worker stands."""
        return WorkerPlace(
            number=number,
            count=self.count,
            folder=self.folder,
            listen_fds=tuple(self.listen_fds),
            lifeline_fd=self.lifeline_fd,
        )

    async def launch(self, number: int) -> trio.Process:
        """Start one."""
        place = self.place(number)
        return await trio.lowlevel.open_process(
            self.command,
            stdin=subprocess.DEVNULL,
            # Ctrl-C at a terminal reaches the supervisor alone, which passes it on; twice would cut the drain short.
            start_new_session=True,
            pass_fds=(*self.listen_fds, self.lifeline_fd),
            env={
                **self.environ,
                **place.to_environ(),
                "NOTIFY_SOCKET": str(place.notify_path),
                "WATCHDOG_USEC": str(round(self.hang_seconds * USEC_PER_SECOND)),
            },
        )


def environ_of_workers(
    loaded: LoadedSettings,
    environ: Mapping[str, str] = os.environ,
    *,
    cores: Callable[[], int] = lambda: len(os.sched_getaffinity(0)),
) -> dict[str, str]:
    """Return the environment that workers have in common.

    Where the operator has not chosen, they share the cores for recognition and have a secret of their own.
    """
    fields = fields_by_key(Settings)
    common = {name: value for name, value in environ.items() if name not in NOT_PASSED_ON}
    if loaded.sources[THREADS].kind is LayerKind.DEFAULT:
        threads = min(loaded.settings.recogniser.worker_threads, cores() // loaded.settings.server.workers)
        common[fields[THREADS].variable] = str(max(1, threads))
    if SECRET in fields and loaded.sources[SECRET].kind is LayerKind.DEFAULT:
        common[fields[SECRET].variable] = secrets.token_urlsafe(SECRET_BYTES)
    return common
