"""Ears in a call: what the agent plays comes back through a loudspeaker, and only a raw microphone's echo is taken out."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import numpy as np
import pytest
import trio
from trio.testing import MockClock

from voice_agent.core.commands import CallOptions, Microphone
from voice_agent.core.events import SessionEvent, SpeechStarted, SpeechStopped
from voice_agent.core.frames import AudioFrame
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.settings.schema import EarsSettings, Settings

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]

RATE = 16_000
FRAME_SECONDS = 0.02
ECHO_FRAMES = 5
PATIENCE_SECONDS = 30


def frame(sound: np.ndarray, number: int, rate: int) -> np.ndarray:
    step = int(rate * FRAME_SECONDS)
    return sound[number * step : (number + 1) * step]


async def echoes(
    services: Services, clock: MockClock, microphone: Microphone, *, rate: int, seconds: int = 8
) -> tuple[list[SessionEvent], Callable[[], float]]:
    """Play bursts of noise to a caller whose microphone hears it 100 ms later, half as loud; then the caller speaks for a second."""
    rng = np.random.default_rng(4)
    loudness = np.repeat(rng.uniform(0, 1, 8 * (seconds + 2)) ** 3, rate // 8)
    said = (rng.standard_normal(rate * (seconds + 2)) * 0.15 * loudness).astype(np.float32)
    events: list[SessionEvent] = []
    async with open_session(services, options=CallOptions(microphone=microphone)) as session:
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                async for event in session.events():
                    events.append(event)

            nursery.start_soon(read)
            for number in range(round((seconds + 2) / FRAME_SECONDS)):
                near = np.zeros(int(rate * FRAME_SECONDS), np.float32)
                if number < seconds / FRAME_SECONDS:
                    session._hearing.far_end.play(frame(said, number, rate), rate, trio.current_time())
                    if number >= ECHO_FRAMES:
                        near = frame(said, number - ECHO_FRAMES, rate) * np.float32(0.5)
                elif number >= (seconds + 0.6) / FRAME_SECONDS and number < (seconds + 1.6) / FRAME_SECONDS:
                    near = np.random.default_rng(number).uniform(-0.2, 0.2, len(near)).astype(np.float32)
                clock.jump(FRAME_SECONDS)
                await session.send_audio(AudioFrame(near, rate))
                while session._inbox.waiting_seconds:
                    await trio.testing.wait_all_tasks_blocked()
                    await trio.lowlevel.checkpoint()
            await session.finish()
            heard = session._hearing.heard_seconds
        return events, lambda: heard


@pytest.mark.parametrize("rate", [16_000, 48_000])
async def test_an_agent_on_a_loudspeaker_does_not_hear_itself(
    rate: int, mock_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Its own voice opens no utterance, and the caller's behind it does, where it was spoken."""
    async with open_scripted_services() as services:
        with trio.fail_after(PATIENCE_SECONDS):
            events, heard = await echoes(services, mock_clock, Microphone.RAW, rate=rate)
    began = [event.start for event in events if isinstance(event, SpeechStarted)]
    ended = [event.end for event in events if isinstance(event, SpeechStopped)]
    assert len(began) == len(ended) == 1
    assert began[0] == pytest.approx(8.6, abs=0.3)
    assert ended[0] == pytest.approx(9.6, abs=0.1)
    assert heard() == pytest.approx(10)


@pytest.mark.parametrize(
    ("microphone", "settings"),
    [
        (Microphone.PROCESSED, Settings()),
        (Microphone.RAW, Settings(ears=EarsSettings(echo_cancellation="off"))),
    ],
)
async def test_what_is_not_cancelled_is_heard(
    microphone: Microphone, settings: Settings, mock_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """By default nothing is done to a caller's sound, and `off` holds for raw microphones too."""
    async with open_scripted_services(settings=settings) as services:
        with trio.fail_after(PATIENCE_SECONDS):
            events, _ = await echoes(services, mock_clock, microphone, rate=RATE)
    began = [event.start for event in events if isinstance(event, SpeechStarted)]
    assert min(began) < 1


async def test_the_setting_alone_is_enough(
    mock_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """`on` cancels the echo of callers who say nothing of their microphone."""
    settings = Settings(ears=EarsSettings(echo_cancellation="on"))
    async with open_scripted_services(settings=settings) as services:
        with trio.fail_after(PATIENCE_SECONDS):
            events, _ = await echoes(services, mock_clock, Microphone.PROCESSED, rate=RATE)
    assert all(event.start > 8 for event in events if isinstance(event, SpeechStarted))
