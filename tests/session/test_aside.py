"""What is done beside a call can't take other calls along."""

import pytest
import trio
from structlog.testing import capture_logs

from voice_agent.session.aside import start_aside


async def test_a_crash_beside_a_call_ends_nothing_else() -> None:
    """It is logged with its job's name, and the supervisor goes on."""

    async def crash() -> None:
        raise ValueError("a defect")

    done = trio.Event()

    async def go_on() -> None:
        await trio.lowlevel.checkpoint()
        done.set()

    with capture_logs() as logs:
        async with trio.open_nursery() as supervisor:
            start_aside(supervisor, "watch", crash)
            start_aside(supervisor, "other", go_on)
    assert done.is_set()
    assert [(line["event"], line["job"]) for line in logs] == [("aside_crashed", "watch")]


async def test_cancelling_goes_through() -> None:
    """What is beside a call ends with its supervisor."""
    with trio.fail_after(60):
        async with trio.open_nursery() as supervisor:
            start_aside(supervisor, "sleep", trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            supervisor.cancel_scope.cancel()


async def test_a_supervisor_that_has_ended_is_told() -> None:
    """The caller hears of it at once."""
    async with trio.open_nursery() as supervisor:
        pass
    with pytest.raises(RuntimeError):
        start_aside(supervisor, "late", trio.sleep_forever)
