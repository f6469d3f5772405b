"""mDNS look-ups: what browsers answer is understood, and what a name turns out to mean is judged."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import dns.name
import pytest
from aioice import mdns

from voice_agent.transports.webrtc.addresses import allowed_addresses
from voice_agent.transports.webrtc.config import PeerConfig
from voice_agent.transports.webrtc.connection import PeerConnection
from voice_agent.transports.webrtc.local_names import read_answer, resolve
from voice_agent.transports.webrtc.media_thread import MediaThread
from voice_agent.transports.webrtc.outbound import OutboundBuffer

CHROMIUM_S_NAME = dns.name.from_text("328726bf-13b2-4fe2-a493-daee5475820c.local")
CHROMIUM_S_ANSWER = bytes.fromhex(
    "0000840000000001000000012433323837323662662d313362322d346665322d613439332d646165653534373538323063056c6f6361"
    "6c0000018001000000780004c00002022433323837323662662d313362322d346665322d613439332d64616565353437353832306305"
    "6c6f63616c00002f8001000000780005c046000140"
)
"""As Chromium 156 sent it: an A record, and an NSEC record with a compressed name."""


@asynccontextmanager
async def responder(name: str, address: str) -> AsyncIterator[None]:
    """Another implementation that answers for a name."""
    protocol = await mdns.create_mdns_protocol()
    try:
        await protocol.publish(name, address)
        yield
    finally:
        await protocol.close()


@pytest.fixture
def name() -> str:
    return f"{uuid4()}.local"


def test_a_browser_s_answer_is_read() -> None:
    """An A record counts, whatever stands behind it."""
    assert read_answer(CHROMIUM_S_ANSWER, CHROMIUM_S_NAME) == "192.0.2.2"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 11,
        CHROMIUM_S_ANSWER[:60],
        CHROMIUM_S_ANSWER[:5] + b"\xff" * 8 + CHROMIUM_S_ANSWER[13:],
        b"\xc0\x0c" * 40,
        bytes(range(256)),
    ],
    ids=["empty", "short", "cut", "counts", "pointers", "rubbish"],
)
def test_packets_that_are_no_answers_are_passed_over(data: bytes) -> None:
    """Anybody on the local network can send to the port: nothing that comes raises."""
    assert read_answer(data, CHROMIUM_S_NAME) is None


def test_an_answer_about_another_name_is_passed_over() -> None:
    """Every answer on the network is heard; the one about our name counts."""
    assert read_answer(CHROMIUM_S_ANSWER, dns.name.from_text("other.local")) is None


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
async def test_a_name_is_looked_up_on_the_network(media: MediaThread, name: str, address: str) -> None:
    """Another program answers, for either family."""

    async def ask() -> str | None:
        async with responder(name, address):
            return await resolve(name, allowed_addresses(PeerConfig()))

    assert await media.call(ask) == address


async def test_a_name_that_nobody_answers_for_is_given_up(
    media: MediaThread, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second question and some patience there is no address, and no socket is left."""
    monkeypatch.setattr("voice_agent.transports.webrtc.local_names.GIVE_UP_SECONDS", 0.1)
    assert await media.call(resolve, name, allowed_addresses(PeerConfig())) is None


async def test_a_port_that_is_taken_is_an_error_that_the_caller_of_it_survives(
    media: MediaThread, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program may hold the port for itself: the candidate is passed over, the call goes on."""

    def refuse(*_: object) -> None:
        raise OSError("the port is taken")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(OSError, match="taken"):
        await media.call(resolve, name, [])


class Nobody:
    """Is told and does nothing."""

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.mark.parametrize(
    ("address", "is_tried"),
    [
        ("192.0.2.7", True),
        ("127.0.0.1", False),
        ("169.254.1.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  # nothing is bound to it
        ("::1", False),
    ],
)
async def test_what_a_name_means_is_judged_as_if_the_caller_had_sent_it(
    media: MediaThread, name: str, address: str, is_tried: bool
) -> None:
    """A name is no way round the rules for addresses."""

    async def look_up() -> str:
        connection = PeerConnection(PeerConfig(), OutboundBuffer(960, lambda: None), Nobody())
        try:
            async with responder(name, address):
                return await connection._look_up(name)
        finally:
            await connection.close()

    assert await media.call(look_up) == (address if is_tried else "")
