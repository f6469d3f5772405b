"""AudioInbox: audio that waits to be heard, bounded in milliseconds.

Two doors, by who stands in front of them: :meth:`offer` never waits and drops the oldest audio when there is too
much (a live caller: fresh words count more than late ones, and memory stays bounded); :meth:`put` waits for room
(an embedding program or a file: nothing may be lost).
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs
import trio

from voice_agent.core.errors import SessionClosedError
from voice_agent.core.frames import AudioFrame

MAX_WAITING_FLUSHES: Final = 64
"""More flushes than that, with nothing heard in between, end no more utterances."""


@attrs.frozen
class FlushMark:
    """End the utterance once the audio up to ``position_seconds`` has been heard."""

    position_seconds: float


class AudioInbox:
    """One call's waiting audio; one reader."""

    def __init__(self, max_waiting_ms: int) -> None:
        self._max_waiting_seconds = max_waiting_ms / 1000
        # Frames of less than a millisecond on average would fill the memory with what is around the samples.
        self._max_waiting_frames = max_waiting_ms
        self._waiting: deque[tuple[AudioFrame | FlushMark, float]] = deque()
        self._waiting_seconds = 0.0
        self._waiting_frames = 0
        self._is_closed = False
        self._changed = trio.lowlevel.ParkingLot()
        self.dropped_seconds = 0.0
        """Audio dropped since the call began."""
        self.taken_came_at = 0.0
        """When the item that was taken last had come, on Trio's clock."""

    @property
    def waiting_seconds(self) -> float:
        """Audio that waits, in seconds."""
        return self._waiting_seconds

    @property
    def is_closed(self) -> bool:
        """Whether no more audio is accepted."""
        return self._is_closed

    def offer(self, frame: AudioFrame) -> None:
        """Take a frame now; when too much waits, the oldest audio goes. After :meth:`close` the frame is ignored.

        The newest frame stays, however long it is: else a message longer than the limit would never be heard, even
        where nothing else waits.
        """
        if self._is_closed:
            return
        self._append(frame)
        while self._waiting_frames > 1 and (
            self._waiting_seconds > self._max_waiting_seconds
            or self._waiting_frames > self._max_waiting_frames
        ):
            self._drop_oldest()

    async def put(
        self, frame: AudioFrame, placed: Callable[[AudioFrame], AudioFrame] = lambda frame: frame
    ) -> None:
        """Take a frame as soon as there is room; ``placed`` is asked for its place in the call only then.

        Raises:
            SessionClosedError: the inbox was closed before the frame was taken.
        """
        await self.wait_for_room()
        if self._is_closed:
            raise SessionClosedError("the session takes no more audio: it was finished or has ended")
        self._append(placed(frame))

    async def wait_for_room(self) -> None:
        """Wait until a frame can be taken without dropping another, or until none is accepted any more."""
        await trio.lowlevel.checkpoint()
        while not self._is_closed and self._waiting_seconds >= self._max_waiting_seconds:
            await self._changed.park()

    def flush(self, position_seconds: float) -> None:
        """Ask for the end of the utterance at a place in the call."""
        if not self._is_closed and len(self._waiting) - self._waiting_frames < MAX_WAITING_FLUSHES:
            self._waiting.append((FlushMark(position_seconds), trio.current_time()))
            self._changed.unpark_all()

    def close(self) -> None:
        """Accept no more; what waits will still be heard. Idempotent."""
        self._is_closed = True
        self._changed.unpark_all()

    def discard(self) -> None:
        """Drop what waits, for nobody will hear it."""
        while self._waiting_frames:
            self._drop_oldest()

    async def get(self) -> AudioFrame | FlushMark:
        """Return the oldest item.

        Raises:
            trio.EndOfChannel: closed, and all was taken.
        """
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._is_closed:
                raise trio.EndOfChannel
            await self._changed.park()
        item, self.taken_came_at = self._waiting.popleft()
        if isinstance(item, AudioFrame):
            self._waiting_frames -= 1
            self._waiting_seconds = max(0.0, self._waiting_seconds - item.duration_seconds)
            self._changed.unpark_all()
        return item

    def _append(self, frame: AudioFrame) -> None:
        if not frame.sample_count:
            return
        self._waiting.append((frame, trio.current_time()))
        self._waiting_frames += 1
        self._waiting_seconds += frame.duration_seconds
        self._changed.unpark_all()

    def _drop_oldest(self) -> None:
        index = next(i for i, (item, _) in enumerate(self._waiting) if isinstance(item, AudioFrame))
        frame, _ = self._waiting[index]
        assert isinstance(frame, AudioFrame)  # noqa: S101 (narrows the type found one line above)
        del self._waiting[index]
        self._waiting_frames -= 1
        self._waiting_seconds -= frame.duration_seconds
        self.dropped_seconds += frame.duration_seconds
