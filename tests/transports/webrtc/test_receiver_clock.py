"""The receiver with its real decoder and timers, in an event loop whose time is virtual: a minute takes two seconds."""

import asyncio
import random
import selectors
from typing import Any

import numpy as np
import pytest
from aiortc.rtcrtpparameters import RTCRtpCodecParameters, RTCRtpReceiveParameters
from aiortc.rtp import RtpPacket
from scipy.signal import correlate

from voice_agent.audio.opus import OpusEncoder
from voice_agent.core.frames import AudioFrame
from voice_agent.transports.webrtc.rtp_receiver import AudioReceiver

RATE = 48_000
STEP = RATE // 50
OPUS = 111
LOOK_AHEAD_SAMPLES = 312
"""How much later libopus's decoder gives what its encoder was given."""
DELAY_LIMIT_SECONDS = 0.160


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for nothing: its time is what it would have waited."""

    def __init__(self) -> None:
        self.now = 1000.0
        selector = selectors.DefaultSelector()
        select = selector.select

        def pass_time(timeout: float | None = None) -> Any:
            self.now += timeout or 0.0
            return select(0)

        selector.select = pass_time  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class NoTransport:
    """The receiver's side of a DTLS transport: reports go nowhere."""

    def _register_rtp_receiver(self, receiver: Any, parameters: Any) -> None: ...

    def _unregister_rtp_receiver(self, receiver: Any) -> None: ...

    async def _send_rtp(self, data: bytes) -> None: ...


def sweeps(seconds: int) -> np.ndarray:
    """A second's sweep is like no other, so that it can be found again."""
    at = np.arange(RATE) / RATE
    each = [np.sin(2 * np.pi * (300 + 17 * n + (900 + 23 * n) * at) * at) for n in range(seconds)]
    return np.concatenate(each).astype(np.float32) * 0.3


def play(
    packets: list[tuple[float, int, int, bytes]],
) -> list[tuple[float, AudioFrame]]:
    """Deliver packets, each ``(seconds, sequence, number, payload)``; return the frames and when they came."""
    loop = VirtualLoop()
    frames: list[tuple[float, AudioFrame]] = []

    async def run() -> None:
        began = loop.time()
        receiver = AudioReceiver(NoTransport(), lambda frame: frames.append((loop.time() - began, frame)))
        codec = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=RATE, channels=2, payloadType=OPUS)
        await receiver.receive(RTCRtpReceiveParameters(codecs=[codec]))
        for seconds, sequence, number, payload in sorted(packets):
            await asyncio.sleep(began + seconds - loop.time())
            packet = RtpPacket(
                OPUS, 0, (65_000 + sequence) & 0xFFFF, (0xFFFF_0000 + number * STEP) & 0xFFFF_FFFF
            )
            packet.ssrc, packet.payload = 7, payload
            await receiver._handle_rtp_packet(packet, 0)
        await asyncio.sleep(1)
        await receiver.stop()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    return frames


@pytest.fixture(scope="module")
def minute() -> tuple[np.ndarray, list[bytes]]:
    """Sound, and its packets."""
    sound = sweeps(61)
    return sound, OpusEncoder(RATE, 1).encode(sound)


def silenced(payloads: list[bytes], *pauses: range) -> list[tuple[int, bytes]]:
    """Discontinuous transmission: of each pause, in seconds, only the first packet is sent, and it holds no frame."""
    left_out = {number for pause in pauses for number in range(pause.start * 50, pause.stop * 50)}
    marks = {pause.start * 50 for pause in pauses}
    return [
        (number, payload[:1] if number in marks else payload)
        for number, payload in enumerate(payloads)
        if number not in left_out or number in marks
    ]


def lag(heard: np.ndarray, sound: np.ndarray, second: int) -> int:
    """How many samples later a second is heard than it was played."""
    margin = RATE // 2
    window = heard[second * RATE - margin : (second + 1) * RATE + margin].astype(np.float32)
    found = correlate(window, sound[second * RATE : (second + 1) * RATE], mode="valid", method="fft")
    return int(np.argmax(found)) - margin


@pytest.mark.parametrize(("loss", "jitter_seconds"), [(0.0, 0.0), (0.02, 0.0), (0.0, 0.030), (0.05, 0.030)])
def test_media_time_is_true_to_the_sample_over_a_minute(
    minute: tuple[np.ndarray, list[bytes]], loss: float, jitter_seconds: float
) -> None:
    """With ±30 ms of jitter and 5 % lost, sound stands exactly where it was played, and comes within 160 ms."""
    sound, payloads = minute
    chance = random.Random(11)
    packets = [
        (number / 50 + 0.03 + chance.uniform(-1, 1) * jitter_seconds, number, number, payload)
        for number, payload in enumerate(payloads)
        if number == 0 or chance.random() >= loss
    ]
    frames = play(packets)
    position = 0
    for _, frame in frames:
        assert frame.position == position
        position = frame.end
    heard = np.concatenate([np.asarray(frame.samples) for _, frame in frames])
    lags = [lag(heard, sound, second) - LOOK_AHEAD_SAMPLES for second in (1, 20, 40, 59)]
    # The last second is one that no packet follows.
    delay = max(at - frame.position / RATE for at, frame in frames if frame.end <= 60 * RATE)
    print(f"loss {loss}, jitter {jitter_seconds}: lags {lags} samples, delay at most {delay * 1000:.0f} ms")
    assert lags == [0, 0, 0, 0]
    assert delay <= DELAY_LIMIT_SECONDS


@pytest.mark.parametrize("jitter_seconds", [0.0, 0.030])
def test_media_time_is_true_through_discontinuous_transmission(
    minute: tuple[np.ndarray, list[bytes]], jitter_seconds: float
) -> None:
    """A sender that sends nothing for ten seconds, twice: what follows stands exactly where it was played.

    Meanwhile silence comes in time, so that the end of what was said is known.
    """
    sound, payloads = minute
    chance = random.Random(12)
    kept = silenced(payloads, range(10, 20), range(40, 50))
    frames = play(
        [
            (n / 50 + 0.03 + chance.uniform(-1, 1) * jitter_seconds, sequence, n, payload)
            for sequence, (n, payload) in enumerate(kept)
        ]
    )
    heard = np.concatenate([np.asarray(frame.samples) for _, frame in frames])
    lags = [lag(heard, sound, second) - LOOK_AHEAD_SAMPLES for second in (1, 9, 25, 39, 55, 59)]
    delay = max(at - frame.position / RATE for at, frame in frames if frame.end <= 60 * RATE)
    print(f"jitter {jitter_seconds}: lags {lags} samples, delay at most {delay * 1000:.0f} ms")
    assert lags == [0, 0, 0, 0, 0, 0]
    assert delay <= DELAY_LIMIT_SECONDS
    assert not heard[11 * RATE : 19 * RATE].any()
