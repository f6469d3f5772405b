"""The inbox: bounded in time, with two doors."""

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.errors import SessionClosedError
from voice_agent.core.frames import AudioFrame
from voice_agent.session.inbox import AudioInbox, FlushMark


def frame(position_ms: int, ms: int = 20) -> AudioFrame:
    return AudioFrame(np.zeros(ms * 16, np.float32), 16_000, position_ms * 16)


async def test_offered_audio_beyond_the_limit_pushes_out_the_oldest() -> None:
    """With room for 100 ms, of ten 20 ms frames the last five are left and 100 ms are counted as dropped."""
    inbox = AudioInbox(100)
    for i in range(10):
        inbox.offer(frame(20 * i))
    inbox.close()
    left = [await inbox.get() for _ in range(5)]
    assert [item.position // 16 for item in left if isinstance(item, AudioFrame)] == [100, 120, 140, 160, 180]
    with pytest.raises(trio.EndOfChannel):
        await inbox.get()
    assert inbox.dropped_seconds == pytest.approx(0.1)


async def test_a_flush_mark_is_never_dropped() -> None:
    """Commands survive an overflow."""
    inbox = AudioInbox(100)
    inbox.flush(1.5)
    for i in range(10):
        inbox.offer(frame(20 * i))
    assert await inbox.get() == FlushMark(1.5)


async def test_put_waits_for_room(autojump_clock: trio.testing.MockClock) -> None:
    """The lossless door waits until something was taken."""
    inbox = AudioInbox(20)
    await inbox.put(frame(0))
    with trio.move_on_after(1) as scope:
        await inbox.put(frame(20))
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.put, frame(20))
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(await inbox.get(), AudioFrame)
    assert inbox.waiting_seconds == pytest.approx(0.02)


async def test_a_closed_inbox_refuses_and_wakes_who_waits() -> None:
    """Nobody hangs on a session that has ended."""
    inbox = AudioInbox(20)
    await inbox.put(frame(0))
    async with trio.open_nursery() as nursery:

        async def put() -> None:
            with pytest.raises(SessionClosedError):
                await inbox.put(frame(20))

        nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()
        inbox.close()
    inbox.offer(frame(40))
    inbox.flush(3.0)
    await inbox.get()
    with pytest.raises(trio.EndOfChannel):
        await inbox.get()


async def test_a_cancelled_get_loses_nothing() -> None:
    """Cancelled at its checkpoint, the frame stays for the next reader."""
    inbox = AudioInbox(100)
    inbox.offer(frame(0))
    with trio.CancelScope() as scope:
        scope.cancel()
        await inbox.get()
    assert scope.cancelled_caught
    assert inbox.waiting_seconds == pytest.approx(0.02)


@given(st.lists(st.integers(1, 400), max_size=50), st.integers(100, 1000))
async def test_what_is_not_dropped_is_there(lengths: list[int], limit_ms: int) -> None:
    """Waiting and dropped audio add up to what was offered, and no more than the limit waits."""
    inbox = AudioInbox(limit_ms)
    position = 0
    for ms in lengths:
        inbox.offer(frame(position, ms))
        position += ms
        assert inbox.waiting_seconds <= limit_ms / 1000 + 1e-9
    assert inbox.waiting_seconds + inbox.dropped_seconds == pytest.approx(position / 1000)
