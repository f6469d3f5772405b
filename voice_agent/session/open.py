"""The nursery tree of a call, on one screen."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import trio

from voice_agent.core.commands import CallOptions
from voice_agent.core.formats import AudioFormat
from voice_agent.core.identity import ANONYMOUS, Identity
from voice_agent.core.network import MeasuresNetwork
from voice_agent.core.transport import Transport, Wire
from voice_agent.observability.metrics import NO_STAGE
from voice_agent.session.body_error import BodyError
from voice_agent.session.call_limits import CallLimits
from voice_agent.session.close_watch import Surroundings
from voice_agent.session.heard import Heard, unnoticed_ms
from voice_agent.session.keeping import Keeping, Kept, Storage
from voice_agent.session.resuming import Resumed
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.session.task_tree import CallRoot

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_session(
    services: Services,
    transport: Transport | None = None,
    *,
    session_id: str | None = None,
    options: CallOptions | None = None,
    identity: Identity = ANONYMOUS,
    wire: Wire = Wire.EMBEDDED,
    limits: CallLimits | None = None,
    resumed: Resumed | None = None,
) -> AsyncIterator[Session]:
    """Run one call for as long as the block and the call last.

    With a ``transport`` the call lives by itself: audio and commands come from it, events go to it, and leaving the
    block waits for the call's end. Without one the block feeds the session; leaving it finishes the session.
    What such a caller is told is kept first, where ``services`` have a storage.
    ``identity`` is who calls; its key id stands in each log line. ``wire`` is how.
    ``limits`` hold what comes over the transport; a program that calls itself has none.
    ``resumed`` is the session that goes on; its id is the session's.
    What the block raises cancels the call and is raised as it is. A crash inside the call is not raised here: it is
    told by events, logged, and stands in ``session.record``.

    ::

        open_session
         ├ send       outbox → transport
         └ work
            ├ receive audio · receive text      transport → inbox
            ├ watch idle · watch duration · watch network
            └ hear
               ├ listen       inbox → resampler → voice activity → utterances
               └ transcribe   utterances → engine → partials and finals → outbox
    """
    measured = transport if isinstance(transport, MeasuresNetwork) else None
    if resumed is not None:
        session_id = resumed.record.session_id
    session = Session(services, session_id, identity, measured, wire, limits, resumed)
    if services.storage is not None and transport is not None and not identity.quotas.keeps_nothing:
        session.telling.keeping = _open_keeping(services, services.storage, session, resumed)
    metrics = services.metrics
    root = CallRoot.here()
    body = BodyError()
    with (
        structlog.contextvars.bound_contextvars(**_context_of(session)),
        metrics.active_sessions.track_inprogress(),
    ):
        log.info("call_opened", settings_version=session.settings_version)
        if resumed is not None:
            log.info(
                "session_resumed",
                epoch=resumed.record.epoch,
                heard_ms=resumed.heard_ms,
                audio_ms=resumed.audio_ms,
                missed=len(resumed.missed),
                retracted=resumed.retracted_seq is not None,
            )
            metrics.store.sessions_resumed_total.labels(wire.value).inc()
        try:
            with body.unwrapped():
                async with trio.open_nursery() as call:
                    session.surroundings = Surroundings(
                        root, None if transport is None else call.cancel_scope, transport
                    )
                    if transport is not None:
                        call.start_soon(session.stage, "send", session.telling.run, transport, name="send")
                    call.start_soon(session.work, transport, name="work")
                    if transport is None:
                        await session.start(AudioFormat(), options or CallOptions())
                    with body.noted():
                        yield session
                    if transport is None:
                        await session.finish()
        finally:
            await _close(session, services, transport, tasks_left=len(call.child_tasks))


def _open_keeping(services: Services, storage: Storage, session: Session, resumed: Resumed | None) -> Keeping:
    return Keeping(
        storage,
        Kept(
            session_id=session.id,
            identity=session.identity,
            wire=session.wire,
            settings_version=session.settings_version,
            window_seconds=services.settings.session.resume_window_seconds,
            resumed=resumed,
        ),
        Heard(unnoticed_ms(services.settings.vad), 0 if resumed is None else resumed.heard_ms),
        on_fenced=session.give_way,
        active_at=lambda: session.active_at,
        tell=session.tell_soon,
    )


async def _close(
    session: Session, services: Services, transport: Transport | None, *, tasks_left: int
) -> None:
    """Let the caller go, within the close timeout whatever happens, and record the end."""
    record = session.record or session.close_record(tasks_left)
    session.say_goodbye(record)
    deadline = trio.current_time() + session.close_seconds
    with trio.CancelScope(shield=True, deadline=deadline):
        if transport is not None:
            await session.stage("let go", session.let_go, transport, record)
    session.closed.set()
    services.metrics.calls_total.labels(record.reason.value).inc()
    services.metrics.call_seconds.observe(record.duration_seconds)
    # The record was told before the caller was let go; that took its time too.
    services.metrics.close_seconds.labels(record.stage_waited_for or NO_STAGE).observe(
        session.close_record(tasks_left).close_seconds
    )
    session.end_trace(record)
    services.on_close(record, session.transcript)
    log.info(
        "call_closed",
        reason=record.reason.value,
        error_code=record.error_code,
        duration_seconds=record.duration_seconds,
        audio_seconds=record.audio_seconds,
        dropped_audio_ms=record.dropped_audio_ms,
        transcripts=record.transcripts,
        close_seconds=record.close_seconds,
        stage_waited_for=record.stage_waited_for,
        tasks_left=record.tasks_left,
        settings_version=session.settings_version,
        network=None if record.network is None else record.network.as_dict(),
    )


def _context_of(session: Session) -> dict[str, str]:
    """Return what stands on each log line of the call."""
    context = {"session": session.id, "key": session.identity.key_id}
    if session.trace.trace_id is not None:
        context["trace"] = session.trace.trace_id
    return context
