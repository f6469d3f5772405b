"""What a call's network did stands in its close record, and in the instruments while the call lasts."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import attrs
import trio
from trio.testing import MockClock

from voice_agent.core.commands import Start, Stop
from voice_agent.core.network import NetworkStatistics
from voice_agent.session.network import MEASURE_SECONDS
from voice_agent.session.open import open_session
from voice_agent.session.services import Services
from voice_agent.transports.memory import MemoryTransport, open_memory_pair
from voice_agent.transports.wire import encode_event

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]


class LossyTransport(MemoryTransport):
    """As in memory, with figures that a test sets."""

    network = NetworkStatistics()


def value(services: Services, name: str, **labels: str) -> float:
    return services.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_losses_are_counted_while_they_happen_and_stand_in_the_record(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Each look adds what is new and nothing twice; the last one is at the end; the record has the sum."""
    transport, caller = open_memory_pair()
    lossy = LossyTransport(transport._line)
    told: list[str] = []

    async def listen() -> None:
        async for event in caller.events():
            told.append(encode_event(event))

    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        async with open_session(services, lossy) as session:
            await caller.send_command(Start())
            lossy.network = NetworkStatistics(
                packets_received=90, packets_lost=10, round_trip_ms=30.0, jitter_ms=4
            )
            await trio.sleep(MEASURE_SECONDS + 0.1)
            assert value(services, "voice_agent_webrtc_packets_total", outcome="lost") == 10
            assert value(services, "voice_agent_webrtc_packets_total", outcome="received") == 90
            assert value(services, "voice_agent_webrtc_round_trip_seconds_sum") == 0.03
            lossy.network = attrs.evolve(
                lossy.network, packets_lost=12, packets_received=190, concealed_ms=240
            )
            await caller.send_command(Stop())
        assert value(services, "voice_agent_webrtc_packets_total", outcome="lost") == 12
        assert value(services, "voice_agent_webrtc_packets_total", outcome="received") == 190
        assert value(services, "voice_agent_webrtc_concealed_seconds_total") == 0.24
        assert value(services, "voice_agent_webrtc_jitter_seconds_count") == 2
    assert session.record is not None
    assert session.record.network == lossy.network
    assert '"packets_lost":12' in told[-1]


async def test_a_transport_without_packets_has_no_figures(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """Over TCP the record says null, and no instrument of packets moves."""
    transport, caller = open_memory_pair()
    async with open_scripted_services() as services, trio.open_nursery() as nursery:
        nursery.start_soon(_drain, caller)
        async with open_session(services, transport) as session:
            await caller.send_command(Start())
            await trio.sleep(MEASURE_SECONDS + 0.1)
            await caller.send_command(Stop())
        assert value(services, "voice_agent_webrtc_jitter_seconds_count") == 0
    assert session.record is not None
    assert session.record.network is None


async def _drain(caller) -> None:  # noqa: ANN001 (the memory caller)
    async for _ in caller.events():
        pass
