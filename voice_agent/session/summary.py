"""SessionSummary: what somebody who may look at a session sees of it."""

from datetime import datetime
from enum import StrEnum

import attrs

from voice_agent.core.events import CloseRecord
from voice_agent.core.network import NetworkStatistics
from voice_agent.core.transport import Wire
from voice_agent.session.session import Session


class SessionState(StrEnum):
    """Where a session is in its life."""

    LIVE = "live"
    ENDING = "ending"
    """Its end is decided; last words are being recognised and told."""
    ENDED = "ended"


@attrs.frozen(kw_only=True)
class SessionSummary:
    """One session, without a word of what was said."""

    id: str
    node: str
    """The process that has it, by its name."""
    key: str
    """Who calls: the id of the key, or the subject of the token."""
    tenant: str
    wire: Wire
    state: SessionState
    opened_at: datetime
    ended_at: datetime | None
    duration_seconds: float
    audio_seconds: float
    """Audio that was heard."""
    dropped_audio_ms: int
    position_ms: int
    """How much of the call's audio had been heard, what was dropped included."""
    transcripts: int
    """Finals so far."""
    stages: tuple[str, ...]
    """The call's children that are alive."""
    listeners: int
    """How many follow its events."""
    settings_version: int
    """The settings that it began with."""
    network: NetworkStatistics | None
    """What the network does to it, where packets are counted."""
    close: CloseRecord | None
    """How it ended."""


def summarise(session: Session, *, node: str = "", ended_at: datetime | None = None) -> SessionSummary:
    """Return what is to be seen of a session now; ``ended_at`` says that it is over."""
    now = session.record or session.close_record(0)
    live = SessionState.ENDING if session.is_ending else SessionState.LIVE
    return SessionSummary(
        id=session.id,
        node=node,
        key=session.identity.key_id,
        tenant=session.identity.tenant,
        wire=session.wire,
        state=SessionState.ENDED if ended_at is not None else live,
        opened_at=session.opened_at,
        ended_at=ended_at,
        duration_seconds=now.duration_seconds,
        audio_seconds=now.audio_seconds,
        dropped_audio_ms=now.dropped_audio_ms,
        position_ms=session.position_ms,
        transcripts=now.transcripts,
        stages=session.stages,
        listeners=session.tap.listener_count,
        settings_version=session.settings_version,
        network=now.network,
        close=session.record,
    )
