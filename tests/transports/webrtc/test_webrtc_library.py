"""What the WebRTC library does by itself, measured on the pinned versions, and must not do here."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import trio
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, DataChunk, tsn_plus_one

from voice_agent.core.errors import IceTimeoutError, TransportBrokenError
from voice_agent.settings.schema import Settings
from voice_agent.transports.webrtc.config import IceServer, PeerConfig
from voice_agent.transports.webrtc.crossing import Crossing
from voice_agent.transports.webrtc.media_thread import MediaThread
from voice_agent.transports.webrtc.outbound import OutboundBuffer, OutboundTrack

WINDOW_BYTES = 1024 * 1024
SOUND = np.zeros(480_000, np.int16)
STEREO_BIT = 0b100
"""RFC 6716, section 3.1: the TOC byte's bit that says stereo."""


def ice_of(peer: Any) -> list[Any]:
    return [transport.transport._connection for transport in peer._connection._transports()]


async def test_no_server_is_asked_that_nobody_chose(media: MediaThread, make_caller: Callable) -> None:
    """Aioice asks a public STUN server unless told otherwise; without settings no server is known at all."""
    async with await media.open_peer(PeerConfig()) as peer:
        await peer.answer(await make_caller().offer())
        assert [(ice.stun_server, ice.turn_server) for ice in ice_of(peer)] == [(None, None)]


async def test_a_server_that_does_not_answer_holds_up_the_answer_for_a_bounded_time(
    media: MediaThread, make_caller: Callable
) -> None:
    """The answer comes all the same, with the addresses that are known without it."""
    config = PeerConfig(ice_servers=(IceServer(urls=("stun:192.0.2.254:9",)),), gather_timeout_seconds=0.05)
    async with await media.open_peer(config) as peer:
        answer = await peer.answer(await make_caller().offer())
        assert ice_of(peer)[0].stun_server == ("192.0.2.254", 9)
    assert "typ host" in answer
    assert "typ srflx" not in answer


def test_the_limits_of_setting_up_are_the_documented_ones() -> None:
    """15 s from the answer to media, 20 candidates, offers of 32 KiB: in the settings, and where they are used."""
    webrtc = Settings().webrtc
    assert (webrtc.setup_timeout_seconds, webrtc.max_candidates, webrtc.max_offer_bytes) == (15, 20, 32_768)
    assert PeerConfig().setup_timeout_seconds == 15


async def test_dtls_that_never_ends_ends_the_call(media: MediaThread, make_caller: Callable) -> None:
    """A caller that answers ICE but not DTLS has the set-up time and no more."""
    caller = make_caller()
    offer = await caller.offer()

    async def never(_parameters: object) -> None:
        await asyncio.Event().wait()

    caller.pc.getTransceivers()[0].receiver.transport.start = never
    async with await media.open_peer(PeerConfig(setup_timeout_seconds=1)) as peer:
        await caller.accept(await peer.answer(offer))
        await caller.until(lambda: ice_of(peer)[0]._nominated)
        with trio.fail_after(60), pytest.raises(IceTimeoutError):
            await peer.recv_audio()


async def test_a_call_starts_no_thread(connect: Callable) -> None:
    """Aiortc starts a thread that is no daemon for each stream, which can keep the process from its exit."""
    before = {thread.name for thread in threading.enumerate() if not thread.daemon}
    peer, _ = await connect(SOUND, direction="sendonly")
    await peer.recv_audio()
    assert not [thread.name for thread in threading.enumerate() if "decoder" in thread.name]
    assert {thread.name for thread in threading.enumerate() if not thread.daemon} <= before | {"asyncio_0"}


HANGING = """
import sys, threading, trio
from voice_agent.transports.webrtc.media_thread import open_media_thread

async def main():
    async with open_media_thread(on_overdue=print) as media:
        media.call_soon(threading.Event().wait)

trio.run(main)
"""


@pytest.mark.e2e
def test_a_media_thread_that_hangs_does_not_keep_the_process() -> None:
    """Native code that never returns is reported after five seconds, and the process exits."""
    ended = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "did not end in time" in ended.stdout


async def test_the_answer_says_how_long_a_message_may_be(media: MediaThread, make_caller: Callable) -> None:
    """Aiortc offers 64 KiB and takes messages of megabytes; what is said here is held."""
    async with await media.open_peer(PeerConfig(max_message_bytes=1000)) as peer:
        answer = await peer.answer(await make_caller().offer())
    assert "a=max-message-size:1000" in answer.splitlines()


