"""The inbox: bounded in time, with two doors."""

import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.core.errors import SessionClosedError
from voice_agent.core.frames import AudioFrame
from voice_agent.session.inbox import MAX_WAITING_FLUSHES, AudioInbox, FlushMark


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
    """Waiting and dropped audio add up to what was offered; no more than the limit waits, or the newest frame alone."""
    inbox = AudioInbox(limit_ms)
    position = 0
    for ms in lengths:
        inbox.offer(frame(position, ms))
        position += ms
        assert inbox.waiting_seconds <= max(limit_ms, ms) / 1000 + 1e-9
    assert inbox.waiting_seconds + inbox.dropped_seconds == pytest.approx(position / 1000)


async def test_a_message_longer_than_the_limit_is_heard() -> None:
    """Half a minute in one message is taken whole where nothing else waits; the next one pushes it out."""
    inbox = AudioInbox(10_000)
    inbox.offer(frame(0, 30_000))
    assert inbox.dropped_seconds == 0
    item = await inbox.get()
    assert isinstance(item, AudioFrame)
    assert item.sample_count == 30 * 16_000
    inbox.offer(frame(30_000, 30_000))
    inbox.offer(frame(60_000, 20))
    assert inbox.waiting_seconds == pytest.approx(0.02)
    assert inbox.dropped_seconds == pytest.approx(30)


async def test_tiny_and_empty_messages_are_bounded_too() -> None:
    """Frames of a sample each count by number, empty ones not at all, and flushes are bounded: memory can't grow."""
    inbox = AudioInbox(100)
    for i in range(1000):
        inbox.offer(AudioFrame(np.zeros(1, np.float32), 16_000, i))
        inbox.offer(AudioFrame(np.zeros(0, np.float32), 16_000, i + 1))
        inbox.flush(i / 16_000)
    items = [await inbox.get() for _ in range(100 + MAX_WAITING_FLUSHES)]
    assert not inbox.waiting_seconds
    assert sum(isinstance(item, FlushMark) for item in items) == MAX_WAITING_FLUSHES
    assert sum(isinstance(item, AudioFrame) for item in items) == 100
    assert inbox.dropped_seconds == pytest.approx(900 / 16_000)


async def test_what_nobody_will_hear_is_dropped_and_counted() -> None:
    """Discarding empties the inbox of audio and counts it."""
    inbox = AudioInbox(1000)
    for i in range(10):
        inbox.offer(frame(20 * i))
    inbox.discard()
    assert inbox.waiting_seconds == pytest.approx(0)
    assert inbox.dropped_seconds == pytest.approx(0.2)
