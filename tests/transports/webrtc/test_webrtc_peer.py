"""A peer connection against a real aiortc caller on this machine's own addresses."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import trio
import trio.testing

from voice_agent.core.errors import (
    IceTimeoutError,
    InvalidFrameError,
    InvalidSdpError,
    NoCommonCodecError,
    TooManyCandidatesError,
    TransportBrokenError,
    UnsupportedMediaError,
)
from voice_agent.core.frames import AudioFrame
from voice_agent.transports.webrtc.addresses import allowed_addresses
from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.media_thread import MediaThread
from voice_agent.transports.webrtc.peer import Peer


def tone(seconds: float, hertz: float = 440.0, level: int = 8000) -> np.ndarray:
    at = np.arange(int(seconds * 48_000)) / 48_000
    return (level * np.sin(2 * np.pi * hertz * at)).astype(np.int16)


def loudest_hertz(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * 48_000 / len(samples))


async def hear(peer: Peer, seconds: float) -> np.ndarray:
    """Collect audio, checking that positions have no gaps."""
    pieces: list[AudioFrame] = []
    with trio.fail_after(60 + seconds):
        while not pieces or pieces[-1].end - pieces[0].position < seconds * 48_000:
            pieces.append(await peer.recv_audio())
    assert [piece.position for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    return np.concatenate([piece.samples for piece in pieces])


async def hear_until_the_end(peer: Peer, heard: list[AudioFrame]) -> None:
    while True:
        heard.append(await peer.recv_audio())


async def test_audio_of_a_caller_arrives_without_gaps(connect: Callable) -> None:
    """What a caller plays is received as 48 kHz mono int16 from position 0, and the statistics count it."""
    peer, _ = await connect(tone(2))
    samples = await hear(peer, 1.0)
    assert samples.dtype == np.int16
    assert loudest_hertz(samples[24_000:]) == pytest.approx(440, abs=4)
    stats = peer.stats
    assert stats.packets_received >= 50
    assert stats.packets_lost == stats.concealed_ms == stats.dropped_ms == 0
    assert stats.bitrate > 0
    assert stats.round_trip_ms is not None
    assert stats.round_trip_ms > 0


async def test_played_audio_reaches_the_caller_and_can_be_cleared(connect: Callable) -> None:
    """Audio is played at its own pace; clearing says how much was not played, and silence follows."""
    peer, caller = await connect()
    await peer.send_audio(AudioFrame(tone(5, 1000), 48_000))
    await caller.until(lambda: len(caller.heard) > 60)
    played = np.concatenate(caller.heard)
    assert loudest_hertz(played[-24_000:]) == pytest.approx(1000, abs=4)
    cleared_ms = peer.clear_audio()
    assert 0 < cleared_ms < 5000
    assert peer.clear_audio() == 0
    heard = len(caller.heard)
    await caller.until(lambda: len(caller.heard) > heard + 40)
    assert np.abs(caller.heard[-1]).max() < 50
    with pytest.raises(InvalidFrameError):
        await peer.send_audio(AudioFrame(np.zeros(160, np.int16), 16_000))


async def test_waiting_to_play_is_bounded_and_let_go_by_clearing(connect: Callable) -> None:
    """A sender waits while too much waits to be played, and goes on when it is cleared."""
    peer, _ = await connect(config=PeerConfig(max_outbound_audio_ms=1000))
    await peer.send_audio(AudioFrame(tone(60), 48_000))
    with trio.move_on_after(0.2) as scope:
        await peer.send_audio(AudioFrame(tone(1), 48_000))
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.send_audio, AudioFrame(tone(1), 48_000))
        await trio.testing.wait_all_tasks_blocked()
        peer.clear_audio()


async def test_unread_audio_drops_the_oldest(connect: Callable) -> None:
    """A reader that sleeps finds the newest audio, and the loss is counted."""
    peer, caller = await connect(tone(5), config=PeerConfig(max_waiting_audio_ms=200))
    await caller.until(lambda: peer.received_samples > 48_000)
    assert (await peer.recv_audio()).position >= 48_000 - 200 * 48 - 960
    assert peer.stats.dropped_ms >= 700


async def test_a_hang_up_ends_the_call_behind_its_audio(connect: Callable) -> None:
    """What came before a hang-up is still returned, then the end is told, on every door."""
    peer, caller = await connect(tone(5))
    await caller.until(lambda: peer.received_samples > 24_000)
    await caller.hang_up()
    heard: list[AudioFrame] = []
    with pytest.raises(TransportBrokenError), trio.fail_after(60):
        await hear_until_the_end(peer, heard)
    assert heard[-1].end > 24_000
    with pytest.raises(TransportBrokenError):
        await peer.recv_message()
    with pytest.raises(TransportBrokenError):
        await peer.send_message("too late")
    with pytest.raises(TransportBrokenError):
        await peer.send_audio(AudioFrame(tone(0.1), 48_000))


async def test_a_caller_that_vanishes_is_noticed_without_waiting_for_the_media_timeout(
    connect: Callable,
) -> None:
    """A caller whose process was killed is gone as soon as the network has said that nobody listens there."""
    peer, caller = await connect(tone(5), config=PeerConfig(media_timeout_seconds=600))
    await hear(peer, 0.2)
    await caller.vanish()
    with pytest.raises(TransportBrokenError, match="nobody listens"), trio.fail_after(60):
        await hear_until_the_end(peer, [])


async def test_a_caller_that_only_falls_silent_has_the_media_timeout(connect: Callable) -> None:
    """While somebody may still be there, nothing but the media timeout ends the call."""
    peer, caller = await connect(tone(5), config=PeerConfig(media_timeout_seconds=1.0))
    await hear(peer, 0.2)
    await caller.fall_silent()
    with pytest.raises(TransportBrokenError, match="nothing came"), trio.fail_after(60):
        await hear_until_the_end(peer, [])


async def test_a_report_about_a_caller_that_is_there_ends_nothing(
    connect: Callable, media: MediaThread
) -> None:
    """The network's report is a reason to ask the caller; one that answers stays, however often it is reported."""
    peer, _ = await connect(tone(5))
    await hear(peer, 0.2)

    async def report() -> None:
        for transport in peer._connection._transports():
            for protocol in transport.transport._connection._protocols:
                protocol.error_received(ConnectionRefusedError())

    for _ in range(5):
        await media.call(report)
        await hear(peer, 0.3)
    assert peer.ended_by is None


