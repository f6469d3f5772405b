"""Ending: the decision to end a call, and what its caller is told of the reason."""

import attrs

from voice_agent.core.errors import CallerError, InternalError, VoiceAgentError
from voice_agent.core.events import CloseReason, Fault
from voice_agent.core.groups import alone


@attrs.frozen(kw_only=True)
class Ending:
    """The decision to end the call; ``decided_at`` is on Trio's clock."""

    reason: CloseReason
    decided_at: float
    fault: Fault | None = None


def fault_of(error: CallerError) -> Fault:
    """Return what a caller is told of an error of theirs."""
    return Fault(
        code=error.code,
        message=error.message,
        is_fatal=error.fatal,
        field=error.field,
        close_code=error.close_code,
    )


def fault_of_crash(group: ExceptionGroup[Exception]) -> Fault:
    """Return what a caller is told of a crash: a code, and nothing of the inside."""
    error = alone(group)
    return Fault(
        code=error.code if isinstance(error, VoiceAgentError) else InternalError.code,
        message="The call failed; the server's log has the reason.",
        is_fatal=True,
        close_code=1011,
    )
