"""Server CPU of inbound WebRTC calls, decode only: ours against aiortc alone on plain asyncio, in one run.

    python scripts/bench_webrtc.py [--calls 8] [--seconds 10] [--rounds 3]

One client process plays noise-like speech as Opus into every call; each server runs in a process of its own, and its
CPU (user and system) is taken over the same number of seconds once every call is connected. The order of the two
alternates from round to round, for the machine's own noise.
"""

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import trio
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from voice_agent.audio.opus import OpusEncoder
from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.media_thread import open_media_thread
from voice_agent.transports.webrtc.peer import Peer

RATE = 48_000
KINDS = ("ours", "aiortc")
NO_SERVERS = RTCConfiguration(iceServers=[])


def cpu_seconds() -> float:
    """User and system time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def memory_kib() -> int:
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


class PacketTrack(MediaStreamTrack):
    """Plays packets that were encoded beforehand, so that the client costs little."""

    kind = "audio"

    def __init__(self, packets: list[bytes]) -> None:
        super().__init__()
        self._packets = packets
        self._number = 0
        self._started_at: float | None = None

    async def recv(self) -> av.Packet:
        """Return the next packet when its time has come."""
        now = asyncio.get_running_loop().time()
        if self._started_at is None:
            self._started_at = now
        await asyncio.sleep(max(0.0, self._started_at + self._number * 0.02 - now))
        packet = av.Packet(self._packets[self._number % len(self._packets)])
        packet.pts = self._number * 960
        packet.time_base = Fraction(1, RATE)
        self._number += 1
        return packet


def speech_packets() -> list[bytes]:
    """Ten seconds of noise that swells and fades four times a second, as syllables do."""
    at = np.arange(10 * RATE) / RATE
    noise = np.random.default_rng(1).normal(0, 0.1, len(at))
    syllables = np.maximum(0, np.sin(2 * np.pi * 2 * at)) * (np.sin(2 * np.pi * 0.2 * at) > -0.5)
    return OpusEncoder(RATE, 1).encode((noise * syllables).astype(np.float32))


async def say(line: object) -> None:
    """Write a line of JSON to the parent."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def run_client() -> None:
    """Offer a call for each line ``offer``; take the answer from the line behind it."""
    packets = speech_packets()
    connections: list[RTCPeerConnection] = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        if request == "offer":
            connection = RTCPeerConnection(NO_SERVERS)
            connection.addTransceiver(PacketTrack(packets), direction="sendonly")
            await connection.setLocalDescription(await connection.createOffer())
            connections.append(connection)
            await say(connection.localDescription.sdp)
        else:
            await connections[-1].setRemoteDescription(RTCSessionDescription(request, "answer"))
            await say("accepted")
    for connection in connections:
        await connection.close()


async def serve_ours() -> None:
    """Answer offers with our media thread."""
    async with open_media_thread() as media, trio.open_nursery() as nursery:
        received = [0]

        async def read(peer: Peer) -> None:
            while True:
                frame = await peer.recv_audio()
                received[0] += frame.sample_count

        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            request = json.loads(line)
            if isinstance(request, float):
                before, samples = cpu_seconds(), received[0]
                await trio.sleep(request)
                await say([cpu_seconds() - before, (received[0] - samples) / RATE, memory_kib()])
            else:
                peer = await media.open_peer(PeerConfig())
                await say(await peer.answer(request))
                nursery.start_soon(read, peer)
        nursery.cancel_scope.cancel()


async def serve_aiortc() -> None:
    """Answer offers with aiortc as it comes."""
    connections: list[RTCPeerConnection] = []
    received = [0]
    tasks: set[asyncio.Task[None]] = set()

    async def read(track: MediaStreamTrack) -> None:
        while True:
            frame = await track.recv()
            received[0] += frame.samples

    def start(track: MediaStreamTrack) -> None:
        tasks.add(asyncio.ensure_future(read(track)))

    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        if isinstance(request, float):
            before, samples = cpu_seconds(), received[0]
            await asyncio.sleep(request)
            await say([cpu_seconds() - before, (received[0] - samples) / RATE, memory_kib()])
        else:
            connection = RTCPeerConnection(NO_SERVERS)
            connection.on("track", start)
            connections.append(connection)
            await connection.setRemoteDescription(RTCSessionDescription(request, "offer"))
            await connection.setLocalDescription(await connection.createAnswer())
            await say(connection.localDescription.sdp)
    for task in tasks:
        task.cancel()
    for connection in connections:
        await connection.close()


class Part:
    """A child process that answers each line with a line."""

    def __init__(self, role: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--role", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, request: object) -> object:
        """Send a line and return the answer."""
        assert self._process.stdin is not None  # noqa: S101 (narrows)
        assert self._process.stdout is not None  # noqa: S101 (narrows)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        """Close the child's input and wait for its exit."""
        assert self._process.stdin is not None  # noqa: S101 (narrows)
        self._process.stdin.close()
        self._process.wait(20)


def measure(kind: str, calls: int, seconds: float) -> tuple[float, float]:
    """Return CPU seconds per second of call, and KiB of memory per added call."""
    client, server = Part("client"), Part(kind)
    memory: list[int] = []
    for number in range(calls):
        client.ask(server.ask(client.ask("offer")))
        if number in (0, calls - 1):
            time.sleep(2)
            memory.append(server.ask(0.5)[2])  # type: ignore[index]  # three figures
    cpu, heard, _ = server.ask(float(seconds))  # type: ignore[misc]  # three figures
    server.end()
    client.end()
    if heard < calls * seconds * 0.9:
        raise SystemExit(f"{kind}: only {heard:.1f} s of audio arrived")
    return cpu / heard, (memory[-1] - memory[0]) / max(1, calls - 1)


def main() -> None:
    """Run one role, or the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--role")
    arguments = parser.parse_args()
    match arguments.role:
        case "client":
            asyncio.run(run_client())
        case "ours":
            trio.run(serve_ours)
        case "aiortc":
            asyncio.run(serve_aiortc())
        case _:
            figures: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
            for number in range(arguments.rounds):
                for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
                    figures[kind].append(measure(kind, arguments.calls, arguments.seconds))
                    cpu, memory = figures[kind][-1]
                    print(
                        f"round {number + 1}  {kind:7} {cpu * 1000:6.2f} ms CPU per second of call, {memory:5.0f} KiB per call"
                    )
            medians = {kind: statistics.median(cpu for cpu, _ in figures[kind]) for kind in KINDS}
            memory = {kind: statistics.median(kib for _, kib in figures[kind]) for kind in KINDS}
            for kind in KINDS:
                print(
                    f"median   {kind:7} {medians[kind] * 1000:6.2f} ms CPU per second of call, {memory[kind]:5.0f} KiB per call"
                )
            print(f"ours / aiortc alone: {medians['ours'] / medians['aiortc']:.2f}")


if __name__ == "__main__":
    main()
