"""Aside: what a call has done beside itself, by the supervisor; a defect there ends nothing else."""

from collections.abc import Awaitable, Callable

import structlog
import trio

log = structlog.get_logger(__name__)


def start_aside(
    supervisor: trio.Nursery, name: str, job: Callable[..., Awaitable[None]], *args: object
) -> None:
    """Start a job that outlives its call.

    Raises:
        RuntimeError: the supervisor's nursery has ended.
    """
    supervisor.start_soon(_guarded, name, job, *args, name=name)


async def _guarded(name: str, job: Callable[..., Awaitable[None]], *args: object) -> None:
    try:
        await job(*args)
    except* Exception:
        # The supervisor's nursery is every call's: raised, it would end them all.
        log.exception("aside_crashed", job=name)
