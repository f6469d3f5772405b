"""Tickets: short-lived, used once, bound to who asked, and bounded in number."""

from contextlib import suppress
from typing import Any

import pytest
import trio

from voice_agent.access.authentication import REFUSAL
from voice_agent.access.authenticator import Credentials
from voice_agent.core.errors import UnauthenticatedError
from voice_agent.core.identity import ANONYMOUS, Identity, Scope
from voice_agent.core.request_errors import TooManyFailuresError

Edge = Any


async def refused(
    edge: Edge, authenticator: Any, ticket: str, reason: str, address: str | None = None
) -> None:
    before = edge.failures().get(reason, 0)
    with pytest.raises(UnauthenticatedError) as caught:
        await authenticator.identify(Credentials(ticket=ticket), address=address or edge.address)
    assert caught.value.message == REFUSAL
    assert edge.failures()[reason] == before + 1


async def asker(edge: Edge, authenticator: Any, key: str) -> Identity:
    identity: Identity = await authenticator.identify(Credentials(api_key=key), address=edge.address)
    return identity


async def test_a_ticket_lets_its_asker_call_once_and_do_nothing_else(edge: Edge) -> None:
    """It is whoever asked, less every scope but ``call``; the second who shows it is refused."""
    key = edge.add_key("kiosk", ', scopes = ["call", "admin"], tenant = "acme"')
    async with edge.open() as authenticator:
        ticket = authenticator.issue_ticket(await asker(edge, authenticator, key), address=edge.address)
        holder = await authenticator.identify(Credentials(ticket=ticket), address="198.51.100.1")
        assert (holder.key_id, holder.tenant, holder.scopes) == ("kiosk", "acme", {Scope.CALL})
        await refused(edge, authenticator, ticket, "ticket_unknown")


