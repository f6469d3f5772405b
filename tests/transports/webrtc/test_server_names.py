"""The names of STUN and TURN servers under virtual time: what a call waits for, and what it does without."""

import attrs
import pytest
import trio
from trio.testing import MockClock

from voice_agent.transports.webrtc.config import IceServer
from voice_agent.transports.webrtc.server_names import ServerNames

STUN = IceServer(urls=("stun:stun.example:3478",))
TURN = IceServer(
    urls=("turn:turn.example?transport=udp", "turns:turn.example:443?transport=tcp"),
    username="u",
    credential="c",
)


@attrs.define
class Resolver:
    """Answers from a table; ``None`` stands for a name server that never answers."""

    table: dict[str, str | None]
    asked: list[str] = attrs.field(factory=list)

    async def __call__(self, host: str) -> str | None:
        self.asked.append(host)
        if host in self.table and self.table[host] is None:
            await trio.sleep_forever()
        return self.table.get(host)


async def test_names_become_addresses(autojump_clock: MockClock) -> None:
    """Port, transport and credentials stay; over TLS the name does, for the certificate is checked against it."""
    names = ServerNames(Resolver({"stun.example": "192.0.2.1", "turn.example": "192.0.2.2"}))
    stun, turn = await names.resolved((STUN, TURN))
    assert stun.urls == ("stun:192.0.2.1:3478",)
    assert turn.urls == ("turn:192.0.2.2?transport=udp", "turns:turn.example:443?transport=tcp")
    assert (turn.username, turn.credential) == ("u", "c")


async def test_addresses_are_not_looked_up(autojump_clock: MockClock) -> None:
    """A URL with an address is left as it is."""
    resolver = Resolver({})
    server = IceServer(urls=("stun:192.0.2.7", "turn:[2001:db8::1]:3478"))
    assert await ServerNames(resolver).resolved((server,)) == (server,)
    assert resolver.asked == []


async def test_what_is_known_is_not_asked_again(autojump_clock: MockClock) -> None:
    """For a minute; then it is, and the new address is taken."""
    resolver = Resolver({"stun.example": "192.0.2.1"})
    names = ServerNames(resolver)
    for _ in range(3):
        await names.resolved((STUN,))
    assert resolver.asked == ["stun.example"]
    await trio.sleep(61)
    resolver.table["stun.example"] = "192.0.2.9"
    [stun] = await names.resolved((STUN,))
    assert stun.urls == ("stun:192.0.2.9:3478",)


async def test_a_name_server_that_does_not_answer_holds_a_call_up_for_a_second(
    autojump_clock: MockClock,
) -> None:
    """All names together, not each; the servers are left out; and the calls of the next ten seconds don't wait."""
    names = ServerNames(Resolver({"stun.example": None, "turn.example": None}))
    began = trio.current_time()
    assert await names.resolved((STUN, TURN)) == ()
    assert trio.current_time() - began == pytest.approx(1)
    assert await names.resolved((STUN, TURN)) == ()
    assert trio.current_time() - began == pytest.approx(1)


async def test_one_unknown_name_costs_only_its_own_server(autojump_clock: MockClock) -> None:
    """The other servers are used."""
    names = ServerNames(Resolver({"turn.example": "192.0.2.2"}))
    [turn] = await names.resolved((STUN, TURN))
    assert turn.username == "u"


async def test_an_address_that_was_right_is_better_than_none(autojump_clock: MockClock) -> None:
    """When a name can't be looked up any more, its last address is used."""
    resolver = Resolver({"stun.example": "192.0.2.1"})
    names = ServerNames(resolver)
    await names.resolved((STUN,))
    await trio.sleep(61)
    resolver.table["stun.example"] = None
    [stun] = await names.resolved((STUN,))
    assert stun.urls == ("stun:192.0.2.1:3478",)


async def test_the_system_s_resolver_is_asked() -> None:
    """A name that the machine itself knows, and one that by RFC 6761 nobody has."""
    names = ServerNames()
    local = IceServer(urls=("stun:localhost",))
    assert await names.resolved((local, IceServer(urls=("stun:a..b.invalid",)))) == (
        IceServer(urls=("stun:127.0.0.1",)),
    )
