"""Transcribing through a session that the test plays."""

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import numpy as np
import pytest
import soundfile
import trio
import trio.testing

from voice_agent.cli.transcribe_output import FileTranscript
from voice_agent.cli.transcribe_run import (
    OnProgress,
    TranscribeJob,
    TranscriptionFailedError,
    transcribe,
    transcribe_files,
)
from voice_agent.core.errors import SessionClosedError, UnreadableFileError
from voice_agent.core.events import (
    CloseReason,
    CloseRecord,
    Fault,
    SessionClosed,
    SessionEvent,
    SpeechStarted,
    Transcript,
)
from voice_agent.core.frames import AudioFrame
from voice_agent.core.transcripts import TranscriptResult


def closed(reason: CloseReason) -> SessionClosed:
    """Make the last event."""
    return SessionClosed(
        record=CloseRecord(
            session_id="x",
            reason=reason,
            error_code=None,
            duration_seconds=1.0,
            audio_seconds=1.0,
            dropped_audio_ms=0,
            transcripts=0,
            close_seconds=0.0,
            stage_waited_for="",
            tasks_left=0,
        )
    )


@attrs.define
class PlayedSession:
    """Says each frame's number as a final, once the next frame comes; ends early when told to."""

    fails_at: int | None = None
    fault: Fault | None = None
    hangs_at: int | None = None
    positions: list[int] = attrs.field(factory=list)
    hanging: trio.Event = attrs.field(factory=trio.Event)
    _channel: tuple[trio.MemorySendChannel[SessionEvent], trio.MemoryReceiveChannel[SessionEvent]] = (
        attrs.field(factory=lambda: trio.open_memory_channel[SessionEvent](1))
    )

    async def send_audio(self, frame: AudioFrame) -> None:
        """Hear a frame; waits until its events are read, as a full session does."""
        number = len(self.positions)
        if number == self.hangs_at:
            self.hanging.set()
            await trio.sleep_forever()
        if number == self.fails_at:
            await self._end(CloseReason.INTERNAL_ERROR)
        if self.fails_at is not None and number >= self.fails_at:
            raise SessionClosedError("it has ended")
        self.positions.append(frame.position)
        await self._channel[0].send(SpeechStarted(utterance=number, start=0.0))
        for is_final in (False, True):
            await self._channel[0].send(
                Transcript(
                    result=TranscriptResult(
                        text=f"word {number}",
                        is_final=is_final,
                        start=number,
                        end=number + 1,
                        utterance=number,
                    )
                )
            )

    def events(self) -> AsyncIterator[SessionEvent]:
        """Return the reader's end."""
        return self._channel[1]

    async def finish(self) -> None:
        """End as asked."""
        await self._end(CloseReason.STOPPED)

    async def _end(self, reason: CloseReason) -> None:
        if self.fault is not None:
            await self._channel[0].send(self.fault)
        await self._channel[0].send(closed(reason))
        await self._channel[0].aclose()


def frames(count: int, *, breaks_off: bool = False) -> Iterator[AudioFrame]:
    """A second each."""
    for i in range(count):
        yield AudioFrame(np.zeros(16_000, np.float32), 16_000, i * 16_000)
    if breaks_off:
        raise UnreadableFileError("it breaks off")


async def test_every_frame_is_fed_while_events_are_read() -> None:
    """The session holds one event: without a reader beside the feeder nothing would move."""
    session = PlayedSession()
    progress: list[float] = []
    with trio.fail_after(30):
        finals, seconds = await transcribe(session, frames(20), progress.append)
    assert [final.text for final in finals] == [f"word {i}" for i in range(20)]
    assert session.positions == [i * 16_000 for i in range(20)]
    assert progress == [float(i + 1) for i in range(20)]
    assert seconds == 20.0


async def test_a_recording_that_breaks_off_is_told_after_the_session_was_finished() -> None:
    """The error is the file's; the session ends properly."""
    session = PlayedSession()
    with trio.fail_after(30), pytest.raises(UnreadableFileError, match="breaks off"):
        await transcribe(session, frames(3, breaks_off=True), lambda _seconds: None)
    assert len(session.positions) == 3


