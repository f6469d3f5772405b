"""The player in front of the real transports: what reaches a caller is the voice, in messages of 20 ms."""

import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from voice_agent.audio.decoding import open_decoder
from voice_agent.audio.resample import MonoAudio
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import Encoding
from voice_agent.session.playing import Player
from voice_agent.settings.schema import WebSocketSettings
from voice_agent.transports.memory import open_memory_pair
from voice_agent.transports.webrtc.outbound import FRAME_SAMPLES, OutboundBuffer
from voice_agent.transports.websocket.endpoint import open_websocket_transport
from voice_agent.transports.websocket.protocol import WebSocketProtocol

VOICE_RATE = 22_050
HERTZ = 400
SECONDS = 0.4

FORMATS = {
    AudioFormat(Encoding.PCM_S16LE, 16_000, 1): 640,
    AudioFormat(Encoding.PCM_S16LE, 11_025, 1): 440,
    AudioFormat(Encoding.PCM_F32LE, 44_100, 2): 7_056,
    AudioFormat(Encoding.MULAW, 8_000, 1): 160,
    AudioFormat(Encoding.ALAW, 8_000, 2): 320,
    AudioFormat(Encoding.OPUS, 48_000, 1): None,
    AudioFormat(Encoding.OPUS, 24_000, 2): None,
    AudioFormat(Encoding.OPUS, 8_000, 1): None,
}
"""Formats of calls, and the bytes of a message of 20 ms."""


async def voice(seconds: float = SECONDS) -> AsyncIterator[MonoAudio]:
    """A tone, in uneven pieces."""
    times = np.arange(round(seconds * VOICE_RATE)) / VOICE_RATE
    sound = (0.5 * np.sin(2 * np.pi * HERTZ * times)).astype(np.float32)
    for piece in np.split(sound, [1, 3_000, 3_333]):
        await trio.lowlevel.checkpoint()
        yield piece


async def no_words(_count: int) -> None:
    """Hear nothing of the words."""
    await trio.lowlevel.checkpoint()


def purity(samples: MonoAudio, rate: int) -> float:
    """The share of the sound's power that is the voice's tone."""
    times = np.arange(len(samples)) / rate
    basis = np.stack([np.sin(2 * np.pi * HERTZ * times), np.cos(2 * np.pi * HERTZ * times)], axis=1)
    found, *_ = np.linalg.lstsq(basis, samples.astype(np.float64), rcond=None)
    return float(np.sum((basis @ found) ** 2) / np.sum(samples.astype(np.float64) ** 2))


@pytest.mark.parametrize(
    "audio_format", FORMATS, ids=lambda audio: f"{audio.encoding}-{audio.sample_rate}-{audio.channels}"
)
async def test_a_websocket_call_gets_its_own_format(
    audio_format: AudioFormat, autojump_clock: MockClock
) -> None:
    """Each message is 20 ms in the call's encoding, rate and channels; decoded they are the voice, on every channel."""
    to_server, from_caller = trio.open_memory_channel[dict[str, Any]](10)
    messages: list[bytes] = []

    async def send(message: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint()
        if message.get("bytes"):
            messages.append(message["bytes"])

    start = {
        "type": "start",
        "encoding": audio_format.encoding,
        "sample_rate": audio_format.sample_rate,
        "channels": audio_format.channels,
    }
    to_server.send_nowait({"type": "websocket.receive", "text": json.dumps(start)})
    settings = WebSocketSettings()
    async with open_websocket_transport(
        from_caller.receive, send, settings, WebSocketProtocol(settings)
    ) as transport:
        await transport.recv_text()
        player = Player(
            send=transport.send_audio,
            clear=lambda: 0,
            sample_rate=audio_format.sample_rate,
            channels=audio_format.channels,
        )
        assert await player.play("One.", voice(), VOICE_RATE, number=1, on_words=no_words)
    frame_seconds = audio_format.sample_rate // 50 / audio_format.sample_rate
    assert len(messages) == np.ceil(round(SECONDS / frame_seconds, 6))
    if (size := FORMATS[audio_format]) is not None:
        assert {len(message) for message in messages} == {size}
    decoder = open_decoder(audio_format)
    heard = np.concatenate([decoder.decode(message).to_float32() for message in messages])
    assert decoder.position == round(len(messages) * frame_seconds * decoder.sample_rate)
    begin, end = (round(at * decoder.sample_rate) for at in (0.05, 0.38))
    for channel in heard.reshape(len(heard), -1).T:
        assert purity(channel[begin:end], decoder.sample_rate) > 0.99


async def test_a_webrtc_buffer_never_holds_more_than_the_lead(autojump_clock: MockClock) -> None:
    """The track takes 20 ms each 20 ms: it always finds a whole frame, and a cut leaves nothing for it to take."""
    buffer = OutboundBuffer(48_000)
    taken: list[int] = []

    async def send(frame: Any) -> None:
        await trio.lowlevel.checkpoint()
        buffer.put(frame.to_int16())

    async def track() -> None:
        await trio.sleep(0.005)
        while True:
            assert buffer.waiting_samples <= 5 * FRAME_SAMPLES
            taken.append(buffer.waiting_samples)
            buffer.take()
            await trio.sleep(0.02)

    player = Player(send=send, clear=lambda: buffer.clear() // 48, sample_rate=48_000, channels=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track)
        await player.play("One.", voice(), VOICE_RATE, number=1, on_words=no_words)
        assert min(taken) >= FRAME_SAMPLES
        assert player.cut() == pytest.approx(100, abs=20)
        assert buffer.waiting_samples == 0
        nursery.cancel_scope.cancel()


async def test_a_caller_who_reads_slowly_moves_the_sound(autojump_clock: MockClock) -> None:
    """In front of the in-memory transport, a caller who takes nothing for a while hears all of it, later."""
    transport, caller = open_memory_pair(max_frames=5)
    player = Player(send=transport.send_audio, clear=lambda: 0, sample_rate=16_000, channels=1)
    heard = 0

    async def read() -> None:
        nonlocal heard
        await trio.sleep(2)
        async for frame in caller.received_audio():
            heard += frame.sample_count

    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        nursery.start_soon(read)
        began = trio.current_time()
        await player.play("One.", voice(), VOICE_RATE, number=1, on_words=no_words)
        await player.finish()
        assert trio.current_time() - began == pytest.approx(2 + SECONDS - 0.1, abs=1e-3)
        assert heard == 16_000 * SECONDS
        nursery.cancel_scope.cancel()
