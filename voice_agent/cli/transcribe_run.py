"""Transcribe a recording through an embedded session: one task feeds it, one reads what it says."""

import signal
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

import attrs
import trio

from voice_agent.audio.files import iter_audio
from voice_agent.cli.transcribe_output import FileTranscript
from voice_agent.core.errors import DependencyError, SessionClosedError, UnreadableFileError
from voice_agent.core.events import CloseReason, Fault, SessionClosed, SessionEvent, Transcript
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame
from voice_agent.core.transcripts import TranscriptResult

FILE_THREADS: Final = trio.CapacityLimiter(1)


class TranscriptionFailedError(DependencyError):
    """The session ended before the recording did; the message says how."""

    code = "transcription_failed"


class EmbeddedSession(Protocol):
    """What is needed of a session; the embedding's sessions have it."""

    async def send_audio(self, frame: AudioFrame) -> None:
        """Hear a frame; waits while too much audio waits."""
        ...

    def events(self) -> AsyncIterable[SessionEvent]:
        """Return the session's events, :class:`SessionClosed` last."""
        ...

    async def finish(self) -> None:
        """Say that no more audio comes, and wait until everything is recognised."""
        ...


OnProgress = Callable[[float], None]
"""Told how many seconds of audio were taken so far."""


@attrs.define
class _Feeding:
    """How far the recording was fed, and what stopped it short."""

    audio_seconds: float = 0.0
    error: UnreadableFileError | None = None


@attrs.define
class _Heard:
    finals: list[TranscriptResult] = attrs.field(factory=list)
    fault: Fault | None = None
    reason: CloseReason | None = None


async def transcribe(
    session: EmbeddedSession, frames: Iterator[AudioFrame], on_progress: OnProgress
) -> tuple[list[TranscriptResult], float]:
    """Hear all frames; return the finals and the seconds of audio. Frames are read in a worker thread.

    Raises:
        UnreadableFileError: the frames broke off.
        TranscriptionFailedError: the session ended otherwise than by our finish.
    """
    feeding = _Feeding()
    heard = _Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_feed, session, frames, feeding, on_progress)
        async for event in session.events():
            _take(event, heard)
        nursery.cancel_scope.cancel()
    if feeding.error is not None:
        raise feeding.error
    if heard.fault is not None:
        raise TranscriptionFailedError(f"{heard.fault.message} [{heard.fault.code}]")
    if heard.reason is not CloseReason.STOPPED:
        raise TranscriptionFailedError(
            f"hearing ended after {feeding.audio_seconds:.1f} s of audio: {heard.reason or 'no close record'}"
        )
    return heard.finals, feeding.audio_seconds


async def _feed(
    session: EmbeddedSession, frames: Iterator[AudioFrame], feeding: _Feeding, on_progress: OnProgress
) -> None:
    try:
        while (frame := await trio.to_thread.run_sync(next, frames, None, limiter=FILE_THREADS)) is not None:
            await session.send_audio(frame)
            feeding.audio_seconds += frame.duration_seconds
            on_progress(feeding.audio_seconds)
    except SessionClosedError:
        # Its last event, which comes to the reader of events, says why.
        return
    except UnreadableFileError as error:
        feeding.error = error
    await session.finish()


def _take(event: SessionEvent, heard: _Heard) -> None:
    match event:
        case Transcript(result=result) if result.is_final:
            heard.finals.append(result)
        case Fault(is_fatal=True):
            heard.fault = event
        case SessionClosed(record=record):
            heard.reason = record.reason
        case _:
            pass


@attrs.frozen(kw_only=True)
class TranscribeJob:
    """A file to transcribe, how long it is as far as its header tells, and where the transcript goes.

    ``target`` ``None`` is standard output.
    """

    path: Path
    duration_seconds: float
    target: Path | None
    raw_format: AudioFormat | None = None


OpenSession = Callable[[], AbstractAsyncContextManager[EmbeddedSession]]
ShowProgress = Callable[[TranscribeJob], AbstractContextManager[OnProgress]]
Write = Callable[[TranscribeJob, FileTranscript], None]


async def transcribe_files(
    jobs: Sequence[TranscribeJob],
    open_session: OpenSession,
    *,
    show_progress: ShowProgress,
    write: Write,
) -> bool:
    """Transcribe one file after the other and write each when it is done; runs in the main thread (signals).

    Returns False when Ctrl-C cut it short: then the file at hand is not written.

    Raises:
        UnreadableFileError: a file broke off.
        TranscriptionFailedError: a session failed, or a transcript can't be written.
    """
    is_done = False
    with trio.open_signal_receiver(signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_signal, signals, nursery.cancel_scope)
            for job in jobs:
                transcript = await _transcribe_file(job, open_session, show_progress)
                await trio.to_thread.run_sync(write, job, transcript, limiter=FILE_THREADS)
            is_done = True
            nursery.cancel_scope.cancel()
    return is_done


async def _cancel_on_signal(signals: AsyncIterable[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _transcribe_file(
    job: TranscribeJob, open_session: OpenSession, show_progress: ShowProgress
) -> FileTranscript:
    frames = iter_audio(job.path, raw_format=job.raw_format)
    with show_progress(job) as on_progress:
        async with open_session() as session:
            finals, audio_seconds = await transcribe(session, frames, on_progress)
    return FileTranscript(path=job.path, duration_seconds=audio_seconds, finals=finals)