async def test_a_session_that_ends_early_fails_the_transcription() -> None:
    """Half a transcript is not passed off as a whole one."""
    with (
        trio.fail_after(30),
        pytest.raises(TranscriptionFailedError, match=r"after 2.0 s of audio: internal_error"),
    ):
        await transcribe(PlayedSession(fails_at=2), frames(5), lambda _seconds: None)


async def test_a_fatal_fault_is_the_reason_that_is_told() -> None:
    """Its message and its stable code."""
    fault = Fault(code="recognition_failed", message="The call failed.", is_fatal=True)
    with trio.fail_after(30), pytest.raises(TranscriptionFailedError) as caught:
        await transcribe(PlayedSession(fails_at=1, fault=fault), frames(5), lambda _seconds: None)
    assert caught.value.message == "The call failed. [recognition_failed]"


async def test_a_fault_that_is_not_fatal_does_not_fail_the_transcription() -> None:
    """The session went on, and finished as asked."""
    fault = Fault(code="invalid_field", message="Odd.", is_fatal=False)
    with trio.fail_after(30):
        finals, _ = await transcribe(PlayedSession(fault=fault), frames(2), lambda _seconds: None)
    assert len(finals) == 2


async def test_events_that_stop_without_a_close_record_fail_the_transcription() -> None:
    """A session that just vanishes has not heard everything."""
    session = PlayedSession(hangs_at=1)
    async with trio.open_nursery() as nursery:

        async def vanish() -> None:
            await session.hanging.wait()
            await session._channel[0].aclose()

        nursery.start_soon(vanish)
        with trio.fail_after(30), pytest.raises(TranscriptionFailedError, match="no close record"):
            await transcribe(session, frames(2), lambda _seconds: None)


@contextmanager
def no_progress(_job: TranscribeJob) -> Iterator[OnProgress]:
    """Show nothing."""
    yield lambda _seconds: None


def jobs_in(folder: Path, count: int) -> list[TranscribeJob]:
    """Write recordings of 1, 2, 3 … seconds."""
    jobs = []
    for i in range(count):
        path = folder / f"{i}.wav"
        soundfile.write(path, np.zeros(16_000 * (i + 1)), 16_000)
        jobs.append(TranscribeJob(path=path, duration_seconds=i + 1.0, target=None))
    return jobs


async def test_files_are_transcribed_one_after_the_other_each_in_its_own_session(tmp_path: Path) -> None:
    """And each is written as soon as it is done."""
    sessions: list[PlayedSession] = []
    written: list[tuple[str, float, int]] = []
    open_now: list[int] = []

    @asynccontextmanager
    async def open_session() -> AsyncIterator[PlayedSession]:
        session = PlayedSession()
        sessions.append(session)
        open_now.append(1)
        assert len(open_now) == 1
        yield session
        open_now.pop()

    def write(job: TranscribeJob, transcript: FileTranscript) -> None:
        written.append((job.path.name, transcript.duration_seconds, len(transcript.finals)))

    with trio.fail_after(30):
        is_done = await transcribe_files(
            jobs_in(tmp_path, 3), open_session, show_progress=no_progress, write=write
        )
    assert is_done
    assert written == [("0.wav", 1.0, 1), ("1.wav", 2.0, 2), ("2.wav", 3.0, 3)]
    assert len(sessions) == 3


async def test_ctrl_c_stops_the_file_at_hand_and_writes_nothing_of_it(tmp_path: Path) -> None:
    """What was done before stays; False says that it was cut short; the session is left by cancellation."""
    session = PlayedSession(hangs_at=1)
    written: list[str] = []
    left: list[bool] = []

    @asynccontextmanager
    async def open_session() -> AsyncIterator[PlayedSession]:
        if not written:
            yield PlayedSession()
            return
        try:
            yield session
        finally:
            left.append(True)

    async def interrupt() -> None:
        await session.hanging.wait()
        signal.raise_signal(signal.SIGINT)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            is_done = await transcribe_files(
                jobs_in(tmp_path, 3),
                open_session,
                show_progress=no_progress,
                write=lambda job, _transcript: written.append(job.path.name),
            )
    assert not is_done
    assert written == ["0.wav"]
    assert left == [True]