async def test_media_that_never_arrives_ends_the_call(media: MediaThread, make_caller: Callable) -> None:
    """An answered call without ICE ends at the set-up deadline."""
    peer = await media.open_peer(PeerConfig(setup_timeout_seconds=0.4))
    await peer.answer(await make_caller().offer())
    with trio.fail_after(60):
        with pytest.raises(IceTimeoutError):
            await peer.recv_audio()
        await peer.connected.wait()
    assert isinstance(peer.ended_by, IceTimeoutError)
    await peer.aclose()


async def test_candidates_can_trickle(media: MediaThread, make_caller: Callable) -> None:
    """A call connects when the caller's candidates come after the answer; what can't be used is passed over."""
    caller = make_caller()
    offer = await caller.offer(tone(1))
    lines = offer.splitlines()
    candidates = [line.removeprefix("a=") for line in lines if line.startswith("a=candidate:")]
    bare = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    async with await media.open_peer(PeerConfig()) as peer:
        await caller.accept(await peer.answer("\r\n".join(bare) + "\r\n"))
        await peer.add_candidates(["candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active"])
        await peer.add_candidates(["candidate:1 1 udp 1 no.such.name 9 typ host"])
        await peer.add_candidates(candidates, is_complete=True)
        await hear(peer, 0.2)
        with pytest.raises(InvalidSdpError):
            await peer.add_candidates(["candidate:nonsense"])
        with pytest.raises(TooManyCandidatesError):
            await peer.add_candidates(candidates[:1] * 64)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda _: "", InvalidSdpError),
        (lambda _: "hello", InvalidSdpError),
        (lambda offer: offer.replace("a=fingerprint:", "a=x-fingerprint:"), InvalidSdpError),
        (lambda offer: offer.replace("a=ice-pwd:", "a=x-ice-pwd:"), InvalidSdpError),
        (lambda offer: offer.replace("a=mid:", "a=x-mid:"), InvalidSdpError),
        (lambda offer: offer.replace("a=rtcp-mux", "a=x-rtcp-mux"), InvalidSdpError),
        (lambda offer: re.sub("m=audio [0-9]+", "m=audio nine", offer), InvalidSdpError),
        (
            lambda offer: offer.replace(" opus/", " speex/").replace("PCM", "XCM").replace("G722", "XX"),
            NoCommonCodecError,
        ),
        (lambda offer: offer.replace(" opus/", " speex/"), NoCommonCodecError),
        (
            lambda offer: offer.replace("m=audio", "m=application", 1),
            (UnsupportedMediaError, InvalidSdpError),
        ),
        (lambda offer: offer + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n" * 70, TooManyCandidatesError),
    ],
)
async def test_a_bad_offer_gets_its_error_and_leaves_nothing(
    media: MediaThread, make_caller: Callable, change: Callable, error: type
) -> None:
    """An offer that can't be served raises its own error; no task stays, and the thread serves the next call."""
    tasks = await media.tasks()
    async with await media.open_peer(PeerConfig()) as peer:
        with pytest.raises(error):
            await peer.answer(change(await make_caller().offer()))
    assert await media.tasks() == tasks
    assert media.peers_open == 0


async def test_only_allowed_addresses_are_offered(media: MediaThread, make_caller: Callable) -> None:
    """With an allow-list no other local address stands in the answer; without servers only host candidates do."""
    config = PeerConfig(allowed_networks=("127.0.0.0/8",))
    assert allowed_addresses(config) == ["127.0.0.1"]
    assert allowed_addresses(PeerConfig(allowed_interfaces=("none",))) == []
    async with await media.open_peer(config) as peer:
        answer = await peer.answer(await make_caller().offer())
    candidates = [line.split() for line in answer.splitlines() if line.startswith("a=candidate:")]
    assert {candidate[4] for candidate in candidates} == {"127.0.0.1"}
    assert {candidate[7] for candidate in candidates} == {"host"}


async def test_the_thread_answers_pings(media: MediaThread) -> None:
    """A health check gets an answer from the loop, or hears that it took too long."""
    assert await media.ping(5) >= 0
    with pytest.raises(trio.TooSlowError):
        await media.ping(0)
