"""What the soak runs its callers against: a Redis, server processes, and networks that can be cut."""

import os
import random
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import attrs
import trio
from prometheus_client.parser import text_string_to_metric_families

GRACE_SECONDS = 6


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis that has written what it said it wrote; gives its address."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(
        ["redis-server", *options, "--appendonly", "yes", "--appendfsync", "always"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    try:
        any("Ready to accept connections" in line for line in process.stdout)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.communicate(timeout=10)


@attrs.define(kw_only=True)
class Node:
    """One server at a port of its own, started as often as it takes."""

    name: str
    folder: Path
    environ: dict[str, str]
    port: int = attrs.field(factory=free_port)
    process: subprocess.Popen[str] | None = None
    exits: list[int] = attrs.field(factory=list)
    """Of the ends that were asked for by SIGTERM."""
    at_start: dict[str, float] = attrs.field(factory=dict)

    @property
    def is_up(self) -> bool:
        """Whether it serves."""
        return self.process is not None

    async def start(self) -> None:
        """Start, and wait until it listens."""
        process = self._begin()
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        line = await trio.to_thread.run_sync(process.stdout.readline)
        if "listening" not in line:
            raise RuntimeError(f"{self.name} did not start; see {self.folder}/log")
        self.process = process
        self.at_start = await self.figures()

    def _begin(self) -> subprocess.Popen[str]:
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "voice_agent",
                    "serve",
                    "--port",
                    str(self.port),
                    "--log-format",
                    "json",
                ],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **self.environ, "VOICE_AGENT__CLUSTER__NODE_NAME": self.name},
                cwd=self.folder,
            )

    def kill(self) -> None:
        """As when the machine dies."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    async def drain(self) -> None:
        """SIGTERM; waits for the end."""
        process, self.process = self.process, None
        if process is None:
            return
        process.terminate()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(process.communicate, None, GRACE_SECONDS + 30)
        self.exits.append(process.returncode)

    async def figures(self) -> dict[str, float]:
        """Read its metrics."""
        text = await trio.to_thread.run_sync(_get, f"http://127.0.0.1:{self.port}/metrics")
        families = text_string_to_metric_families(text)
        return {sample.name: sample.value for family in families for sample in family.samples}


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 (our own node)
        text: str = answer.read().decode()
        return text


@attrs.define(kw_only=True)
class Line:
    """A network between callers and one node, which can be cut."""

    node: Node
    port: int = 0
    open_connections: list[trio.CancelScope] = attrs.field(factory=list)

    async def serve(self, nursery: trio.Nursery) -> None:
        """Listen, and pass on whatever comes as long as the nursery lives."""
        listeners = await nursery.start(partial(trio.serve_tcp, self._pass_on, 0, host="127.0.0.1"))
        self.port = listeners[0].socket.getsockname()[1]

    async def _pass_on(self, caller: trio.SocketStream) -> None:
        with trio.CancelScope() as scope, suppress(OSError, trio.BrokenResourceError):
            self.open_connections.append(scope)
            try:
                async with (
                    caller,
                    await trio.open_tcp_stream("127.0.0.1", self.node.port) as server,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_pump, caller, server, nursery.cancel_scope)
                    nursery.start_soon(_pump, server, caller, nursery.cancel_scope)
            finally:
                self.open_connections.remove(scope)

    def cut(self, chance: random.Random) -> bool:
        """Cut one connection; whether there was one."""
        if self.open_connections:
            chance.choice(self.open_connections).cancel()
        return bool(self.open_connections)


async def _pump(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in source:
            await sink.send_all(data)
    scope.cancel()
