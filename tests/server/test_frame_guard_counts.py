"""What the frame guard counts, frame by frame: bytes of a message, control frames and empty fragments of a second."""

from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

from voice_agent.server.frame_guard import FrameGuard

NO_RSV = RsvBits(rsv1=False, rsv2=False, rsv3=False)
MAX_BINARY, MAX_TEXT, MAX_CONTROL = 100, 50, 5


@attrs.frozen
class Header:
    opcode: Opcode
    payload_len: int


@attrs.frozen
class Decoder:
    """What wsproto shows an extension of the frame at hand."""

    header: Header


def guard() -> FrameGuard:
    return FrameGuard(max_binary_bytes=MAX_BINARY, max_text_bytes=MAX_TEXT, max_control_frames=MAX_CONTROL)


def take(it: FrameGuard, opcode: Opcode, size: int, *, fin: bool = True) -> Any:
    """Show a whole frame to the guard; return why it is refused, or None."""
    seen = it.frame_inbound_header(None, opcode, NO_RSV, size)  # type: ignore[arg-type]
    if seen != NO_RSV:
        return seen
    return it.frame_inbound_complete(Decoder(Header(opcode, size)), fin)


def test_it_sees_every_frame_and_is_offered_to_nobody() -> None:
    """Wsproto asks extensions that are enabled; a handshake names none."""
    it = guard()
    assert it.enabled() is True
    assert it.offer() is False


@pytest.mark.parametrize(("opcode", "limit"), [(Opcode.BINARY, MAX_BINARY), (Opcode.TEXT, MAX_TEXT)])
async def test_fragments_count_together_and_a_whole_message_gives_all_back(
    opcode: Opcode, limit: int, autojump_clock: MockClock
) -> None:
    """The limit is reached by the sum to the byte; the next message may be as large again, ten times over."""
    it = guard()
    for _ in range(10):
        assert take(it, opcode, limit - 2, fin=False) is None
        assert take(it, Opcode.CONTINUATION, 1, fin=False) is None
        assert take(it, Opcode.CONTINUATION, 1) is None
        assert take(it, opcode, limit) is None
    assert take(it, opcode, limit - 1, fin=False) is None
    assert take(it, Opcode.CONTINUATION, 2) is CloseReason.MESSAGE_TOO_BIG


async def test_control_frames_between_fragments_are_no_part_of_the_message(autojump_clock: MockClock) -> None:
    """A ping in the middle neither counts as bytes nor gives the message's bytes back."""
    it = guard()
    assert take(it, Opcode.BINARY, MAX_BINARY - 1, fin=False) is None
    assert take(it, Opcode.PING, 100) is None
    assert take(it, Opcode.CONTINUATION, 2) is CloseReason.MESSAGE_TOO_BIG


async def test_empty_fragments_are_counted_and_nothing_else_is(autojump_clock: MockClock) -> None:
    """Only a fragment that is empty and not the last makes a message that never ends: five a second are borne."""
    it = guard()
    for _ in range(50):
        assert take(it, Opcode.BINARY, 0) is None
        assert take(it, Opcode.BINARY, 1, fin=False) is None
        assert take(it, Opcode.CONTINUATION, 1, fin=False) is None
        assert take(it, Opcode.CONTINUATION, 0) is None
    assert take(it, Opcode.TEXT, 0, fin=False) is None
    for _ in range(MAX_CONTROL - 1):
        assert take(it, Opcode.CONTINUATION, 0, fin=False) is None
    assert take(it, Opcode.CONTINUATION, 0, fin=False) is CloseReason.POLICY_VIOLATION


async def test_empty_fragments_and_control_frames_are_one_count_of_one_second(
    autojump_clock: MockClock,
) -> None:
    """Mixing them does not double what is borne, and after a second there is room for as many again."""
    it = guard()
    await trio.sleep(50)
    for _ in range(3):
        assert take(it, Opcode.BINARY, 0, fin=False) is None
        assert take(it, Opcode.PONG, 0) is None
        assert take(it, Opcode.CONTINUATION, 0, fin=False) is None
        assert take(it, Opcode.CONTINUATION, 1) is None
        await trio.sleep(0.5)
        assert take(it, Opcode.PING, 0) is None
        assert take(it, Opcode.PING, 0) is None
        await trio.sleep(0.5)
    for _ in range(MAX_CONTROL):
        assert take(it, Opcode.PING, 0) is None
    await trio.sleep(0.999)
    assert take(it, Opcode.PING, 0) is CloseReason.POLICY_VIOLATION
