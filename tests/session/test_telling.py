"""The stage that tells: what is settled is said only when no message waits that may say otherwise."""

from typing import Any

import trio
from trio.testing import MockClock

from voice_agent.core.events import Pong, SessionEvent
from voice_agent.session.outbox import Outbox
from voice_agent.session.telling import Telling
from voice_agent.transports.memory import open_memory_pair


class Renewals:
    """A keeping that notes what it is told to renew with."""

    def __init__(self) -> None:
        self.renew_at = trio.current_time()
        self.positions: list[int | None] = []

    async def keep(self, event: SessionEvent) -> SessionEvent:
        await trio.lowlevel.checkpoint()
        return event

    async def renew(self, position_ms: int | None) -> None:
        await trio.lowlevel.checkpoint()
        self.positions.append(position_ms)
        self.renew_at = trio.current_time() + 10


async def test_what_waits_may_say_that_speech_began(autojump_clock: MockClock) -> None:
    """A renewal that is due while a message waits knows no position; one in silence does."""
    outbox = Outbox(8)
    telling = Telling(outbox, on_told=lambda _: None, on_gone=lambda: None, position_ms=lambda: 4711)
    keeping: Any = Renewals()
    telling.keeping = keeping
    transport, caller = open_memory_pair()
    await outbox.put(Pong(id="1"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(telling.run, transport)
        await trio.sleep(15)
        assert keeping.positions == [None, 4711]
        outbox.close()
    events = caller.events()
    assert (await anext(events)) == Pong(id="1", seq=1)
