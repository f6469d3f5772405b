#!/usr/bin/env python3
"""What one 20 ms audio message over WebSocket costs the server, in microseconds of CPU.

Three servers run side by side, so that a noisy machine disturbs them alike: Hypercorn's Trio worker under our
connection guard, the same Hypercorn without it, and a bare Trio loop that only reads from TCP. Each serves the same
number of callers, and each caller sends 640 bytes (20 ms of 16 kHz PCM) fifty times a second. The handlers only read.

    scripts/bench_websocket.py --calls 20 --seconds 10
"""

import argparse
import base64
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.run import worker_serve

from voice_agent.server.listening import open_http_server
from voice_agent.settings.schema import ServerSettings, Settings

FRAME_SECONDS = 0.02
PAYLOAD = bytes(640)
FRAME = bytes([0x82, 0xFE]) + len(PAYLOAD).to_bytes(2, "big") + b"\x01\x02\x03\x04" + PAYLOAD
KINDS = ("bare", "plain", "guarded")


async def app(_scope: Any, receive: Any, send: Any) -> None:
    """Read until the caller goes."""
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass


async def serve_guarded() -> None:
    """Hypercorn's protocols under our guard."""
    async with open_http_server(app, Settings(server=ServerSettings(port=0))) as server:
        print(server.addresses[0][1], flush=True)
        await trio.sleep_forever()


async def serve_plain() -> None:
    """Hypercorn as it comes."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    wrapped = ASGIWrapper(app)
    async with trio.open_nursery() as nursery:
        binds = await nursery.start(
            partial(worker_serve, wrapped, config, shutdown_trigger=trio.sleep_forever)
        )
        print(binds[0].rsplit(":", 1)[1], flush=True)


async def serve_bare() -> None:
    """A handshake, then nothing but reading."""

    async def read(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 101 \r\n\r\n")
        while await stream.receive_some():
            pass

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(read, listeners)


def connect(port: int) -> socket.socket:
    """Open one call."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    answer = sock.recv(4096)
    if not answer.startswith(b"HTTP/1.1 101"):
        raise SystemExit(f"no handshake: {answer!r}")
    return sock


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, to the nanosecond (Linux)."""
    return sum(
        int(path.read_text().split()[0]) / 1e9 for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )


def send_in_real_time(calls: list[socket.socket], messages: int) -> None:
    """Send each call's messages at its pace, the calls spread evenly over the 20 ms."""
    began = time.monotonic()
    step = FRAME_SECONDS / len(calls)
    for index in range(messages):
        for position, call in enumerate(calls):
            wait = began + index * FRAME_SECONDS + position * step - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            call.sendall(FRAME)


def main() -> None:
    """Run the servers, send, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20, help="callers of each server")
    parser.add_argument("--seconds", type=float, default=10, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the median is printed")
    parser.add_argument("--serve", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        trio.run({"guarded": serve_guarded, "plain": serve_plain, "bare": serve_bare}[arguments.serve])
        return
    measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    """Compare the servers."""
    messages = round(arguments.seconds / FRAME_SECONDS)
    costs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as stack:
        servers = {}
        for kind in KINDS:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, __file__, "--serve", kind], stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(process.terminate)
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            servers[kind] = process, int(process.stdout.readline())
        calls = [
            stack.enter_context(connect(port)) for _ in range(arguments.calls) for _, port in servers.values()
        ]
        send_in_real_time(calls, 25)
        for _ in range(arguments.rounds):
            before = {kind: cpu_seconds(process.pid) for kind, (process, _) in servers.items()}
            send_in_real_time(calls, messages)
            for kind, (process, _) in servers.items():
                used = cpu_seconds(process.pid) - before[kind]
                costs[kind].append(used / (messages * arguments.calls) * 1e6)
    print(
        f"{arguments.calls} calls each, {arguments.seconds:g} s, 640 bytes every 20 ms; µs of CPU a message"
    )
    for kind in KINDS:
        figures = ", ".join(f"{cost:.0f}" for cost in costs[kind])
        print(f"{kind:8} {statistics.median(costs[kind]):6.0f}   (rounds: {figures})")


if __name__ == "__main__":
    main()
