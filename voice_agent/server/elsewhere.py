"""Elsewhere: requests about what another node has reach that node; between the door and the web application.

Who owns a session says its record in the store; who holds a WebRTC call, its address. The owner is asked once, with the
caller's credentials, and its answer is the answer. A request that was passed on goes through two nodes at most and never
back to one that it came through; what is not found then is not there.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from time import time
from typing import Any, Final, NoReturn

import attrs
import structlog
import trio

from voice_agent.access.admitted import admitted
from voice_agent.access.client import Client
from voice_agent.cluster.beat import Beat
from voice_agent.cluster.passage import HEADER, MAX_HOPS, Passage, PassageError
from voice_agent.cluster.passing import Headers, Receive, Request, Send, without_hop_by_hop
from voice_agent.core.errors import StoreCorruptError, StoreUnavailableError
from voice_agent.core.identity import Identity
from voice_agent.core.identity import Scope as AccessScope
from voice_agent.core.journal import RecordState, SessionRecord
from voice_agent.core.request_errors import (
    BodyTooLargeError,
    NodeAwayError,
    NodeSilentError,
    NotPassedOnError,
    PassageRefusedError,
    UnavailableError,
)
from voice_agent.core.units import SECONDS
from voice_agent.observability.cluster_metrics import ClusterMetrics
from voice_agent.server.clustering import Clustering
from voice_agent.server.everywhere import MAX_ASKED, Captured, merged_page
from voice_agent.server.ticket_exchange import INTERNAL_TICKETS, TicketOffice
from voice_agent.session.registry import CallRegistry
from voice_agent.session.store.protocol import Store
from voice_agent.session.summary import SessionState
from voice_agent.web.app import MAX_BODY_BYTES
from voice_agent.web.session_routes import PATH as SESSIONS_PATH
from voice_agent.web.webrtc_routes import PATH as WEBRTC_PATH

Scope = Mapping[str, Any]
Asgi = Callable[[Scope, Any, Any], Awaitable[None]]

FIND_SECONDS: Final = 2 * SECONDS
"""The store says who owns a session within this time, or nobody knows."""
MAX_ID_CHARACTERS: Final = 128
SESSION_ID: Final = re.compile(r"[0-9A-Za-z_-]+", re.ASCII)
"""What this server's own look like; nothing else is asked for."""

_HEADER: Final = HEADER.encode()
_REPLACED: Final = frozenset({_HEADER, b"content-length", b"expect"})
_SESSION: Final = re.compile(rf"{SESSIONS_PATH}/(?P<id>[^/]+)(?P<events>/events)?")
_CALL: Final = re.compile(rf"{WEBRTC_PATH}/(?P<key>[^/]+)")
_READS: Final = frozenset({"GET", "HEAD"})

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Crossing:
    """A request that the door has let in: as it came, as those inside see it, and how it came."""

    outside: Scope = attrs.field(repr=False)
    inside: Scope = attrs.field(repr=False)
    client: Client
    passage: Passage | None

    @property
    def method(self) -> str:
        """The request's method."""
        return str(self.outside["method"])

    @property
    def path(self) -> str:
        """The request's path."""
        return str(self.outside["path"])

    @property
    def identity(self) -> Identity | None:
        """Who sent it."""
        return admitted(self.inside).identity

    @property
    def via(self) -> tuple[str, ...]:
        """The nodes that it came through."""
        return () if self.passage is None else self.passage.via


def client_of(passage: Passage) -> Client:
    """Return the client that a passed request is from."""
    return Client(
        address=passage.address,
        scheme=passage.scheme,
        host=passage.host,
        came_by_proxy=passage.came_by_proxy,
    )


def target_of(scope: Scope) -> bytes:
    """Return path and query as they came."""
    query = scope.get("query_string", b"")
    return bytes(scope["raw_path"] + (b"?" + query if query else b""))


