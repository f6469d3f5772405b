"""A real-time voice agent on Trio: each call is one nursery.

This is the one door for programs that embed it::

    import trio, voice_agent

    async def main(frames):
        async with voice_agent.open_session() as session, trio.open_nursery() as nursery:
            nursery.start_soon(feed, session, frames)
            async for event in session.events():
                print(event)
"""

from voice_agent.core.commands import CallOptions
from voice_agent.core.errors import (
    CallerError,
    DependencyError,
    InternalError,
    OperatorError,
    VoiceAgentError,
)
from voice_agent.core.events import (
    CloseReason,
    CloseRecord,
    Fault,
    Notice,
    Pong,
    SessionClosed,
    SessionEvent,
    SessionReady,
    SpeechStarted,
    SpeechStopped,
    Transcript,
)
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame, Encoding
from voice_agent.core.transcripts import TranscriptResult, Word
from voice_agent.core.transport import Transport
from voice_agent.embedding import open_session
from voice_agent.observability.logs import adopt_quiet_default
from voice_agent.server.assembly import open_services
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.settings.load import load_settings
from voice_agent.settings.schema import Settings
from voice_agent.transports.memory import open_memory_pair

__all__ = [
    "AudioFormat",
    "AudioFrame",
    "CallOptions",
    "CallerError",
    "CloseReason",
    "CloseRecord",
    "DependencyError",
    "Encoding",
    "Fault",
    "InternalError",
    "Notice",
    "OperatorError",
    "Pong",
    "Services",
    "Session",
    "SessionClosed",
    "SessionEvent",
    "SessionReady",
    "Settings",
    "SpeechStarted",
    "SpeechStopped",
    "Transcript",
    "TranscriptResult",
    "Transport",
    "VoiceAgentError",
    "Word",
    "load_settings",
    "open_memory_pair",
    "open_services",
    "open_session",
]

adopt_quiet_default()
