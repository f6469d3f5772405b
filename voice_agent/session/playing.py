"""Playing: the paced way out of what the agent says, and the clock that says what of it has been heard.

The caller never holds more than a short lead, so that nothing of what is cut off sounds for longer; what has been heard
is what had the time to sound, and never more than was sent.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, NoReturn

import attrs
import numpy as np
import trio

from voice_agent.audio.resample import MonoAudio, open_resampler
from voice_agent.core.errors import InternalError
from voice_agent.core.frames import AudioFrame
from voice_agent.core.units import MS
from voice_agent.session.body_error import BodyError
from voice_agent.session.marks import USUAL_LETTERS_PER_SECOND, WordMarks
from voice_agent.settings.schema import AudioSettings

FRAMES_PER_SECOND: Final = 50
MARK_SECONDS: Final = 500 * MS
"""Words are told no more often."""
SLICES_PER_SECOND: Final = 10
"""A sentence that comes in one piece is resampled as it is played, a tenth of a second at a time: other calls run in between."""
MAX_PIECES_AHEAD: Final = 256
"""A voice that makes more pieces before they are played has to wait."""
_TOLERANCE_SECONDS: Final = 1e-6
"""Times are sums of frame lengths; what is due now may be a rounding away."""

OnFrame = Callable[[MonoAudio, int, float], None]
OnWords = Callable[[int], Awaitable[None]]


@attrs.frozen(kw_only=True)
class HeardSentence:
    """How much of a sentence has been heard: its number, the count of its words, and whether those are all."""

    number: int
    words: int
    is_whole: bool


@attrs.define(eq=False, kw_only=True)
class _Line:
    """A sentence between its first frame and the end of its sound."""

    number: int
    marks: WordMarks
    on_words: OnWords
    words: int
    told: int
    tell_at: float = float("inf")
    waiting: int = 0
    """Frames that were handed over and have not sounded."""
    sounded: int = 0
    """Frames that have."""
    is_ended: bool = False
    """No more frames come."""
    is_complete: bool = False
    """All of its frames were handed over."""

    def sound(self, frame_seconds: float) -> None:
        """Count a frame as heard."""
        self.waiting -= 1
        self.sounded += 1
        self.words = max(self.words, self.marks.heard(self.sounded * frame_seconds))
        self._check_whole()

    def complete(self) -> None:
        """Note that all frames were handed over."""
        self.is_complete = True
        self._check_whole()

    def _check_whole(self) -> None:
        if self.is_complete and not self.waiting:
            self.words = self.marks.count

    @property
    def is_over(self) -> bool:
        return self.is_ended and not self.waiting


class Player:
    """One call's loudspeaker: plays sentence after sentence, in frames of 20 ms, at the pace at which they sound.

    :meth:`run` must run in a task of its own for as long as the player is used: it tells the words that were heard. All
    other methods are called by whoever speaks, one :meth:`play` at a time; :meth:`cut` by anybody.

    A frame leaves ``lead_seconds`` (at least one frame) before the end of its sound is due. A voice that is late, or a
    transport that is slow to take a frame, moves everything behind it: lost time is not made up for. The far end of an
    echo canceller hears with ``on_frame(samples, sample_rate, at)``: each mono frame that left, and the time at which it
    begins to sound (seconds of Trio's clock). ``clear`` is the transport's ``clear_audio``; ``audio`` is asked at each
    sentence, because its settings may change.

    The last frame of a sentence is filled up with silence, so sentences can follow up to 20 ms later than their voice
    meant them to.
    """

    def __init__(
        self,
        *,
        send: Callable[[AudioFrame], Awaitable[None]],
        clear: Callable[[], int],
        sample_rate: int,
        channels: int,
        audio: Callable[[], AudioSettings] = AudioSettings,
        on_frame: OnFrame = lambda _samples, _rate, _at: None,
        lead_seconds: float = 100 * MS,
    ) -> None:
        self._send = send
        self._clear = clear
        self._sample_rate = sample_rate
        self._channels = channels
        self._audio = audio
        self._on_frame = on_frame
        self._frame_samples = sample_rate // FRAMES_PER_SECOND
        self._frame_seconds = self._frame_samples / sample_rate
        self._lead_seconds = max(lead_seconds, self._frame_seconds)
        self._position = 0
        self._due = -float("inf")
        self._scope: trio.CancelScope | None = None
        self._lines: deque[_Line] = deque()
        self._sounding: deque[tuple[float, _Line]] = deque()
        self._last: _Line | None = None
        self._news = trio.lowlevel.ParkingLot()
        self._silence = trio.lowlevel.ParkingLot()
        self._letters_per_second = USUAL_LETTERS_PER_SECOND

    @property
    def heard(self) -> HeardSentence | None:
        """The last sentence of which something has been heard; None before the first."""
        self._let_sound()
        line = self._last
        if line is None:
            return None
        return HeardSentence(number=line.number, words=line.words, is_whole=line.words == line.marks.count)

    @property
    def is_silent(self) -> bool:
        """Whether everything that was handed over has sounded."""
        self._let_sound()
        return not self._sounding

    async def play(
        self,
        sentence: str,
        pieces: AsyncIterator[MonoAudio],
        sample_rate: int,
        *,
        number: int,
        on_first: Callable[[], None] = lambda: None,
        on_words: OnWords,
        skip_words: int = 0,
    ) -> bool:
        """Play one sentence; return when all of it was *handed over*, so that the next one follows without a gap.

        ``sentence`` is the whole sentence as it is written; ``pieces`` are its sound, float32 of shape (n,) at
        ``sample_rate``, without the first ``skip_words`` words. They are read ahead, in a task of their own, and not
        closed. ``number`` is the sentence's in :attr:`heard`. ``on_first`` is called when the first frame has left.
        ``on_words`` is given the count of words heard, always a higher one: every 500 ms, when all have been heard, and when
        the sentence was cut off. Returns whether it was handed over; False after :meth:`cut`.

        Raises:
            TransportBrokenError: the caller went away.
            SynthesisFailedError: what ``pieces`` raises, when everything before it was played.
        """
        if self._scope is not None:
            raise InternalError("one sentence is played at a time")
        marks = WordMarks(
            sentence, sample_rate, skip_words=skip_words, letters_per_second=self._letters_per_second
        )
        line = _Line(
            number=number,
            marks=marks,
            on_words=on_words,
            words=marks.skip_words,
            told=marks.skip_words,
        )
        self._lines.append(line)
        body = BodyError()
        self._scope = trio.CancelScope()
        with self._scope:
            try:
                with body.unwrapped():
                    async with trio.open_nursery() as nursery:
                        ahead = _Ahead(pieces, marks)
                        nursery.start_soon(ahead.read, name="voice ahead")
                        with body.noted():
                            await self._hand_over(line, ahead, sample_rate, on_first)
            finally:
                self._scope = None
                line.is_ended = True
                self._news.unpark_all()
        return line.is_complete

    async def finish(self) -> None:
        """Return when everything that was handed over has sounded, and its words were told."""
        await trio.lowlevel.checkpoint()
        while self._lines:
            await self._silence.park()

    def cut(self) -> int:
        """Let nothing of what waits sound any more; return the milliseconds of it that the transport forgot.

        At once, without a checkpoint: :meth:`play` returns False at its next one. What has sounded until now stays in
        :attr:`heard`, and is told.
        """
        self._let_sound()
        if self._scope is not None:
            # Before the clearing: that may wake a sender who waits for room, and who then is cancelled already.
            self._scope.cancel()
        cleared_ms = self._clear()
        self._due = -float("inf")
        self._sounding.clear()
        for line in self._lines:
            line.waiting = 0
            line.is_ended = True
        self._news.unpark_all()
        return cleared_ms

    async def run(self) -> NoReturn:
        """Tell the words that were heard, when it is time."""
        while True:
            self._let_sound()
            while self._lines and await self._tell(self._lines[0]):
                self._lines.popleft()
                self._let_sound()
            if not self._lines:
                self._silence.unpark_all()
            with trio.move_on_at(self._next_look()):
                await self._news.park()

    async def _tell(self, line: _Line) -> bool:
        """Tell what is new of a sentence; return whether it is over."""
        is_over = line.is_over
        now = trio.current_time()
        if now >= line.tell_at:
            line.tell_at = now + MARK_SECONDS
        elif not is_over:
            return False
        if line.words > line.told:
            words = line.words
            await line.on_words(words)
            line.told = words
        return is_over

    def _next_look(self) -> float:
        if not self._lines:
            return float("inf")
        line = self._lines[0]
        ends_at = self._ends_at(line) if line.is_ended else float("inf")
        return min(line.tell_at, ends_at)

    def _ends_at(self, line: _Line) -> float:
        return max(
            (ends_at for ends_at, sounding in self._sounding if sounding is line), default=float("-inf")
        )

    def _let_sound(self) -> None:
        """Count what has sounded by now."""
        now = trio.current_time() + _TOLERANCE_SECONDS
        while self._sounding and self._sounding[0][0] <= now:
            _, line = self._sounding.popleft()
            line.sound(self._frame_seconds)
            self._last = line

    async def _hand_over(
        self, line: _Line, ahead: "_Ahead", sample_rate: int, on_first: Callable[[], None]
    ) -> None:
        audio = self._audio()
        resampler = open_resampler(
            sample_rate, self._sample_rate, library=audio.resampler, quality=audio.resampler_quality
        )
        step = max(1, sample_rate // SLICES_PER_SECOND)
        rest: MonoAudio = np.zeros(0, np.float32)
        async for piece in ahead.pieces:
            for start in range(0, len(piece), step):
                samples = resampler.process(piece[start : start + step])
                rest = await self._send_frames(line, np.concatenate((rest, samples)), on_first)
        rest = await self._send_frames(line, np.concatenate((rest, resampler.flush())), on_first)
        if len(rest):
            await self._send_frames(line, np.pad(rest, (0, self._frame_samples - len(rest))), on_first)
        if ahead.error is not None:
            raise ahead.error
        self._letters_per_second = line.marks.letters_per_second
        line.complete()

    async def _send_frames(self, line: _Line, samples: MonoAudio, on_first: Callable[[], None]) -> MonoAudio:
        """Send the whole frames, each at its time; return the rest."""
        size = self._frame_samples
        whole = len(samples) - len(samples) % size
        for start in range(0, whole, size):
            frame = np.clip(samples[start : start + size], -1, 1)
            await trio.sleep_until(self._due + self._frame_seconds - self._lead_seconds)
            begins_at = await self._send_frame(line, frame)
            self._on_frame(frame, self._sample_rate, begins_at)
            if line.tell_at == float("inf"):
                line.tell_at = begins_at + MARK_SECONDS
                self._news.unpark_all()
                on_first()
        return samples[whole:]

    async def _send_frame(self, line: _Line, samples: MonoAudio) -> float:
        """Send a frame, and return when it begins to sound."""
        scope = self._scope
        assert scope is not None  # noqa: S101 (a sentence is being played)
        played = samples if self._channels == 1 else np.repeat(samples[:, None], self._channels, axis=1)
        try:
            await self._send(AudioFrame(played, self._sample_rate, self._position))
        finally:
            if scope.cancel_called:
                # A sender that was about to run when the cut came has put its frame behind it.
                self._clear()
        if scope.cancel_called:
            await trio.lowlevel.checkpoint()
        self._position += len(samples)
        begins_at = max(self._due, trio.current_time())
        self._due = begins_at + self._frame_seconds
        self._sounding.append((self._due, line))
        line.waiting += 1
        return begins_at


class _Ahead:
    """Reads a voice ahead of what is played: then a sentence's length is known early, and the voice is free again."""

    def __init__(self, pieces: AsyncIterator[MonoAudio], marks: WordMarks) -> None:
        self.error: Exception | None = None
        self._sound = pieces
        self._marks = marks
        self._read, self.pieces = trio.open_memory_channel[MonoAudio](MAX_PIECES_AHEAD)

    async def read(self) -> None:
        async with self._read:
            try:
                async for piece in self._sound:
                    self._marks.add(piece)
                    await self._read.send(piece)
            except Exception as error:  # noqa: BLE001 (raised by the player, behind what came before it)
                self.error = error
            else:
                self._marks.end()