@attrs.frozen(kw_only=True)
class Elsewhere:
    """What other nodes have to do with requests to this one."""

    web: Asgi
    clustering: Clustering
    """Without a signer nothing is passed on, and nobody's word is taken."""
    registry: CallRegistry
    store: Store | None
    tickets: TicketOffice
    metrics: ClusterMetrics
    now: Callable[[], float] = time

    def passage_of(self, scope: Scope) -> Passage | None:
        """Return what another node says of the request; None when it comes from a client.

        Raises:
            PassageRefusedError: something is said that can't be believed.
        """
        values = [value for name, value in scope["headers"] if name == _HEADER]
        if self.clustering.signer is None or not values:
            return None
        try:
            return self.clustering.signer.read(
                values[0].decode("latin-1"),
                method=scope.get("method", ""),
                target=target_of(scope),
                now=self.now(),
            )
        except PassageError as error:
            log.warning("passage_refused", fault=str(error.fault))
            raise PassageRefusedError(f"The passage can't be believed: {error.fault}.") from None

    async def serve(self, crossing: Crossing, receive: Receive, send: Send) -> None:
        """Answer, or have the node answer whose business it is.

        Raises:
            UnavailableError: another node would have to answer, and can't; nothing has been sent.
            CallerError: the request can't be passed on; nothing has been sent.
        """
        if crossing.path == INTERNAL_TICKETS and crossing.passage is not None:
            await self.tickets.answer(await read_body(receive), send)
            return
        if self._concerns_all(crossing):
            await self._list_everywhere(crossing, receive, send)
            return
        owner = await self._owner(crossing)
        if owner is None:
            await self.web(crossing.inside, receive, send)
        else:
            await self._pass_on(owner, crossing, receive, send)

    # -- whose business it is -------------------------------------------------------------------------------------

    async def _owner(self, crossing: Crossing) -> Beat | None:
        """Return the other node that has to answer; None when it is this one."""
        if crossing.identity is None or len(crossing.via) >= MAX_HOPS:
            return None
        if (found := _SESSION.fullmatch(crossing.path)) is not None and (
            crossing.method in _READS or (crossing.method == "DELETE" and not found["events"])
        ):
            owner = await self._owner_of_session(crossing, found["id"], crossing.identity)
        elif (found := _CALL.fullmatch(crossing.path)) is not None and (
            crossing.method in _READS | {"PATCH", "DELETE"}
        ):
            owner = self._holder_of_call(found["key"])
        else:
            return None
        return None if owner is None or owner.node in crossing.via else owner

    async def _owner_of_session(self, crossing: Crossing, session_id: str, who: Identity) -> Beat | None:
        known = self.registry.find_summary(session_id)
        if (known is not None and known.state is not SessionState.ENDED) or len(
            session_id
        ) > MAX_ID_CHARACTERS:
            return None
        try:
            record = await self._record(session_id)
        except UnavailableError:
            if (owner := await self._who_has(crossing, session_id)) is not None:
                return owner
            raise
        if record is None:
            return None if known is not None else await self._who_has(crossing, session_id)
        if record.node == self.clustering.membership.node or not who.sees(record.tenant):
            return None
        if known is not None and record.state is not RecordState.OPEN:
            return None  # it ended here; it didn't go on elsewhere
        owner = self.clustering.membership.find(record.node)
        is_owned = record.state is RecordState.OPEN and record.lease_until > self.now()
        if self.clustering.signer is None and is_owned:
            self._no_secret()
        if owner is None and is_owned:
            self.metrics.passed_on_total.labels("away").inc()
            raise NodeAwayError(f"The node {record.node} has it, and nothing is heard of it.")
        return owner if self.clustering.signer is not None else None

    async def _record(self, session_id: str) -> SessionRecord | None:
        if self.store is None:
            return None
        try:
            with trio.fail_after(FIND_SECONDS):
                return await self.store.record(session_id)
        except (StoreUnavailableError, trio.TooSlowError) as error:
            raise UnavailableError("Who has the session can't be found out now; try again soon.") from error
        except StoreCorruptError:
            return None

    async def _who_has(self, crossing: Crossing, session_id: str) -> Beat | None:
        """Ask all nodes for a session of which the store says nothing: nothing of it is kept, or the store is away.

        Only those who may look at sessions have others asked, and nobody asks on behalf of another node.
        """
        who = crossing.identity
        if crossing.passage is not None or self.clustering.signer is None or who is None:
            return None
        if not who.may(AccessScope.OBSERVE) or not SESSION_ID.fullmatch(session_id):
            return None
        found: list[Beat] = []
        look = attrs.evolve(
            crossing,
            outside={
                **crossing.outside,
                "method": "GET",
                "raw_path": f"{SESSIONS_PATH}/{session_id}".encode(),
                "query_string": b"",
            },
        )

        async def ask(node: Beat) -> None:
            try:
                status, _ = await self.clustering.couriers.ask(node, self.request_to(node, look))
            except (NodeAwayError, NodeSilentError):
                return
            if status == HTTPStatus.OK:
                found.append(node)

        async with trio.open_nursery() as nursery:
            for sighting in self.clustering.membership.others[:MAX_ASKED]:
                nursery.start_soon(ask, sighting.beat)
        return found[0] if found else None

    def _holder_of_call(self, key: str) -> Beat | None:
        tag = self.clustering.handles.maker_of(key)
        if tag is None:
            return None
        holder = self.clustering.membership.find_by_tag(tag)
        if holder is None:
            self.metrics.passed_on_total.labels("away").inc()
            raise NodeAwayError("The node that has the call is not there.")
        return holder

    def _no_secret(self) -> NoReturn:
        self.metrics.passed_on_total.labels("no_secret").inc()
        raise NotPassedOnError("Another node has it; nodes pass requests on when they have a cluster.secret.")

    # -- all of them ----------------------------------------------------------------------------------------------

    def _concerns_all(self, crossing: Crossing) -> bool:
        return (
            (crossing.method, crossing.path) == ("GET", SESSIONS_PATH)
            and self.clustering.signer is not None
            and crossing.identity is not None
            and crossing.passage is None
            and bool(self.clustering.membership.others)
        )

    async def _list_everywhere(self, crossing: Crossing, receive: Receive, send: Send) -> None:
        own = Captured()
        await self.web(crossing.inside, receive, own.send)
        if not own.is_page:
            await own.pass_on(send)
            return

        async def ask(node: Beat) -> tuple[int, bytes]:
            return await self.clustering.couriers.ask(node, self.request_to(node, crossing))

        others = [sighting.beat for sighting in self.clustering.membership.others]
        query = crossing.outside.get("query_string", b"")
        await own.pass_on(send, await merged_page(bytes(own.body), query, others, ask))

    # -- passing on -----------------------------------------------------------------------------------------------

    async def _pass_on(self, owner: Beat, crossing: Crossing, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        request = self.request_to(owner, crossing, body)
        began_at = trio.current_time()
        outcome = "answered"
        try:
            status = await self.clustering.couriers.pass_on(owner, request, receive, send)
        except (NodeAwayError, NodeSilentError) as error:
            outcome = "away" if isinstance(error, NodeAwayError) else "silent"
            log.warning(
                "not_passed_on", node=owner.node, reason=error.message, cause=str(error.__cause__ or "")
            )
            raise
        else:
            log.debug("passed_on", node=owner.node, method=crossing.method, status=status)
        finally:
            self.metrics.passed_on_total.labels(outcome).inc()
            if not crossing.path.endswith("/events"):
                self.metrics.passed_on_seconds.observe(trio.current_time() - began_at)

    def request_to(self, node: Beat, crossing: Crossing, body: bytes = b"") -> Request:
        """Return a client's request as it is sent to another node: with its credentials, and where it came from."""
        assert self.clustering.signer is not None  # noqa: S101 (nobody is found without a secret)
        target = target_of(crossing.outside)
        passage = Passage(
            to=node.node,
            via=(*crossing.via, self.clustering.membership.node),
            at=self.now(),
            address=crossing.client.address,
            scheme=crossing.client.scheme,
            host=crossing.client.host,
            came_by_proxy=crossing.client.came_by_proxy,
        )
        headers: Headers = [
            (name, value)
            for name, value in without_hop_by_hop(list(crossing.outside["headers"]))
            if name not in _REPLACED
        ]
        signed = self.clustering.signer.sign(passage, method=crossing.method, target=target)
        return Request(
            method=crossing.method, target=target, headers=[*headers, (_HEADER, signed.encode())], body=body
        )


async def read_body(receive: Receive) -> bytes:
    """Return the request's body; how long it may take is the connection guard's business.

    Raises:
        BodyTooLargeError: it is larger than any request's.
        UnavailableError: the client is gone, and nobody reads the answer.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise UnavailableError("The client is gone.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLargeError(f"the body is over the limit of {MAX_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)
