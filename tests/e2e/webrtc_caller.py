"""A WebRTC caller in a process of its own: aiortc, one HTTP request, a file as the microphone.

``python webrtc_caller.py URL FILE [--relay TURN_URL] [--hold]``: events go to standard output, a JSON object a line. The
commands on standard input, a line each: ``stop`` (over the data channel), ``delete`` (over HTTP), ``quit`` (vanish).
Without commands the caller sends ``stop`` when the file has been played; with ``--hold`` it goes on with silence.
"""

import argparse
import asyncio
import json
import sys
import urllib.request
import wave
from fractions import Fraction
from typing import Any

import numpy as np
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame
from scipy.signal import resample_poly

RATE = 48_000
STEP = RATE // 50


def read(path: str) -> np.ndarray:
    with wave.open(path) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        if file.getnchannels() == 2:
            samples = samples.reshape(-1, 2).mean(axis=1).astype(np.int16)
        if file.getframerate() != RATE:
            up = RATE // file.getframerate()
            samples = np.clip(resample_poly(samples, up, 1), -32768, 32767).astype(np.int16)
    return samples


class Microphone(MediaStreamTrack):
    """Plays a file in real time, then silence."""

    kind = "audio"

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__()
        self._samples = samples
        self._at = 0
        self._began: float | None = None
        self.played = asyncio.Event()

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
        await asyncio.sleep(max(0.0, self._began + self._at / RATE - loop.time()))
        piece = np.zeros(STEP, np.int16)
        heard = self._samples[self._at : self._at + STEP]
        piece[: len(heard)] = heard
        frame = AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._at += STEP
        if self._at >= len(self._samples):
            self.played.set()
        return frame


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def request(method: str, url: str, body: str | None = None) -> tuple[str, Any]:
    headers = {"Content-Type": "application/sdp"} if body else {}
    asked = urllib.request.Request(url, body.encode() if body else None, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
        return answer.read().decode(), answer.headers


async def commands(connection: RTCPeerConnection, channel: Any, place: str) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async for line in reader:
        match line.decode().strip():
            case "stop":
                channel.send('{"type":"stop"}')
            case "delete":
                await asyncio.to_thread(request, "DELETE", place)
                say(type="deleted")
            case "quit":
                return


async def run(arguments: argparse.Namespace) -> None:
    servers = []
    if arguments.relay:
        url, username, credential = arguments.relay.split("|")
        servers.append(RTCIceServer(urls=url, username=username, credential=credential))
    connection = RTCPeerConnection(
        RTCConfiguration(iceServers=servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
    )
    microphone = Microphone(read(arguments.file))
    connection.addTrack(microphone)
    channel = connection.createDataChannel("events")
    over = asyncio.Event()

    @channel.on("message")
    def on_message(text: str) -> None:
        print(text, flush=True)
        if json.loads(text)["type"] == "closed":
            over.set()

    @connection.on("connectionstatechange")
    def on_state() -> None:
        if connection.connectionState in ("failed", "closed"):
            over.set()

    await connection.setLocalDescription(await connection.createOffer())
    offer = connection.localDescription.sdp
    if arguments.relay:
        offer = "".join(
            line
            for line in offer.splitlines(keepends=True)
            if not line.startswith("a=candidate") or "typ relay" in line
        )
    answer, headers = await asyncio.to_thread(request, "POST", arguments.url, offer)
    place = arguments.url.split("/v1/")[0] + headers["Location"]
    say(type="answered", location=headers["Location"], etag=headers["ETag"], answer=answer)
    await connection.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    listening = asyncio.create_task(commands(connection, channel, place))
    if not arguments.hold:
        playing = asyncio.create_task(microphone.played.wait())
        await asyncio.wait({playing, listening}, return_when=asyncio.FIRST_COMPLETED)
        if not over.is_set():
            await asyncio.sleep(0.3)
            channel.send('{"type":"stop"}')
    ending = asyncio.create_task(over.wait())
    await asyncio.wait({ending, listening}, return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    await asyncio.wait_for(connection.close(), 10)
    say(type="gone")


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("file")
parser.add_argument("--relay", default="")
parser.add_argument("--hold", action="store_true")
asyncio.run(run(parser.parse_args()))
