"""Time limits of a call: how long it may last, and how long it may be silent; each is told of before it ends the call."""

from typing import Final, Protocol

import trio

from voice_agent.core.errors import CallerError, IdleTimeoutError, MaxDurationError
from voice_agent.core.events import CloseReason, Notice
from voice_agent.core.limits import Limit
from voice_agent.core.notices import limit_near
from voice_agent.core.units import SECONDS

IDLE_NOTICE_SECONDS: Final = 15 * SECONDS
DURATION_NOTICE_SECONDS: Final = 60 * SECONDS
"""How long before the end a caller is told; a quarter of the limit where that is less."""


class TimedCall(Protocol):
    """What is watched."""

    @property
    def active_at(self) -> float:
        """When the caller was last heard of, on Trio's clock."""
        ...

    async def publish(self, event: Notice) -> None:
        """Tell the caller."""
        ...

    def fail(self, error: CallerError, reason: CloseReason) -> None:
        """End the call."""
        ...


async def watch_idle(call: TimedCall, timeout_seconds: float) -> None:
    """End the call when nothing has come for so long."""
    notice_seconds = min(IDLE_NOTICE_SECONDS, timeout_seconds / 4)
    while True:
        active_at = call.active_at
        await trio.sleep_until(active_at + timeout_seconds - notice_seconds)
        if call.active_at == active_at:
            notice = limit_near(
                Limit.IDLE,
                used=timeout_seconds - notice_seconds,
                allowed=timeout_seconds,
                message=f"Nothing was sent for a while; in {notice_seconds:g} s the call ends.",
            )
            await _tell_until(call, notice, active_at + timeout_seconds)
        if call.active_at == active_at:
            error = IdleTimeoutError(f"neither audio nor messages came for {timeout_seconds:g} s")
            return call.fail(error, CloseReason.IDLE_TIMEOUT)


async def watch_duration(call: TimedCall, max_seconds: float, began_at: float) -> None:
    """End the call when it has lasted so long, on Trio's clock."""
    ends_at = began_at + max_seconds
    notice_seconds = min(DURATION_NOTICE_SECONDS, max_seconds / 4)
    await trio.sleep_until(ends_at - notice_seconds)
    notice = limit_near(
        Limit.DURATION,
        used=max_seconds - notice_seconds,
        allowed=max_seconds,
        message=f"The call ends in {notice_seconds:g} s.",
    )
    await _tell_until(call, notice, ends_at)
    call.fail(MaxDurationError(f"the call has lasted {max_seconds:g} s"), CloseReason.MAX_DURATION)


async def _tell_until(call: TimedCall, notice: Notice, ends_at: float) -> None:
    """Tell, and wait; a caller who does not read does not keep the call from ending."""
    with trio.move_on_at(ends_at):
        await call.publish(notice)
        await trio.sleep_forever()
