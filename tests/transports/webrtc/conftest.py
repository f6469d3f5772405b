"""A real aiortc caller in an asyncio thread of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from fractions import Fraction
from typing import Any

import anyio.from_thread
import av
import numpy as np
import pytest
import trio
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.media_thread import MediaThread, open_media_thread
from voice_agent.transports.webrtc.peer import Peer

PATIENCE_SECONDS = 60
"""What only catches a hang: a busy machine may take long."""


class SampleTrack(MediaStreamTrack):
    """Plays samples in real time, then silence; ends never."""

    kind = "audio"

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__()
        self._samples = samples
        self._position = 0
        self._started_at: float | None = None

    async def recv(self) -> av.AudioFrame:
        now = asyncio.get_running_loop().time()
        if self._started_at is None:
            self._started_at = now
        await asyncio.sleep(max(0.0, self._started_at + self._position / 48_000 - now))
        piece = self._samples[self._position : self._position + 960]
        piece = np.pad(piece, (0, 960 - len(piece)))
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 48_000
        frame.pts = self._position
        frame.time_base = Fraction(1, 48_000)
        self._position += 960
        return frame


class Caller:
    """One aiortc connection; every method is called from Trio and runs in the caller's own loop."""

    def __init__(self, portal: anyio.from_thread.BlockingPortal) -> None:
        self._portal = portal
        self.pc: RTCPeerConnection
        self.channel: RTCDataChannel | None = None
        self.opened_channels: list[RTCDataChannel] = []
        self.received: list[str | bytes] = []
        self.heard: list[np.ndarray] = []
        self.states: list[str] = []

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._portal.call_async(function, *args)

    async def offer(
        self,
        samples: np.ndarray | None = None,
        *,
        direction: str = "sendrecv",
        channel: str | None = "events",
        has_data: bool = True,
        **channel_options: Any,
    ) -> str:
        async def make() -> str:
            self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            track = SampleTrack(np.zeros(0, np.int16) if samples is None else samples)
            self.pc.addTransceiver(track, direction=direction)
            self.pc.on("track", lambda track: asyncio.ensure_future(self._hear(track)))
            self.pc.on("datachannel", self._take_channel)
            if channel is not None:
                self.channel = self.pc.createDataChannel(channel, **channel_options)
                self.channel.on("message", self.received.append)
            elif has_data:
                self.pc._RTCPeerConnection__createSctpTransport()
            await self.pc.setLocalDescription(await self.pc.createOffer())
            return self.pc.localDescription.sdp

        return await self.run(make)

    async def accept(self, answer: str) -> None:
        await self.run(self.pc.setRemoteDescription, RTCSessionDescription(answer, "answer"))

    async def open_channel(self) -> list[str | bytes]:
        """Open another channel ``events``, use it from now on, and return what comes on it."""
        received: list[str | bytes] = []

        async def open_channel() -> None:
            self.channel = self.pc.createDataChannel("events")
            self.channel.on("message", received.append)

        await self.run(open_channel)
        await self.until(lambda: self.channel is not None and self.channel.readyState != "connecting")
        return received

    async def send(self, message: str | bytes) -> None:
        async def send() -> None:
            assert self.channel is not None
            self.channel.send(message)

        await self.run(send)

    async def send_raw(self, protocol: int, data: bytes) -> None:
        """Send on the channel's stream past aiortc's own encoding."""

        async def send() -> None:
            assert self.channel is not None
            await self.pc.sctp._send(self.channel.id, protocol, data)

        await self.run(send)

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110  # the other thread has no Trio event to set
                await trio.sleep(0.01)

    async def hang_up(self) -> None:
        await self.run(self.pc.close)

    async def vanish(self) -> None:
        """Go away as a killed process does: the sockets are closed, and nothing is said."""

        async def vanish() -> None:
            for transceiver in self.pc.getTransceivers():
                connection = transceiver.receiver.transport.transport._connection
                for protocol in connection._protocols:
                    protocol.transport.abort()

        await self.run(vanish)

    async def fall_silent(self) -> None:
        """Say and answer nothing any more, as a caller on a network that is gone."""

        async def fall_silent() -> None:
            for transceiver in self.pc.getTransceivers():
                connection = transceiver.receiver.transport.transport._connection
                for protocol in connection._protocols:
                    protocol.transport.sendto = lambda *_: None

        await self.run(fall_silent)

    def _take_channel(self, channel: RTCDataChannel) -> None:
        """Use a channel that the server opened, unless it has come across one of the caller's own."""
        self.opened_channels.append(channel)
        if self.channel is None or self.channel.readyState in ("closing", "closed"):
            self.channel = channel
        channel.on("message", self.received.append)

    async def _hear(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.heard.append(frame.to_ndarray().reshape(-1, 2)[:, 0])


@pytest.fixture
def portal() -> Iterator[anyio.from_thread.BlockingPortal]:
    """The callers' loop."""
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture
async def make_caller(portal: anyio.from_thread.BlockingPortal) -> AsyncIterator[Callable[[], Caller]]:
    """Make callers; they are closed afterwards."""
    callers: list[Caller] = []

    def make() -> Caller:
        callers.append(Caller(portal))
        return callers[-1]

    yield make
    with trio.CancelScope(shield=True), trio.fail_after(PATIENCE_SECONDS):
        for caller in callers:
            if hasattr(caller, "pc"):
                await caller.hang_up()


@pytest.fixture
async def media() -> AsyncIterator[MediaThread]:
    """The media thread; nothing may be overdue in it."""
    overdue: list[str] = []
    async with open_media_thread(on_overdue=overdue.append) as media:
        yield media
    assert overdue == []


Connect = Callable[..., Any]


@pytest.fixture
async def connect(media: MediaThread, make_caller: Callable[[], Caller]) -> AsyncIterator[Connect]:
    """Connect a caller and return both ends; the peers are closed afterwards."""
    peers: list[Peer] = []

    async def connected(
        samples: np.ndarray | None = None, config: PeerConfig | None = None, **options: Any
    ) -> tuple[Peer, Caller]:
        caller = make_caller()
        peer = await media.open_peer(config or PeerConfig())
        peers.append(peer)
        await caller.accept(await peer.answer(await caller.offer(samples, **options)))
        with trio.fail_after(PATIENCE_SECONDS):
            await peer.connected.wait()
        assert peer.ended_by is None
        return peer, caller

    yield connected
    for peer in peers:
        await peer.aclose()
