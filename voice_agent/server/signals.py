"""What the process does on a signal."""

import os
import signal
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog

from voice_agent.server.stopping import Stopping

OBEYED_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
EXIT_CUT_SHORT: Final = 75
"""The exit code after a second signal: EX_TEMPFAIL of sysexits.h. No shell and no service manager gives it for a
process that a signal has killed, so it tells that calls were cut short on purpose."""

log = structlog.get_logger(__name__)


async def obey_signals(
    signals: AsyncIterator[int], stopping: Stopping, reload_settings: Callable[[], None]
) -> None:
    """Begin the drain at the first SIGTERM or SIGINT, and end the process at the second, whatever goes on.

    SIGHUP reads the settings again. It comes too when the terminal of a server in the foreground is closed; the server
    then goes on.

    A drain that a request has begun does not count: the signal that an orchestrator sends after it must not cut it
    short. SIGINT comes from somebody who waits at a terminal, so the listener closes at once.
    """
    has_been_told = False
    async for number in signals:
        if number == signal.SIGHUP:
            reload_settings()
            continue
        name = signal.Signals(number).name
        if has_been_told:
            log.warning("second_signal", signal=name)
            os._exit(EXIT_CUT_SHORT)
        has_been_told = True
        log.info("signal", signal=name)
        stopping.begin(name, is_urgent=number == signal.SIGINT)
