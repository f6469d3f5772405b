"""How a call is made, what it keeps from connection to connection, and how a conversation ends."""

import attrs
import trio

from voice_agent.cli.call_audio import AudioSource
from voice_agent.cli.call_result import CallResult, OnMessage
from voice_agent.cli.call_resume import ResumePoint, SettledPosition
from voice_agent.cli.call_tape import Tape
from voice_agent.cli.latency import SendTimes
from voice_agent.cli.server_access import NO_ACCESS, ServerAccess
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.core.units import SECONDS


@attrs.frozen(kw_only=True)
class ClientOptions:
    """How a call is made.

    ``speed`` 1 sends audio at the speed of sound, 2 twice as fast, 0 as fast as the server hears it. At speeds other
    than 1 the client keeps to the limits that the server's ``ready`` tells, so that nothing is dropped.
    """

    language: str = "en"
    partials: bool = True
    speed: float = 1.0
    access: ServerAccess = NO_ACCESS
    resumes: bool = True
    """Whether a call whose connection is lost goes on over another one, where the server offers that."""
    connect_timeout_seconds: float = 10 * SECONDS
    """Address, TCP, TLS and handshake together."""
    ready_timeout_seconds: float = 10 * SECONDS
    """From ``start`` to ``ready``."""
    send_timeout_seconds: float = 10 * SECONDS
    """A server that takes no audio for so long is gone."""
    ask_seconds: float = 2 * SECONDS
    """A server that said nothing for so long is asked whether it is there; only where the call can be resumed."""
    silent_seconds: float = 12 * SECONDS
    """A server that said nothing for so long, although asked, is gone."""
    finish_timeout_seconds: float = 30 * SECONDS
    """From ``stop`` to the close frame; the server may have ten seconds of audio to hear still."""
    hang_up_seconds: float = 3 * SECONDS
    """From Ctrl-C to the close frame."""
    close_timeout_seconds: float = 2 * SECONDS
    """The WebSocket closing handshake."""


@attrs.define(kw_only=True)
class Call:
    """What a call keeps from connection to connection."""

    source: AudioSource
    options: ClientOptions
    on_message: OnMessage
    hang_up: trio.Event
    tape: Tape
    result: CallResult = attrs.field(factory=CallResult)
    began: trio.Event = attrs.field(factory=trio.Event)
    """Set by the first ``ready``: now there is somebody to record for."""
    reading: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    """Around the recording."""
    resume: ResumePoint = attrs.field(factory=ResumePoint)
    settled: SettledPosition = attrs.field(factory=SettledPosition)
    sent: SendTimes = attrs.field(factory=SendTimes)
    unkept: list[TranscriptResult] = attrs.field(factory=list)
    """Finals that the server had told before it could keep them; one that is killed then will tell them again."""

    @property
    def can_resume(self) -> bool:
        """Whether another connection could go on with this call."""
        return self.options.resumes and self.resume.is_offered and not self.hang_up.is_set()


@attrs.frozen
class Ending:
    """How a conversation ended: well, or by a failure; ``is_lost`` says that another connection may mend it."""

    code: str | None = None
    message: str = ""
    is_lost: bool = False
