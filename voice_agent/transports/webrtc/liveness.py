"""Liveness: whether a connected caller is still there.

Silence proves little: a network may stall for seconds, and the call shall survive that. So a caller counts as gone only
after ``timeout_seconds`` without any sign of life, or at once when there is evidence: the network reports that nobody
listens at the caller's address any more (:mod:`~voice_agent.transports.webrtc.unreachable`), and the caller, asked
again, does not answer either. Everything here runs in the media thread's event loop.
"""

# ruff: noqa: SLF001  # aiortc's and aioice's internals are used here, which is why their versions are pinned exactly

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from voice_agent.transports.webrtc.unreachable import report_unreachable

WATCH_SECONDS: Final = 0.5
PROBE_SECONDS: Final = 5.0
QUIET_PROBE_SECONDS: Final = 1.0
"""A path on which nothing comes is asked more often."""
PROBE_RETRANSMISSIONS: Final = 1
"""aioice waits 0.5 s and then 1 s."""
DOUBT_PROBES: Final = 3
DOUBT_PROBE_SECONDS: Final = 0.1
"""How long each of the hurried probes waits, on a path that is not known to be slower: together they stay well within a
second, and one lost packet of three does not end a call."""
DOUBT_ROUND_TRIPS: Final = 2
"""What a hurried probe waits on a slow path."""

log = structlog.get_logger(__name__)


class Liveness:
    """Watches one call's DTLS ``transports``; calls ``on_gone`` with the reason, once or never."""

    def __init__(
        self, transports: Sequence[Any], *, timeout_seconds: float, on_gone: Callable[[str], None]
    ) -> None:
        self.round_trip_seconds: float | None = None
        """As the last answered probe measured it."""
        self._transports = transports
        self._timeout_seconds = timeout_seconds
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._doubt: asyncio.Task[None] | None = None

    async def watch(self) -> None:
        """Watch until the caller is gone or the task is cancelled; the connection must have come to be."""
        report_unreachable(self._ice_connections(), self.doubt)
        alive_at = probed_at = self._loop.time()
        received = -1
        while True:
            now = self._loop.time()
            if (counted := self._received_packets()) != received:
                received, alive_at = counted, now
            pause = PROBE_SECONDS if now - alive_at < QUIET_PROBE_SECONDS else QUIET_PROBE_SECONDS
            if now - probed_at >= pause or self.round_trip_seconds is None:
                probed_at = now
                if await self._probe():
                    alive_at = self._loop.time()
            if self._loop.time() - alive_at > self._timeout_seconds:
                self._on_gone("nothing came from the caller any more")
                return
            await asyncio.sleep(min(WATCH_SECONDS, self._timeout_seconds / 4))

    def doubt(self) -> None:
        """Ask at once, in a hurry, whether the caller is there; asked already, do nothing."""
        if self._doubt is None or self._doubt.done():
            self._doubt = asyncio.create_task(self._ask_in_a_hurry())

    def stop(self) -> None:
        """Ask no more."""
        if self._doubt is not None:
            self._doubt.cancel()

    async def _ask_in_a_hurry(self) -> None:
        seconds = max(DOUBT_PROBE_SECONDS, DOUBT_ROUND_TRIPS * (self.round_trip_seconds or 0.0))
        received = self._received_packets()
        for _ in range(DOUBT_PROBES):
            # What was under way when the report came does not count: only the last wait does.
            received = self._received_packets()
            asked_at = self._loop.time()
            is_there = await self._probe(timeout_seconds=seconds)
            # The wait bounds how often a caller is asked who answers, however many reports come.
            await asyncio.sleep(asked_at + seconds - self._loop.time())
            if is_there:
                return
        if self._received_packets() == received:
            self._on_gone("nobody listens at the caller's address any more")

    def _ice_connections(self) -> list[Any]:
        return [transport.transport._connection for transport in self._transports]

    def _received_packets(self) -> int:
        counted = 0
        for transport in self._transports:
            report = transport._get_stats()
            counted += sum(entry.packetsReceived for entry in report.values())
        return counted

    async def _probe(self, *, timeout_seconds: float | None = None) -> bool:
        """Ask the caller's ICE agent for a sign of life (RFC 7675), and take the time."""
        connection = self._ice_connections()[0]
        pair = next(iter(connection._nominated.values()), None)
        if pair is None or connection.remote_password is None:
            return False
        asked_at = self._loop.time()
        try:
            async with asyncio.timeout(timeout_seconds):
                await pair.protocol.request(
                    connection.build_request(pair, nominate=False),
                    pair.remote_addr,
                    integrity_key=connection.remote_password.encode(),
                    retransmissions=PROBE_RETRANSMISSIONS,
                )
        except Exception as error:  # noqa: BLE001  # a lost probe has many names: transaction, connection, OS errors
            log.debug("probe_unanswered", error=repr(error))
            return False
        self.round_trip_seconds = self._loop.time() - asked_at
        return True
