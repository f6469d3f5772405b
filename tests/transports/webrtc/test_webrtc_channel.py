"""The data channel ``events`` against a real aiortc caller: which channel is served, and what it may bring."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest

SOUND = np.zeros(480_000, np.int16)


@pytest.fixture
def own_channel_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server opens its own channel at once."""
    monkeypatch.setattr("voice_agent.transports.webrtc.connection.OPEN_CHANNEL_AFTER_SECONDS", 0)


async def test_what_is_sent_before_the_channel_opens_is_kept(
    connect: Callable, own_channel_soon: None
) -> None:
    """A message that comes before any channel is sent when there is one; the server opens it if the caller doesn't."""
    peer, caller = await connect(channel=None)
    await peer.send_message("early")
    await caller.until(lambda: caller.received == ["early"])
    assert [channel.label for channel in caller.opened_channels] == ["events"]
    await caller.send("answer")
    assert await peer.recv_message() == "answer"


async def test_a_channel_that_the_caller_opens_late_takes_over(
    connect: Callable, own_channel_soon: None
) -> None:
    """Its opening was lost and sent again, so the server opened one that the caller may not hear: nothing is lost."""
    peer, caller = await connect(channel=None)
    await peer.send_message("early")
    await caller.until(lambda: caller.received == ["early"])
    received = await caller.open_channel()
    await caller.until(lambda: received == ["early"])
    await peer.send_message("later")
    await caller.until(lambda: received == ["early", "later"])
    assert caller.received == ["early"]
    await caller.send("to the server")
    assert await peer.recv_message() == "to the server"
    assert caller.opened_channels[0].readyState != "open"


async def test_a_channel_beside_one_that_is_used_is_closed(connect: Callable, own_channel_soon: None) -> None:
    """A caller that has spoken on the server's channel hears it: another one is not served."""
    peer, caller = await connect(channel=None)
    await peer.send_message("early")
    await caller.until(lambda: caller.received == ["early"])
    await caller.send("answer")
    assert await peer.recv_message() == "answer"
    received = await caller.open_channel()
    await caller.until(lambda: caller.channel.readyState == "closed")
    await peer.send_message("later")
    await caller.until(lambda: caller.received == ["early", "later"])
    assert received == []


async def test_a_caller_whose_channel_was_closed_has_time_to_open_it_again(
    connect: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the call has lasted: ours, which would cross the caller's, comes four seconds after the close."""
    monkeypatch.setattr("voice_agent.transports.webrtc.connection.WATCH_SECONDS", 0.01)
    peer, caller = await connect(SOUND)
    await caller.until(lambda: caller.channel.readyState == "open")
    connection, now, looks, is_looking = peer._connection, [1000.0], [], [True]
    look = connection._open_own_channel
    monkeypatch.setattr(connection, "_loop", SimpleNamespace(time=lambda: now[0]))
    monkeypatch.setattr(connection, "_open_own_channel", lambda: is_looking[0] and looks.append(look()))

    async def look_again() -> None:
        looked = len(looks)
        await caller.until(lambda: len(looks) > looked + 5)

    await caller.send_raw(51, b"\xff\xfe")
    await caller.until(lambda: connection.channel.is_gone)
    await look_again()
    now[0] += 3.9
    await look_again()
    is_looking[0] = False
    await caller.open_channel()
    await caller.send_raw(51, b"\xff\xfe")
    await caller.until(lambda: connection.channel.is_gone and caller.channel.readyState == "closed")
    is_looking[0] = True
    await look_again()
    now[0] += 3.9
    await look_again()
    assert caller.opened_channels == []
    now[0] += 0.2
    await caller.until(lambda: len(caller.opened_channels) == 1)


async def test_without_a_data_section_messages_go_nowhere(connect: Callable) -> None:
    """A caller without a data channel (WHIP) is served; text for it is dropped and counted."""
    peer, caller = await connect(SOUND, channel=None, has_data=False, direction="sendonly")
    for _ in range(3):
        await peer.send_message("unheard")
    await caller.until(lambda: peer.stats.messages_dropped == 3)


@pytest.mark.parametrize(
    "options", [{"channel": "other"}, {"ordered": False}, {"maxRetransmits": 0}], ids=str
)
async def test_other_channels_are_closed(connect: Callable, options: dict) -> None:
    """A channel of another name, unordered or unreliable, is closed; the call goes on and gets our own channel."""
    peer, caller = await connect(SOUND, **options)
    refused = caller.channel
    await caller.until(lambda: refused.readyState == "closed")
    await peer.send_message("still here")
    await caller.until(lambda: caller.received == ["still here"])


async def test_invalid_utf8_closes_the_channel_and_not_the_call(connect: Callable) -> None:
    """Text that is no UTF-8 ends its data channel; audio goes on."""
    peer, caller = await connect(SOUND)
    await caller.until(lambda: caller.channel.readyState == "open")
    broken = caller.channel
    await caller.send_raw(51, b"\xff\xfe")
    await caller.until(lambda: broken.readyState == "closed")
    heard = peer.received_samples
    await caller.until(lambda: peer.received_samples > heard + 9600)
    assert peer.ended_by is None


async def test_control_messages_that_make_no_sense_are_ignored(connect: Callable) -> None:
    """A second opening of an open stream, an acknowledgement of nothing, and garbage leave the call as it is."""
    peer, caller = await connect(SOUND)
    await caller.until(lambda: caller.channel.readyState == "open")
    opening = bytes([3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]) + b"x"
    for data in (opening, b"\x03", b"\x02", b"\x99\x00", opening[:-1] + b"\xff"):
        await caller.send_raw(50, data)
    await caller.send("sound")
    assert await peer.recv_message() == "sound"
    assert peer.ended_by is None


async def test_messages_over_the_limit_close_the_channel(connect: Callable) -> None:
    """A message of more than 64 KiB is not delivered; its channel is closed, the call goes on."""
    peer, caller = await connect(SOUND)
    await caller.until(lambda: caller.channel.readyState == "open")
    broken = caller.channel
    await caller.send("a" * 65_536)
    assert len(await peer.recv_message()) == 65_536
    await caller.send_raw(51, b"a" * 65_537)
    await caller.until(lambda: broken.readyState == "closed")
    assert peer.ended_by is None
