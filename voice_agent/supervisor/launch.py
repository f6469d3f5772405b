"""Launcher: starts workers as copies of a template, which is a process that has loaded everything once."""

import json
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from voice_agent.core.units import SECONDS
from voice_agent.core.worker import WorkerPlace
from voice_agent.server.last_resort import EXIT_SOFTWARE
from voice_agent.settings.fields import fields_by_key
from voice_agent.settings.layers import LayerKind
from voice_agent.settings.load import LoadedSettings
from voice_agent.settings.schema import Settings
from voice_agent.supervisor.slot import START_SECONDS, USEC_PER_SECOND, Child
from voice_agent.supervisor.template import CHANNEL_VARIABLE, MAX_MESSAGE_BYTES

SECRET: Final = "cluster.secret"  # noqa: S105 (a setting's name)
THREADS: Final = "recogniser.worker_threads"
SECRET_BYTES: Final = 32
NOT_PASSED_ON: Final = ("WATCHDOG_PID", "NOTIFY_SOCKET", "WATCHDOG_USEC")
"""What systemd says to the supervisor is not for its workers."""
TOLD_SECONDS: Final = 2 * SECONDS
"""How long after a worker's end its template may take to say how it ended."""

log = structlog.get_logger(__name__)


class Copy:
    """A worker: a child of the template, not of this process, which follows it by a descriptor of its own."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor: int | None = None
        with suppress(ProcessLookupError):  # it has ended already
            self._descriptor = os.pidfd_open(pid)
        self._told = trio.Event()
        self._code = EXIT_SOFTWARE
        """What counts where nobody can say: the template died before its worker."""

    def told(self, code: int) -> None:
        """Take the word of the template."""
        self._code = code
        self._told.set()

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code, or minus the signal."""
        if self.returncode is None:
            if self._descriptor is not None:
                await trio.lowlevel.wait_readable(self._descriptor)
            with trio.move_on_after(TOLD_SECONDS):
                await self._told.wait()
            self.returncode = self._code
            if self._descriptor is not None:
                os.close(self._descriptor)
        return self.returncode

    def send_signal(self, sig: signal.Signals) -> None:
        """Signal it, and never another one that has got its id."""
        if self.returncode is None and self._descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


@attrs.define
class NotStarted:
    """A worker that could not be made, because its template ended: with this exit code."""

    returncode: int
    pid: int = 0

    async def wait(self) -> int:
        """Return it."""
        await trio.lowlevel.checkpoint()
        return self.returncode

    def send_signal(self, sig: signal.Signals) -> None:
        """Reach nobody."""

    def kill(self) -> None:
        """Reach nobody."""


class _TemplateProcess:
    """The template, seen from here."""

    def __init__(self, process: trio.Process, channel: socket.socket) -> None:
        self.process = process
        self.loaded = trio.Event()
        """It can be copied; or it is over."""
        self.is_over = False
        self._channel = trio.socket.from_stdlib_socket(channel)
        self._copies: dict[int, Copy] = {}
        self._send_born, self._born = trio.open_memory_channel[Copy](1)

    async def run(self) -> None:
        """Take in what it says, until it has ended; cancelled, end it."""
        try:
            while message := await self._receive():
                self.loaded.set()
                told = json.loads(message)
                if "pid" in told:
                    copy = self._copies[told["pid"]] = Copy(told["pid"])
                    await self._send_born.send(copy)
                elif "ended" in told:
                    self._copies.pop(told["ended"]).told(told["code"])
        finally:
            self.is_over = True
            self.loaded.set()
            self._send_born.close()
            self._channel.close()
            await self.end()

    async def _receive(self) -> bytes:
        try:
            return await self._channel.recv(MAX_MESSAGE_BYTES)
        except OSError:
            return b""

    async def copy(self, environ: Mapping[str, str]) -> Copy:
        """Make a copy of it.

        Raises:
            EndOfChannel: it ended.
            OSError: it ended.
        """
        await self._channel.send(json.dumps({"environ": environ}).encode())
        return await self._born.receive()

    def let_go(self, descriptors: Sequence[int]) -> None:
        """Have it close what it holds."""
        with suppress(OSError, trio.ClosedResourceError):
            self._channel._sock.send(json.dumps({"close": list(descriptors)}).encode())  # type: ignore[attr-defined]  # noqa: SLF001

    async def end(self) -> int:
        """Give it a moment to end by itself, end it otherwise, and return its exit code."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(TOLD_SECONDS):
                await self.process.wait()
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()
        return self.process.returncode or 0


@attrs.define(kw_only=True)
class Launcher:
    """Starts workers; :func:`open_launcher` makes one."""

    command: Sequence[str]
    """What a template runs, and so its copies."""
    folder: Path
    count: int
    listen_fds: Sequence[int]
    lifeline_fd: int
    environ: Mapping[str, str] = attrs.field(repr=False)
    """Of every worker, but for its place."""
    hang_seconds: float
    nursery: trio.Nursery
    _template: _TemplateProcess | None = None
    _one_at_a_time: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    def place(self, number: int) -> WorkerPlace:
        """Return where a worker stands."""
        return WorkerPlace(
            number=number,
            count=self.count,
            folder=self.folder,
            listen_fds=tuple(self.listen_fds),
            lifeline_fd=self.lifeline_fd,
        )

    async def launch(self, number: int) -> Child:
        """Start one; where there is no template yet, or no more, that comes first."""
        place = self.place(number)
        environ = {
            **place.to_environ(),
            "NOTIFY_SOCKET": str(place.notify_path),
            "WATCHDOG_USEC": str(round(self.hang_seconds * USEC_PER_SECOND)),
        }
        async with self._one_at_a_time:
            if self._template is None or self._template.is_over:
                self._template = await self._start_template()
            template = self._template
            copy: Copy | None = None
            with (
                trio.move_on_after(START_SECONDS),
                suppress(trio.EndOfChannel, trio.ClosedResourceError, OSError),
            ):
                await template.loaded.wait()
                copy = await template.copy(environ)
        return copy or NotStarted(await template.end())

    def let_go(self) -> None:
        """Have the template hold the port no longer."""
        if self._template is not None:
            self._template.let_go(self.listen_fds)

    async def _start_template(self) -> _TemplateProcess:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = await trio.lowlevel.open_process(
                self.command,
                stdin=subprocess.DEVNULL,
                # Ctrl-C at a terminal reaches the supervisor alone, which passes it on; twice would cut the drain short.
                start_new_session=True,
                pass_fds=(*self.listen_fds, self.lifeline_fd, theirs.fileno()),
                env={**self.environ, CHANNEL_VARIABLE: str(theirs.fileno())},
            )
        template = _TemplateProcess(process, ours)
        self.nursery.start_soon(template.run, name="template")
        log.info("template_started", pid=process.pid)
        return template


@asynccontextmanager
async def open_launcher(
    loaded: LoadedSettings,
    *,
    command: Sequence[str],
    folder: Path,
    listen_fds: Sequence[int],
    lifeline_fd: int,
    hang_seconds: float,
) -> AsyncIterator[Launcher]:
    """Make a launcher; the template that it comes to have ends with the block, its copies before it."""
    async with trio.open_nursery() as nursery:
        yield Launcher(
            command=command,
            folder=folder,
            count=loaded.settings.server.workers,
            listen_fds=listen_fds,
            lifeline_fd=lifeline_fd,
            environ=environ_of_workers(loaded),
            hang_seconds=hang_seconds,
            nursery=nursery,
        )
        nursery.cancel_scope.cancel()


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
