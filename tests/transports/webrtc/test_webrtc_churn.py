"""Calls that come and go in every way leave no task, thread, socket or file descriptor behind."""

import gc
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trio

from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.media_thread import MediaThread, open_media_thread
from voice_agent.transports.webrtc.peer import Peer

WAYS = ("clean", "mid offer", "mid ICE", "mid media", "vanished", "bad offer", "hung up")
CALLS = 56


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def call(way: str, media: MediaThread, make_caller: Callable) -> None:
    """One call, ended in one way."""
    caller = make_caller()
    offer = await caller.offer(np.zeros(9600, np.int16))
    async with await media.open_peer(PeerConfig()) as peer:
        if way == "bad offer":
            with pytest.raises(Exception, match="fingerprint"):
                await peer.answer(offer.replace("a=fingerprint", "a=none"))
        elif way == "mid offer":
            with trio.move_on_after(0):
                await peer.answer(offer)
        else:
            answer = await peer.answer(offer)
            if way != "mid ICE":
                await caller.accept(answer)
                await converse(way, peer, caller)
    await caller.hang_up()


async def converse(way: str, peer: Peer, caller: object) -> None:
    with trio.fail_after(60):
        await peer.connected.wait()
        if way == "mid media":
            await peer.recv_audio()
            return
        await peer.send_message("hello")
        await peer.recv_audio()
        if way == "vanished":
            await caller.vanish()
        elif way == "hung up":
            await caller.hang_up()
            with pytest.raises(Exception, match="closed"):
                await peer.recv_message()


@pytest.mark.e2e
async def test_churned_calls_return_to_the_baseline(make_caller: Callable) -> None:
    """After many calls, ended in seven ways, tasks, threads and descriptors are as many as before."""
    overdue: list[str] = []
    async with open_media_thread(on_overdue=overdue.append) as media:
        for way in WAYS:
            await call(way, media, make_caller)
        gc.collect()
        before = (await media.tasks(), threading.active_count(), descriptors())
        done: Counter[str] = Counter()
        for round_number in range(CALLS // 8):
            async with trio.open_nursery() as nursery:
                for place in range(8):
                    way = WAYS[(round_number + place) % len(WAYS)]
                    done[way] += 1
                    nursery.start_soon(call, way, media, make_caller)
        gc.collect()
        # A socket is closed in the loop's next round, which may be a moment away on a busy machine.
        with trio.move_on_after(60):
            while descriptors() > before[2]:  # noqa: ASYNC110  # the kernel sets no event
                await trio.sleep(0.01)
        after = (await media.tasks(), threading.active_count(), descriptors())
        print(f"{sum(done.values())} calls {dict(done)}: tasks, threads, descriptors {before} -> {after}")
        assert media.peers_open == 0
    gc.collect()
    assert overdue == []
    assert after[0] == before[0]
    assert after[2] <= before[2]
    # What is left are the callers' own: their loop, its thread pool, and Trio's cache of worker threads.
    names = {thread.name for thread in threading.enumerate()}
    assert not [name for name in names if name == "webrtc-media" or "decoder" in name]


async def test_leaving_the_thread_closes_what_its_owners_left(make_caller: Callable) -> None:
    """A peer that nobody closed is closed with the thread, even when the block is cancelled."""
    async with open_media_thread() as media:
        with trio.CancelScope() as scope:
            peer = await media.open_peer(PeerConfig())
            await peer.answer(await make_caller().offer())
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert media.peers_open == 0
    assert peer.ended_by is not None


@pytest.mark.parametrize("checkpoints", range(8))
async def test_a_call_cancelled_anywhere_leaves_nothing(
    media: MediaThread, make_caller: Callable, checkpoints: int
) -> None:
    """Wherever the owner of a call is cancelled on its way to an answer, no task stays and nothing is open."""
    offer = await make_caller().offer()
    tasks = await media.tasks()

    async def own() -> None:
        async with await media.open_peer(PeerConfig()) as peer:
            await peer.answer(offer)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(own)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        if checkpoints > 4:
            await trio.sleep(0.004 * (checkpoints - 4))
        nursery.cancel_scope.cancel()
    assert media.peers_open == 0
    assert await media.tasks() == tasks


async def test_a_close_that_takes_too_long_is_reported(make_caller: Callable) -> None:
    """When the loop hangs, closing ends at its deadline and says so, and the caller of close goes on."""
    overdue: list[str] = []
    release = threading.Event()
    async with open_media_thread(on_overdue=overdue.append) as media:
        peer = await media.open_peer(PeerConfig(close_timeout_seconds=0.1))
        media.call_soon(release.wait, 20)
        with trio.fail_after(15):
            await peer.aclose()
        assert len(overdue) == 1
        release.set()
        assert await media.ping(5) >= 0