async def test_of_many_who_show_a_ticket_at_once_one_gets_in(edge: Edge) -> None:
    """Between looking and using up there is no moment for anybody else."""
    key = edge.add_key("kiosk")
    admitted = []
    async with edge.open() as authenticator:
        ticket = authenticator.issue_ticket(await asker(edge, authenticator, key), address=edge.address)

        async def show() -> None:
            with suppress(UnauthenticatedError):
                admitted.append(await authenticator.identify(Credentials(ticket=ticket), address="a"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(show)
    assert len(admitted) == 1
    assert edge.failures() == {"ticket_unknown": 49}


async def test_a_ticket_expires(edge: Edge) -> None:
    """After ``access.ticket_seconds`` it is worth nothing."""
    key = edge.add_key("kiosk")
    async with edge.open() as authenticator:
        who = await asker(edge, authenticator, key)
        first, second = (authenticator.issue_ticket(who, address=edge.address) for _ in range(2))
        edge.now += 29.9
        await authenticator.identify(Credentials(ticket=first), address=edge.address)
        edge.now += 0.1
        await refused(edge, authenticator, second, "ticket_expired")


async def test_a_ticket_does_not_outlive_the_key_that_asked(edge: Edge) -> None:
    """A key that expires or is taken away takes its tickets along; one that may do less now lets its ticket do less."""
    key = edge.add_key("kiosk", ", expires = 2030-01-31")
    other = edge.add_key("other", ', scopes = ["call", "observe"]')
    async with edge.open() as authenticator:
        edge.now = 1_896_048_000 - 1
        ticket = authenticator.issue_ticket(await asker(edge, authenticator, key), address=edge.address)
        who = await asker(edge, authenticator, other)
        removed, limited = (authenticator.issue_ticket(who, address=edge.address) for _ in range(2))
        edge.now += 1
        await refused(edge, authenticator, ticket, "ticket_expired")
        edge.add_key("other", ', scopes = ["observe"]')
        holder = await authenticator.identify(Credentials(ticket=limited), address=edge.address)
        assert holder.scopes == frozenset()
        edge.remove_key("other")
        await refused(edge, authenticator, removed, "ticket_orphaned")


async def test_a_ticket_may_be_bound_to_the_address_that_asked(edge: Edge) -> None:
    """Where the setting says so, somebody else who saw the ticket can't use it, and using it up is all they get."""
    key = edge.add_key("kiosk")
    edge.configure(bind_tickets_to_address=True)
    async with edge.open() as authenticator:
        who = await asker(edge, authenticator, key)
        ticket, stolen = (authenticator.issue_ticket(who, address=edge.address) for _ in range(2))
        await authenticator.identify(Credentials(ticket=ticket), address=edge.address)
        await refused(edge, authenticator, stolen, "ticket_moved", address="198.51.100.1")
        await refused(edge, authenticator, stolen, "ticket_unknown")


async def test_the_first_handshake_uses_a_ticket_up_whatever_comes_of_it(edge: Edge) -> None:
    """Shown beside a key, or from a blocked address, it is refused and gone."""
    key = edge.add_key("kiosk")
    async with edge.open() as authenticator:
        who = await asker(edge, authenticator, key)
        beside, blocked = (authenticator.issue_ticket(who, address=edge.address) for _ in range(2))
        with pytest.raises(UnauthenticatedError):
            await authenticator.identify(Credentials(ticket=beside, api_key=key), address=edge.address)
        assert edge.failures() == {"several": 1}
        edge.limiter.allowed = 1
        with pytest.raises(TooManyFailuresError):
            await authenticator.identify(Credentials(ticket=blocked), address=edge.address)
        edge.limiter.allowed = 1_000
        await refused(edge, authenticator, beside, "ticket_unknown")
        await refused(edge, authenticator, blocked, "ticket_unknown")


async def test_unused_tickets_are_bounded_and_one_key_cant_push_out_the_others(edge: Edge) -> None:
    """Somebody who asks for a million tickets fills half of the store with them, and nobody else loses one."""
    flooder, quiet = edge.add_key("flooder"), edge.add_key("quiet")
    edge.configure(max_tickets=10)
    async with edge.open() as authenticator:
        mine = authenticator.issue_ticket(await asker(edge, authenticator, quiet), address=edge.address)
        who = await asker(edge, authenticator, flooder)
        flood = [authenticator.issue_ticket(who, address=edge.address) for _ in range(1000)]
        await authenticator.identify(Credentials(ticket=mine), address=edge.address)
        for ticket in flood[-5:]:
            await authenticator.identify(Credentials(ticket=ticket), address=edge.address)
        await refused(edge, authenticator, flood[-6], "ticket_unknown")


async def test_among_many_askers_the_oldest_ticket_goes(edge: Edge) -> None:
    """The store is bounded whoever asks."""
    async with edge.open() as authenticator:
        edge.configure(max_tickets=4)
        tickets = [
            authenticator.issue_ticket(
                Identity(key_id=f"key-{n}", tenant="default", scopes=frozenset(Scope)), address=edge.address
            )
            for n in range(6)
        ]
        assert len(authenticator._tickets) == 4
        await refused(edge, authenticator, tickets[1], "ticket_unknown")


async def test_expired_tickets_make_room(edge: Edge) -> None:
    """What nobody can use any more is not kept."""
    key = edge.add_key("kiosk")
    async with edge.open() as authenticator:
        who = await asker(edge, authenticator, key)
        for _ in range(50):
            authenticator.issue_ticket(who, address=edge.address)
        edge.now += 31
        authenticator.issue_ticket(who, address=edge.address)
        assert len(authenticator._tickets) == 1


async def test_a_stranger_s_ticket_is_good_while_strangers_are(edge: Edge) -> None:
    """Where nobody is asked who they are, tickets work all the same; with the first key they end."""
    async with edge.open() as authenticator:
        first, second = (authenticator.issue_ticket(ANONYMOUS, address=edge.address) for _ in range(2))
        holder = await authenticator.identify(Credentials(ticket=first), address=edge.address)
        assert (holder.key_id, holder.scopes) == ("anonymous", {Scope.CALL})
        edge.add_key("kiosk")
        await refused(edge, authenticator, second, "ticket_orphaned")


@pytest.mark.parametrize("shown", ["", "x" * 100_000, "\ud800", "é", "../../etc/passwd", "a" * 43])
async def test_what_is_no_ticket_is_refused(edge: Edge, shown: str) -> None:
    """Whatever stands in the query, the answer is the one that everybody gets."""
    async with edge.open() as authenticator:
        await refused(edge, authenticator, shown, "ticket_unknown")
