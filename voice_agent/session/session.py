"""Session: one call, as its children and its embedding program see it."""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import uuid4

import attrs
import structlog
import trio

from voice_agent.core.commands import CallOptions, Flush, Ping, Resume, Start, Stop, TypedText
from voice_agent.core.errors import CallerError, ResumeUnknownError, SessionClosedError
from voice_agent.core.events import (
    CloseReason,
    CloseRecord,
    Fault,
    Notice,
    Pong,
    SessionClosed,
    SessionEvent,
    SessionReady,
    Transcript,
)
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame
from voice_agent.core.identity import ANONYMOUS, Identity
from voice_agent.core.network import MeasuresNetwork
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.core.transport import Transport, Wire
from voice_agent.session.aside import start_aside
from voice_agent.session.call_limits import CallLimits, told_limits
from voice_agent.session.close_watch import Surroundings, start_close_watch
from voice_agent.session.closing import Closing
from voice_agent.session.ending import Ending, fault_of, fault_of_crash
from voice_agent.session.hearing import Hearing
from voice_agent.session.inbox import AudioInbox
from voice_agent.session.live import LiveUtterance
from voice_agent.session.network import NetworkMeter
from voice_agent.session.outbox import Outbox
from voice_agent.session.placing import Placing
from voice_agent.session.receiving import Receiving
from voice_agent.session.resuming import Resumed
from voice_agent.session.services import Services
from voice_agent.session.stages import Stages
from voice_agent.session.tap import EventTap
from voice_agent.session.telling import Telling
from voice_agent.session.time_limits import watch_duration, watch_idle
from voice_agent.session.transcribing import Transcribing

WAITING_UTTERANCES: Final = 4
"""Utterances that may wait for recognition; more of them make listening wait, which fills the inbox."""

log = structlog.get_logger(__name__)


