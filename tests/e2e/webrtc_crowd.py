"""Many WebRTC callers in one process, each of which ends its call in its own way.

``python webrtc_crowd.py URL FILE --calls N [--ways WAY,WAY] [--at-once N] [--seed N]``: a line of JSON for each call that
ended, with what came of it. Of the way ``hold`` a line is printed when the call has media, and it goes on until the
process is killed.
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import random
import sys
import urllib.error
import urllib.request
import wave
from collections.abc import Awaitable, Callable
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from voice_agent.audio.opus import OpusEncoder

STEP_SECONDS = 0.02
STEP_SAMPLES = 960
SOON_SECONDS = 60.0
"""What should happen at once must have happened by then, also on a busy machine."""
CLOSE_SECONDS = 10.0


class PacketTrack(MediaStreamTrack):
    """Plays packets that were encoded beforehand, over and over."""

    kind = "audio"

    def __init__(self, packets: list[bytes]) -> None:
        super().__init__()
        self._packets = packets
        self._number = 0
        self._began: float | None = None

    async def recv(self) -> av.Packet:
        if self.readyState != "live":
            raise MediaStreamError
        now = asyncio.get_running_loop().time()
        self._began = now if self._began is None else self._began
        await asyncio.sleep(max(0.0, self._began + self._number * STEP_SECONDS - now))
        packet = av.Packet(self._packets[self._number % len(self._packets)])
        packet.pts, packet.time_base = self._number * STEP_SAMPLES, Fraction(1, 48_000)
        self._number += 1
        return packet


def speech_packets(path: str) -> list[bytes]:
    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return OpusEncoder(file.getframerate(), 1).encode(samples.astype(np.float32) / 32768)


def ask(method: str, url: str, body: bytes | None = None) -> tuple[int, str, str]:
    """Return status, body and location."""
    headers = {"Content-Type": "application/sdp"} if body is not None else {}
    asked = urllib.request.Request(url, body, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            return answer.status, answer.read().decode(), answer.headers.get("Location", "")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), ""


class Call:
    """One caller."""

    def __init__(self, url: str, packets: list[bytes], chance: random.Random) -> None:
        self.url = url
        self.chance = chance
        self.place = ""
        self.heard: list[str] = []
        self.told = asyncio.Event()
        self.connection = RTCPeerConnection(
            RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        )
        self.connection.addTrack(PacketTrack(packets))
        self.channel = self.connection.createDataChannel("events")
        self.channel.on("message", self._hear)
        self.connection.on("connectionstatechange", self.told.set)

    def _hear(self, text: str) -> None:
        self.heard.append(json.loads(text)["type"])
        self.told.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(SOON_SECONDS):
                while not condition():
                    self.told.clear()
                    await self.told.wait()
        except TimeoutError:
            raise TimeoutError(
                f"{self.place}: ICE {self.connection.iceConnectionState}, {self.connection.connectionState}, "
                f"channel {self.channel.readyState}, heard {self.heard}"
            ) from None

    async def offer(self) -> bytes:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp.encode()

    async def signal(self) -> str:
        status, answer, place = await asyncio.to_thread(ask, "POST", self.url, await self.offer())
        if status != http.client.CREATED:
            raise RuntimeError(f"{status}: {answer}")
        self.place = self.url.split("/v1/")[0] + place
        return answer

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))

    async def talk(self) -> None:
        """Begin a call, and be somewhere in the middle of it."""
        await self.accept(await self.signal())
        await self.until(lambda: "ready" in self.heard)
        await asyncio.sleep(self.chance.random())

    def vanish(self) -> None:
        """Go away as a killed process does: the sockets are closed, and nothing is said."""
        for transceiver in self.connection.getTransceivers():
            for protocol in transceiver.receiver.transport.transport._connection._protocols:
                protocol.transport.abort()

    async def drop_request(self, body: bytes) -> None:
        """Send a part of the request, or all of it, and hang up."""
        place = urlsplit(self.url)
        _, writer = await asyncio.open_connection(place.hostname, place.port)
        head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/sdp\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        writer.write(request[: self.chance.choice([len(request), self.chance.randrange(1, len(request))])])
        await writer.drain()
        await asyncio.sleep(self.chance.choice([0.0, 0.002, 0.01, 0.03]))
        writer.transport.abort()


async def clean(call: Call) -> str:
    await call.talk()
    call.channel.send('{"type":"stop"}')
    await call.until(lambda: "closed" in call.heard)
    return "closed"


async def deleted(call: Call) -> str:
    await call.talk()
    status, _, _ = await asyncio.to_thread(ask, "DELETE", call.place)
    await call.until(lambda: "closed" in call.heard)
    return str(status)


async def hung_up(call: Call) -> str:
    await call.talk()
    return "hung up"


async def vanished(call: Call) -> str:
    await call.talk()
    call.vanish()
    return "vanished"


async def mid_offer(call: Call) -> str:
    await call.drop_request(await call.offer())
    return "dropped"


async def never_connected(call: Call) -> str:
    await call.signal()
    return "left"


async def mid_ice(call: Call) -> str:
    await call.accept(await call.signal())
    await asyncio.sleep(call.chance.random() * 0.1)
    call.vanish()
    return call.connection.connectionState


async def garbage(call: Call) -> str:
    offer = await call.offer()
    lines = offer.splitlines(keepends=True)
    spoiled = call.chance.choice(
        [
            call.chance.randbytes(call.chance.randrange(4000)),
            offer[: call.chance.randrange(len(offer) // 2)],
            b"".join(line for line in lines if not line.startswith(b"a=fingerprint")),
            b"".join(line for line in lines if b"opus" not in line),
            offer + b"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 800,
            offer.replace(b"UDP/TLS/RTP/SAVPF", b"RTP/AVP"),
        ]
    )
    status, _, _ = await asyncio.to_thread(ask, "POST", call.url, spoiled)
    return str(status)


async def hold(call: Call) -> str:
    await call.talk()
    print(json.dumps({"way": "hold", "end": "talking"}), flush=True)
    await asyncio.sleep(3600)
    return "over"


WAYS: dict[str, Callable[[Call], Awaitable[str]]] = {
    way.__name__: way
    for way in (clean, deleted, hung_up, vanished, mid_offer, never_connected, mid_ice, garbage, hold)
}


async def run(arguments: argparse.Namespace) -> None:
    chance = random.Random(arguments.seed)
    packets = speech_packets(arguments.file)
    ways = arguments.ways.split(",")
    places = asyncio.Semaphore(arguments.at_once)

    async def one(number: int) -> None:
        async with places:
            way = ways[number % len(ways)]
            call = Call(arguments.url, packets, random.Random(chance.random()))
            try:
                end: Any = await WAYS[way](call)
            finally:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(call.connection.close(), CLOSE_SECONDS)
            print(json.dumps({"way": way, "end": end}), flush=True)

    async with asyncio.TaskGroup() as group:
        for number in range(arguments.calls):
            group.create_task(one(number))


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("file")
parser.add_argument("--calls", type=int, required=True)
parser.add_argument("--ways", default=",".join(way for way in WAYS if way != "hold"))
parser.add_argument("--at-once", type=int, default=8)
parser.add_argument("--seed", type=int, default=1)
asyncio.run(run(parser.parse_args()))
# aiortc's decoder threads are no daemons; one that misses its end would keep this process.
sys.stdout.flush()
os._exit(0)