async def test_a_message_of_megabytes_costs_its_channel_and_not_the_call(connect: Callable) -> None:
    """It is noticed when it is over the limit, not when it is whole; nothing of it is kept; the call goes on."""
    peer, caller = await connect(SOUND)
    await caller.until(lambda: caller.channel.readyState == "open")
    broken = caller.channel
    await caller.send_raw(51, b"a" * 3_000_000)
    await caller.until(lambda: broken.readyState == "closed")
    assert peer.ended_by is None
    sctp = peer._connection._pc.sctp
    assert sctp._advertised_rwnd == WINDOW_BYTES
    assert not any(stream.reassembly for stream in sctp._inbound_streams.values())
    await caller.open_channel()
    await caller.send("sound")
    assert await peer.recv_message() == "sound"


async def test_unfinished_messages_on_many_streams_end_the_call(connect: Callable) -> None:
    """Where closing channels does not help, because the receive window is full of fragments, the caller goes."""
    peer, caller = await connect(SOUND)
    await caller.until(lambda: caller.channel.readyState == "open")

    sctp = peer._connection._pc.sctp

    async def receive_fragments() -> None:
        """As from the network, but without its losses."""
        tsn = tsn_plus_one(sctp._last_received_tsn)
        for stream in range(100, 140):
            for number in range(60):
                chunk = DataChunk(flags=0 if number else SCTP_DATA_FIRST_FRAG)
                chunk.protocol, chunk.stream_id, chunk.stream_seq = 51, stream, 0
                chunk.tsn, chunk.user_data = tsn, b"a" * 1000
                await sctp._receive_data_chunk(chunk)
                tsn = tsn_plus_one(tsn)

    await peer._media.call(receive_fragments)
    await caller.until(lambda: peer.ended_by is not None)
    assert "floods" in peer.ended_by.message


async def test_unread_messages_are_bounded(connect: Callable) -> None:
    """The oldest go, and are counted."""
    peer, caller = await connect(SOUND, config=PeerConfig(max_waiting_messages=10))
    await caller.until(lambda: caller.channel.readyState == "open")
    for number in range(30):
        await caller.send(str(number))
    await caller.until(lambda: peer.stats.messages_dropped == 20)
    assert [await peer.recv_message() for _ in range(10)] == [str(number) for number in range(20, 30)]


async def test_a_crossing_is_bounded_and_keeps_its_order() -> None:
    """Between the threads: what is put beyond the bound drops the oldest, and the end comes behind what is there."""
    crossing = Crossing[int](3)
    for number in range(5):
        crossing.put(number)
    crossing.end(TransportBrokenError("over"))
    crossing.put(99)
    assert [await crossing.take() for _ in range(3)] == [2, 3, 4]
    assert crossing.dropped == 2
    with pytest.raises(TransportBrokenError):
        await crossing.take()


async def test_cancelling_one_who_waits_for_a_close_cancels_it_for_nobody(
    media: MediaThread, make_caller: Callable
) -> None:
    """Work in the other thread that several wait for ends for each of them when it has ended."""
    peer = await media.open_peer(PeerConfig())
    await peer.answer(await make_caller().offer())
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def impatient() -> None:
            with scope:
                await peer.aclose()

        nursery.start_soon(impatient)
        nursery.start_soon(peer.aclose)
        await trio.lowlevel.checkpoint()
        scope.cancel()
    assert media.peers_open == 0
    assert await media.tasks() <= 1


def test_what_is_played_is_mono_and_of_a_modest_rate() -> None:
    """Aiortc encodes in stereo at 96 kbit/s; a voice needs a third of it."""

    async def packets() -> list[bytes]:
        buffer = OutboundBuffer(480_000)
        noise = np.random.default_rng(1).normal(0, 3000, 48_000)
        buffer.put(noise.astype(np.int16))
        track = OutboundTrack(buffer)
        return [bytes(await track.recv()) for _ in range(40)]

    sent = asyncio.run(packets())
    assert not any(packet[0] & STEREO_BIT for packet in sent)
    assert sum(map(len, sent)) * 8 / (len(sent) / 50) < 48_000
