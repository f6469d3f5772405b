"""A network that breaks: a TCP proxy before a server, whose connections a test cuts, stalls, or leads elsewhere."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CHUNK_BYTES = 65_536
ABORT = struct.pack("ii", 1, 0)
"""SO_LINGER: a close sends RST, as a router that lost its table does."""


class CuttingProxy:
    """Listens on ``port`` of the loopback, and leads each connection to ``target``; None refuses them."""

    def __init__(self, target: int | None) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self.accepted = 0
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def cut(self) -> int:
        """Break all connections of the moment; return how many there were."""
        with self._lock:
            victims = list(self._open)
        for victim in victims:
            with contextlib.suppress(OSError):
                victim.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                victim.shutdown(socket.SHUT_RDWR)
        return len(victims) // 2

    def stall(self, *, flows: bool = False) -> None:
        """Let nothing through any more, in silence; or again."""
        (self._flows.set if flows else self._flows.clear)()

    def close(self) -> None:
        self.target = None
        self._flows.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                if self.target is None:
                    raise ConnectionRefusedError
                far = socket.create_connection(("127.0.0.1", self.target), timeout=5)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._flows.wait()
                sink.sendall(data)
        with self._lock:
            last = source not in self._open
            self._open -= {source, sink}
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.close() if last else end.shutdown(socket.SHUT_RDWR)


@contextmanager
def cutting_proxy(target: int | None) -> Iterator[CuttingProxy]:
    """Run a proxy."""
    proxy = CuttingProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()
