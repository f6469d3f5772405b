"""The audio that is played to a WebRTC caller: a bounded buffer, and the paced track that empties it.

The buffer is written by a Trio task and read by the media thread, without a lock: each side only ever writes its own
counters, and the deque between them is atomic at both ends. Clearing moves a mark, so it takes effect with the very
next packet.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
import numpy.typing as npt
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from voice_agent.audio.opus import OpusEncoder

RATE: Final = 48_000
FRAME_SAMPLES: Final = RATE // 50
RAMP_SAMPLES: Final = RATE // 200
"""5 ms, in which sound that is cut off falls to silence."""
AUDIBLE_STEP: Final = 512
"""A step of more than 1/64 of full scale clicks."""
STEADY_SILENT_FRAMES: Final = 10
"""After 200 ms of silence the encoder has nothing left to say, and its last packet is sent again."""
MAX_BEHIND_FRAMES: Final = 5
"""A track that is further behind than 100 ms skips the time instead of sending a burst."""
TIME_BASE: Final = Fraction(1, RATE)

Samples = npt.NDArray[np.int16]


class OutboundBuffer:
    """Mono int16 at 48 kHz that waits to be played. ``on_room`` is called by the reading thread after each frame."""

    def __init__(self, max_samples: int, on_room: Callable[[], None] = lambda: None) -> None:
        self._max_samples = max_samples
        self._on_room = on_room
        self._pieces: deque[Samples] = deque()
        self._put = 0
        self._cleared_to = 0
        self._taken = 0
        self._rest: Samples = np.zeros(0, np.int16)
        self._last_sample = 0

    @property
    def waiting_samples(self) -> int:
        """Samples that will still be played."""
        return self._put - max(self._taken, self._cleared_to)

    @property
    def has_room(self) -> bool:
        """Whether more may be put."""
        return self.waiting_samples < self._max_samples

    def put(self, samples: Samples) -> None:
        """Queue samples (writer's side)."""
        self._pieces.append(samples)
        self._put += len(samples)

    def clear(self) -> int:
        """Forget everything that waits (writer's side); return how many samples that were."""
        waiting = self.waiting_samples
        self._cleared_to = self._put
        return max(0, waiting)

    def take(self) -> Samples | None:
        """Return the next 20 ms (reader's side), or ``None`` for pure silence."""
        self._drop_cleared()
        frame = self._gather()
        if len(frame) == 0 and self._last_sample == 0:
            return None
        self._on_room()
        return self._seamless(frame)

    def _drop_cleared(self) -> None:
        while self._taken < self._cleared_to:
            if not len(self._rest):
                self._rest = self._pieces.popleft()
            dropped = min(len(self._rest), self._cleared_to - self._taken)
            self._rest = self._rest[dropped:]
            self._taken += dropped
            self._is_cut = True

    _is_cut = False

    def _gather(self) -> Samples:
        parts: list[Samples] = []
        missing = FRAME_SAMPLES
        while missing:
            if not len(self._rest):
                try:
                    self._rest = self._pieces.popleft()
                except IndexError:
                    break
            part, self._rest = self._rest[:missing], self._rest[missing:]
            parts.append(part)
            missing -= len(part)
            self._taken += len(part)
        return np.concatenate(parts) if parts else np.zeros(0, np.int16)

    def _seamless(self, frame: Samples) -> Samples:
        """Fill up to 20 ms, and let no step be heard where sound begins, ends or was cut out."""
        played = np.zeros(FRAME_SAMPLES, np.int16)
        played[: len(frame)] = frame
        fall = np.linspace(1, 0, RAMP_SAMPLES, dtype=np.float32)
        if len(frame) == 0 or self._is_cut or self._last_sample == 0:
            first = int(frame[0]) if len(frame) else 0
            step = self._last_sample - first
            if abs(step) > AUDIBLE_STEP:
                played[:RAMP_SAMPLES] = np.clip(
                    played[:RAMP_SAMPLES] + (step * fall).astype(np.int32), -32768, 32767
                ).astype(np.int16)
        self._is_cut = False
        end = len(frame)
        self._last_sample = int(frame[-1]) if end else 0
        if 0 < end < FRAME_SAMPLES:
            tail = played[end : end + RAMP_SAMPLES]
            tail[:] = (self._last_sample * fall[: len(tail)]).astype(np.int16)
            self._last_sample = int(tail[-1])
        return played


class OutboundTrack(MediaStreamTrack):
    """A track of Opus packets, one each 20 ms of the loop's clock, silent when the buffer is empty.

    It gives aiortc packets, not frames: aiortc would encode frames in the event loop's thread pool.
    """

    kind = "audio"

    def __init__(self, buffer: OutboundBuffer) -> None:
        super().__init__()
        self.packets_sent = 0
        self._buffer = buffer
        self._encoder = OpusEncoder(RATE, 1)
        self._started_at: float | None = None
        self._frames = 0
        self._silent_frames = 0
        self._last_packet = b""

    async def recv(self) -> Any:
        """Return the next packet when its time has come."""
        if self.readyState != "live":
            raise MediaStreamError
        loop = asyncio.get_running_loop()
        if self._started_at is None:
            self._started_at = loop.time()
        wait_seconds = self._started_at + self._frames * FRAME_SAMPLES / RATE - loop.time()
        if wait_seconds > 0:
            await asyncio.sleep(wait_seconds)
        elif -wait_seconds > MAX_BEHIND_FRAMES * FRAME_SAMPLES / RATE:
            self._frames += int(-wait_seconds * RATE) // FRAME_SAMPLES
        packet = av.Packet(self._encode(self._buffer.take()))
        packet.pts = self._frames * FRAME_SAMPLES
        packet.time_base = TIME_BASE
        self._frames += 1
        self.packets_sent += 1
        return packet

    def _encode(self, samples: Samples | None) -> bytes:
        if samples is not None:
            self._silent_frames = 0
            floats = samples.astype(np.float32) / np.float32(32768)
        else:
            self._silent_frames += 1
            if self._silent_frames > STEADY_SILENT_FRAMES:
                return self._last_packet
            floats = np.zeros(FRAME_SAMPLES, np.float32)
        [self._last_packet] = self._encoder.encode(floats)
        return self._last_packet