class Session:
    """One call. Use :func:`open_session` to get one."""

    def __init__(
        self,
        services: Services,
        session_id: str | None = None,
        identity: Identity = ANONYMOUS,
        network: MeasuresNetwork | None = None,
        wire: Wire = Wire.EMBEDDED,
        limits: CallLimits | None = None,
        resumed: Resumed | None = None,
    ) -> None:
        age_seconds = 0.0 if resumed is None else resumed.age_seconds
        self.id = session_id or uuid4().hex
        self.identity = identity
        """Who calls."""
        self.wire = wire
        self.is_resumed = resumed is not None
        """Whether it went on from an earlier connection."""
        self.opened_at = datetime.now(UTC) - timedelta(seconds=age_seconds)
        self.settings_version = services.settings_version
        self.tap = EventTap()
        """For others than the caller who follow the events."""
        self._services = services
        self._settings = services.settings.session
        self._limits = limits
        max_seconds = identity.quotas.max_duration_seconds
        self._max_seconds = self._settings.max_duration_seconds if max_seconds is None else max_seconds
        self._inbox = AudioInbox(self._settings.max_waiting_audio_ms)
        outbox_delay = services.metrics.queue_seconds.labels("outbox")
        self._outbox = Outbox(
            self._settings.max_waiting_events,
            0 if resumed is None else resumed.last_seq,
            on_stamped=self.tap.put,
            on_wait=outbox_delay.observe,
        )
        self._hearing = Hearing(
            services,
            self._inbox,
            self.publish,
            is_lost=lambda: self._closing.is_for(CloseReason.HANGUP, CloseReason.DRAIN),
        )
        self.trace = services.tracing.begin_call(self.id)
        self._transcribing = Transcribing(self.id, services, self.publish, self.trace)
        self._opened_at = trio.current_time() - age_seconds
        self.active_at = trio.current_time()
        """When the caller was last heard of, on Trio's clock."""
        self.telling = Telling(
            self._outbox,
            on_told=self._note_told,
            on_gone=self._note_gone,
            position_ms=lambda: self.position_ms,
        )
        self._closing = Closing(
            self.telling.scope,
            finish_seconds=self._settings.finish_timeout_seconds,
            close_seconds=self._settings.close_timeout_seconds,
        )
        self._stages = Stages(self._crash)
        self.stage = self._stages.run
        """Runs one child under its name; what it raises ends this call, and nothing else."""
        self.surroundings: Surroundings | None = None
        """What is around the call, for its close watch."""
        self._network = None if network is None else NetworkMeter(network, services.metrics)
        self._placing = Placing() if resumed is None else Placing(resumed.audio_ms, resumed.heard_ms)
        self._receiving = Receiving(self, self._inbox, self._placing, limits, is_resumed=resumed is not None)
        self.record: CloseRecord | None = None
        """How the session ended; ``None`` while it is open."""
        self.heard_all = trio.Event()
        """Set when everything that was sent has been recognised and told."""
        self.closed = trio.Event()
        """Set when the last task of the call has ended and its connection was let go."""
        if resumed is not None:
            self._go_on_from(resumed)

    def _go_on_from(self, resumed: Resumed) -> None:
        """Take up what an earlier connection left."""
        self._hearing.go_on_from(resumed.heard_ms / 1000, resumed.last_utterance)
        self._transcribing.finals.extend(resumed.finals)
        self.telling.missed = resumed.missed
        if self._limits is not None:
            self._limits.remember(sum(len(final.text) for final in resumed.finals))

    # -- what an embedding program uses ---------------------------------------------------------------------------

    async def send_audio(self, frame: AudioFrame) -> None:
        """Hear a frame; waits while too much audio waits, so that nothing is lost.

        The session counts positions by itself: a frame's ``position`` matters only when it lies ahead, which says
        that audio is missing in between.

        Raises:
            SessionClosedError: the session was finished or has ended.
        """
        self.active_at = trio.current_time()
        await self._inbox.put(frame, self._placing.place)

    async def send_text(self, text: str) -> None:
        """Take what the caller wrote instead of speaking; it becomes a final.

        Raises:
            SessionClosedError: the session was finished or has ended.
        """
        self._check_open()
        await self.obey(TypedText(text=text))

    async def flush(self) -> None:
        """End the current utterance after the audio sent so far, and give its final.

        Raises:
            SessionClosedError: the session was finished or has ended.
        """
        self._check_open()
        await self.obey(Flush(position_seconds=self._placing.seconds - self._placing.begin_seconds))

    def events(self) -> Outbox:
        """Return the session's events, for one reader; the last one is :class:`SessionClosed`."""
        return self._outbox

    async def finish(self) -> None:
        """Say that no more audio comes, and wait until everything sent is recognised and told.

        Bounded by ``session.finish_timeout_seconds``; read :meth:`events` at the same time or afterwards.
        """
        self.end(CloseReason.STOPPED)
        await self.heard_all.wait()

    @property
    def transcript(self) -> tuple[TranscriptResult, ...]:
        """The finals so far."""
        return tuple(self._transcribing.finals)

    def _check_open(self) -> None:
        if self._closing.ending is not None:
            raise SessionClosedError("the session was finished or has ended")

    # -- what the children use ------------------------------------------------------------------------------------

    @property
    def position_ms(self) -> int:
        """How much of the call's audio has been heard, in milliseconds."""
        return round(self._hearing.heard_seconds * 1000)

    @property
    def close_seconds(self) -> float:
        """Telling the caller and closing may take so long."""
        return self._closing.close_seconds

    @property
    def is_ending(self) -> bool:
        """Whether its end is decided."""
        return self._closing.ending is not None

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the children that are alive."""
        return self._stages.alive

    async def publish(self, event: SessionEvent) -> None:
        """Queue an event for the caller; waits while too many wait."""
        await self._outbox.put(attrs.evolve(event, position_ms=self.position_ms))
        if self._limits is not None and isinstance(event, Transcript) and event.result.is_final:
            await self._receiving.hold_to(partial(self._limits.write, len(event.result.text)))

    def fail(self, error: CallerError, reason: CloseReason = CloseReason.CALLER_ERROR) -> None:
        """End the call because of something that its caller did; a limit that was hit is counted."""
        if error.limit is not None and not self.is_ending:
            self._services.metrics.limit_hits_total.labels(error.limit).inc()
        self.end(reason, fault_of(error))

    def give_way(self) -> None:
        """End the connection at once: the session goes on elsewhere, where also its last words are heard again."""
        if self.telling.keeping is not None:
            self.telling.keeping.give_way()
        self.end(CloseReason.TAKEN_OVER)
        self._closing.work_scope.cancel()

    def end(self, reason: CloseReason, fault: Fault | None = None) -> None:
        """Decide that the call ends. What was sent is still heard, within the finish timeout; the first call counts."""
        self._inbox.close()
        self._decide(reason, fault)

    def hurry(self, *, finish_seconds: float, close_seconds: float) -> None:
        """Give the call's end less time than the settings do, also where it has begun."""
        is_told = self.record is not None
        self._closing.hurry(finish_seconds=finish_seconds, close_seconds=close_seconds, is_told=is_told)

    def _decide(self, reason: CloseReason, fault: Fault | None = None) -> None:
        """Decide the end, but leave it to the audio side when no more audio comes."""
        if not self._closing.decide(reason, fault):
            return
        self._stages.begin_close()
        start_close_watch(
            self._services, self.id, self._stages, self.closed, self.surroundings, self._closing
        )

    async def obey(self, command: Start | TypedText | Flush | Ping | Stop | Notice) -> None:
        """Do what the caller asks for, or tell what the transport has to tell."""
        self.active_at = trio.current_time()
        match command:
            case Start(resume=Resume()) if not self.is_resumed:
                raise ResumeUnknownError("no sessions are kept here; none can be resumed")
            case Start(audio_format=audio_format, options=options):
                await self.start(audio_format, options)
            case TypedText(text=text):
                await self._take_text(text)
            case Flush(position_seconds=position_seconds):
                self._inbox.flush(self._placing.begin_seconds + position_seconds)
            case Ping(id=ping_id):
                await self.publish(Pong(id=ping_id))
            case Notice():
                await self.publish(command)
            case Stop():
                # The transport ends its audio side behind the last frame; that is the end, and nothing is cut off.
                self._receiving.has_obeyed_all.set()

    async def start(self, audio_format: AudioFormat, options: CallOptions) -> None:
        """Take the caller's choices and say that the session hears."""
        self._hearing.care_for(options.microphone)
        self._transcribing.language = options.language
        self._transcribing.wants_partials = options.partials and self._services.settings.recogniser.partials
        await self.publish(
            SessionReady(
                session_id=self.id,
                audio_format=audio_format,
                options=options,
                limits=told_limits(self._services.settings, self._limits, self._max_seconds),
                trace_id=self.trace.trace_id,
            )
        )

    async def hear(self) -> None:
        """Listen and transcribe until everything sent was recognised."""
        send, receive = trio.open_memory_channel[LiveUtterance](WAITING_UTTERANCES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.stage, "listen", self._hearing.listen, send, name="listen")
            nursery.start_soon(self.stage, "transcribe", self._transcribing.run, receive, name="transcribe")

    async def work(self, transport: Transport | None) -> None:
        """Everything between the caller's audio and the last event; ends when the call does."""
        try:
            with self._closing.work_scope:
                async with trio.open_nursery() as receiving:
                    if transport is not None:
                        for name, receive in (
                            ("receive audio", self._receiving.audio),
                            ("receive text", self._receiving.text),
                        ):
                            receiving.start_soon(self.stage, name, receive, transport, name=name)
                    receiving.start_soon(
                        watch_idle, self, self._settings.idle_timeout_seconds, name="watch idle"
                    )
                    receiving.start_soon(
                        watch_duration, self, self._max_seconds, self._opened_at, name="watch duration"
                    )
                    if self._network is not None:
                        receiving.start_soon(self._network.watch, name="watch network")
                    await self.hear()
                    if transport is not None and self._closing.is_for(
                        CloseReason.STOPPED, CloseReason.HANGUP
                    ):
                        await self._receiving.obey_the_rest()
                    receiving.cancel_scope.cancel()
        finally:
            self._inbox.discard()
            self._hearing.count_dropped()
            if self._network is not None:
                self._network.look()
            self.heard_all.set()
            self.end(CloseReason.CANCELLED)
        self.say_goodbye(self.close_record(len(receiving.child_tasks)))
        if transport is None:
            self.closed.set()

    async def let_go(self, transport: Transport, record: CloseRecord) -> None:
        """Tell the caller how it ended, if that was cut short, and close the connection."""
        await self.telling.let_go(transport, SessionClosed(record=record, position_ms=self.position_ms))

    def _note_told(self, event: SessionEvent) -> None:
        if isinstance(event, Transcript) and event.result.is_final:
            self._transcribing.note_told(event.result.utterance)

    def _note_gone(self) -> None:
        # What the caller said before going away may still be queued in the transport.
        self._decide(CloseReason.HANGUP)

    def _crash(self, group: ExceptionGroup[Exception]) -> None:
        self.end(CloseReason.INTERNAL_ERROR, fault_of_crash(group))
        self._closing.work_scope.cancel()

    async def _take_text(self, text: str) -> None:
        at, number = self._hearing.heard_seconds, next(self._hearing.numbers)
        final = TranscriptResult(text=text, is_final=True, start=at, end=at, utterance=number, stable=text)
        await self._transcribing.tell(final)

    def say_goodbye(self, record: CloseRecord) -> None:
        """Close the outbox with the last events; the sender has the close timeout for what waits. Idempotent."""
        if self.record is not None:
            return
        self.record = record
        last: list[SessionEvent] = [SessionClosed(record=record)]
        if self._closing.ending is not None and self._closing.ending.fault is not None:
            last.insert(0, self._closing.ending.fault)
        self._outbox.close(*(attrs.evolve(event, position_ms=self.position_ms) for event in last))
        self._closing.say_goodbye()

    def close_record(self, tasks_left: int) -> CloseRecord:
        """Return how the call ended, as known now."""
        now = trio.current_time()
        ending = self._closing.ending or Ending(reason=CloseReason.CANCELLED, decided_at=now)
        return CloseRecord(
            session_id=self.id,
            reason=ending.reason,
            error_code=ending.fault.code if ending.fault else None,
            duration_seconds=round(now - self._opened_at, 3),
            audio_seconds=round(self._hearing.audio_seconds, 3),
            dropped_audio_ms=round(self._inbox.dropped_seconds * 1000),
            transcripts=len(self._transcribing.finals),
            close_seconds=round(now - ending.decided_at, 3),
            stage_waited_for=self._stages.waited_for,
            tasks_left=tasks_left,
            network=None if self._network is None else self._network.statistics,
            trace_id=self.trace.trace_id,
        )

    def end_trace(self, record: CloseRecord) -> None:
        """Make the last spans of the call."""
        decided_at = trio.current_time() if self._closing.ending is None else self._closing.ending.decided_at
        self.trace.end(record, decided_at, key=self.identity.key_id, wire=self.wire)

    async def tell(self, notice: Notice) -> None:
        """Tell the caller something from outside the call, a drain for instance."""
        with trio.move_on_after(self._settings.close_timeout_seconds):
            try:
                await self.publish(notice)
            except SessionClosedError:
                log.debug("notice_too_late", session=self.id, code=notice.code)

    def tell_soon(self, notice: Notice) -> None:
        """Have :meth:`tell` done by the supervisor, for who can't wait."""
        start_aside(self._services.supervisor, "tell", self.tell, notice)
