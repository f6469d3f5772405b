"""A WebRTC caller in a process of its own: aiortc, one HTTP request, a file as the microphone.

``python webrtc_caller.py URL FILE... [--relay TURN_URL] [--through HOST:PORT] [--dtx] [--hold]``: events go to standard output, a
JSON object a line. The commands on standard input, a line each: ``stop`` (over the data channel), ``delete`` (over HTTP),
``quit`` (vanish). Without commands the caller sends ``stop`` when the files have been played; with ``--hold`` it goes on
with silence. ``FILE@SECONDS`` begins at that time of the call. With ``--through`` neither side knows the other's address:
everything goes to HOST:PORT and comes from there. ``--resume`` is the header with which a session goes on. With ``--dtx`` nothing is sent while the file is silent.
"""

import argparse
import asyncio
import ctypes
import json
import sys
import urllib.error
import urllib.request
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
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


def play_list(places: list[str]) -> np.ndarray:
    """One after the other, or where ``@SECONDS`` says."""
    samples = np.zeros(0, np.int16)
    for place in places:
        path, _, seconds = place.partition("@")
        start = round(float(seconds) * RATE) if seconds else len(samples)
        samples = np.concatenate([samples, np.zeros(start - len(samples), np.int16), read(path)])
    return samples


def without_candidates(sdp: str, but: str = "\0") -> str:
    """As from somebody who may trickle more; candidates that hold ``but`` stay."""
    lines = sdp.splitlines(keepends=True)
    hidden = ("a=candidate:", "a=end-of-candidates")
    return "".join(line for line in lines if not line.startswith(hidden) or but in line)


def through(sdp: str, host: str, port: str) -> str:
    """The only candidate of each section is HOST:PORT."""
    candidate = f"a=candidate:1 1 udp 2130706431 {host} {port} typ host\r\na=end-of-candidates\r\n"
    head, *sections = without_candidates(sdp).split("\r\nm=")
    return head + "\r\n" + "".join(f"m={section.rstrip()}\r\n{candidate}" for section in sections)


class Microphone(MediaStreamTrack):
    """Plays a file in real time, then silence."""

    kind = "audio"

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__()
        self._samples = samples
        self._at = 0
        self._began: float | None = None
        self.played = asyncio.Event()

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._began is None:
            self._began = loop.time()
        await asyncio.sleep(max(0.0, self._began + self._at / RATE - loop.time()))
        piece = np.zeros(STEP, np.int16)
        heard = self._samples[self._at : self._at + STEP]
        piece[: len(heard)] = heard
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._at, Fraction(1, RATE)
        self._at += STEP
        if self._at >= len(self._samples):
            self.played.set()
        return frame


class QuietMicrophone(Microphone):
    """As a browser with ``usedtx=1``: of silence only the first packet is sent, and one every 400 ms.

    FFmpeg's encoder has no such option, so libopus is called as its ``opus.h`` says.
    """

    SET_DTX = 4016
    APPLICATION_VOIP = 2048
    MARK_BYTES = 2

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__(samples)
        self.left_out = 0
        self._opus = ctypes.CDLL(next(str(p) for p in Path(av.__file__).parents[1].glob("av.libs/libopus*")))
        self._opus.opus_encoder_create.restype = ctypes.c_void_p
        self._encoder = ctypes.c_void_p(
            self._opus.opus_encoder_create(RATE, 1, self.APPLICATION_VOIP, ctypes.byref(ctypes.c_int()))
        )
        self._opus.opus_encoder_ctl(self._encoder, self.SET_DTX, ctypes.c_int(1))
        self._is_quiet = False

    async def recv(self) -> Any:
        while True:
            frame = await super().recv()
            encoded = ctypes.create_string_buffer(1500)
            samples = frame.to_ndarray().tobytes()
            size = self._opus.opus_encode(self._encoder, samples, STEP, encoded, len(encoded))
            was_quiet, self._is_quiet = self._is_quiet, size <= self.MARK_BYTES
            if self._is_quiet and was_quiet:
                self.left_out += 1
                continue
            packet = av.Packet(encoded.raw[:size])
            packet.pts, packet.time_base = frame.pts, frame.time_base
            return packet


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def request(method: str, url: str, body: str | None = None, resume: str = "") -> tuple[str, Any]:
    headers = {"Content-Type": "application/sdp"} if body else {}
    if resume:
        headers["Voice-Agent-Resume"] = resume
    asked = urllib.request.Request(url, body.encode() if body else None, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            return answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        say(type="refused", status=error.code, problem=json.loads(error.read()))
        raise


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
    microphone = (QuietMicrophone if arguments.dtx else Microphone)(play_list(arguments.files))
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
    if arguments.relay or arguments.through:
        offer = without_candidates(offer, but=" typ relay")
    answer, headers = await asyncio.to_thread(request, "POST", arguments.url, offer, arguments.resume)
    place = arguments.url.split("/v1/")[0] + headers["Location"]
    say(type="answered", location=headers["Location"], etag=headers["ETag"], answer=answer)
    if arguments.through:
        answer = through(answer, *arguments.through.split(":"))
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
    say(type="gone", left_out=getattr(microphone, "left_out", 0))


parser = argparse.ArgumentParser()
parser.add_argument("url")
parser.add_argument("files", nargs="+")
parser.add_argument("--relay", default="")
parser.add_argument("--through", default="")
parser.add_argument("--dtx", action="store_true")
parser.add_argument("--hold", action="store_true")
parser.add_argument("--resume", default="")
asyncio.run(run(parser.parse_args()))
