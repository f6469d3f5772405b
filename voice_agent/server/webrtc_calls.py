"""WebRtcCalls: the WebRTC calls of a server; each is one task, from its offer to its close record.

A request begins a call and goes away; so a call can't live in its request's task. It lives in the server's nursery,
whose scope ends after the last call has been drained. The offer is answered by the call's own task: what fails before
the answer fails the request, and leaves nothing behind.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import time
from typing import cast

import attrs
import structlog
import trio

from voice_agent.access.caller import Caller
from voice_agent.access.refusal import Refusal
from voice_agent.core.commands import CallOptions, Resume
from voice_agent.core.errors import TooManyCandidatesError, TransportBrokenError
from voice_agent.core.events import CloseReason
from voice_agent.core.identity import Identity
from voice_agent.core.transport import Wire
from voice_agent.server.calls import CallDesk
from voice_agent.server.reception import go_on_with
from voice_agent.session.call_limits import CallLimits
from voice_agent.session.open import open_session
from voice_agent.session.registry import Place
from voice_agent.session.resuming import Resumed
from voice_agent.session.services import Services
from voice_agent.session.session import Session
from voice_agent.settings.lists import split_list
from voice_agent.settings.schema import Settings
from voice_agent.transports.webrtc.candidates import AddressPolicy
from voice_agent.transports.webrtc.config import IceServer, PeerConfig
from voice_agent.transports.webrtc.endpoint import WebRtcTransport
from voice_agent.transports.webrtc.peer import Peer
from voice_agent.transports.webrtc.sdp import Offer, complete_answer
from voice_agent.transports.webrtc.server_names import ServerNames
from voice_agent.transports.webrtc.signalling import Fragment, new_call_key, new_etag
from voice_agent.transports.webrtc.turn import ice_servers, link_headers
from voice_agent.web.webrtc_routes import CallRefusedError, OpenedCall

log = structlog.get_logger(__name__)


OpenPeer = Callable[[PeerConfig], Awaitable[Peer]]


@attrs.define(eq=False, kw_only=True)
class WebRtcCall:
    """One open call, as signalling sees it."""

    identity: Identity
    etag: str
    username_fragment: str
    peer: Peer
    candidates_left: int
    session: Session | None = None
    """None until the offer has been answered."""

    async def add_candidates(self, fragment: Fragment) -> None:
        """Try more of the caller's candidates.

        Raises:
            TooManyCandidatesError: the call has had as many as are taken.
        """
        if fragment.candidates_offered > self.candidates_left:
            raise TooManyCandidatesError("the call has offered too many candidates", field="a=candidate")
        self.candidates_left -= fragment.candidates_offered
        try:
            await self.peer.add_candidates(fragment.candidates, is_complete=fragment.is_last)
        except TransportBrokenError:
            log.debug("candidates_too_late")

    def end(self) -> None:
        """End the call in order; the first decision counts."""
        if self.session is not None:
            self.session.end(CloseReason.STOPPED)


class WebRtcCalls:
    """The desk of WebRTC calls; use :func:`open_webrtc_calls` to get one."""

    def __init__(
        self,
        desk: CallDesk,
        nursery: trio.Nursery,
        open_peer: OpenPeer,
        new_key: Callable[[], str] = new_call_key,
    ) -> None:
        """``new_key`` makes the last part of a call's address, which nobody may be able to guess."""
        self._desk = desk
        self._nursery = nursery
        self._open_peer = open_peer
        self._new_key = new_key
        self._calls: dict[str, WebRtcCall] = {}
        self._server_names = ServerNames()

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def policy(self) -> AddressPolicy:
        """Which candidates are taken now."""
        settings = self._desk.settings.now.webrtc
        return AddressPolicy(
            allow_loopback=settings.allow_loopback_candidates, max_candidates=settings.max_candidates
        )

    @property
    def max_offer_bytes(self) -> int:
        """The largest body of a request now."""
        return self._desk.settings.now.webrtc.max_offer_bytes

    @property
    def defaults(self) -> CallOptions:
        """The options of a caller who does not choose now."""
        return CallOptions(partials=self._desk.settings.now.recogniser.partials)

    def admit(self, caller: Caller) -> Refusal | None:
        """As :meth:`voice_agent.server.calls.CallDesk.admit`."""
        return self._desk.admit(caller)

    def find(self, key: str, identity: Identity) -> WebRtcCall | None:
        """Return the open call with the key, if it is this identity's; anybody else's is as good as unknown."""
        call = self._calls.get(key)
        return call if call is not None and call.identity.is_same_as(identity) else None

    async def open_call(
        self, offer: Offer, options: CallOptions, caller: Caller, resume: Resume | None = None
    ) -> OpenedCall:
        """Begin a call and answer its offer; it goes on by itself. Cancelled before the answer, it ends.

        With ``resume`` a session goes on; it is taken over when the offer is known to be one that can be served.

        Raises:
            CallRefusedError: there is no room any more.
            CallerError: the offer can't be served after all, or the session can't be resumed.
        """
        return cast("OpenedCall", await self._nursery.start(self._hold, offer, options, caller, resume))

    async def _hold(
        self,
        offer: Offer,
        options: CallOptions,
        caller: Caller,
        wish: Resume | None,
        task_status: trio.TaskStatus[OpenedCall],
    ) -> None:
        """The whole life of one call; what is raised before the answer is the request's, later nothing is raised."""
        # The caller was admitted, but others may have come while the offer was read.
        if (refusal := self._desk.room_for(caller)) is not None:
            self._desk.count_refusal(refusal)
            raise CallRefusedError(refusal)
        with self._desk.place(caller) as place:
            services = self._desk.services_for(self._desk.settings.in_force)
            settings = services.settings
            servers = ice_servers(settings.webrtc, unix_seconds=time())
            reachable = await self._server_names.resolved(servers)
            peer = await self._open_peer(_peer_config(settings, reachable))
            try:
                answer = complete_answer(await peer.answer(offer.text), offer)
                call = WebRtcCall(
                    identity=caller.identity,
                    etag=new_etag(),
                    username_fragment=offer.username_fragment,
                    peer=peer,
                    candidates_left=settings.webrtc.max_candidates
                    - len(offer.candidates)
                    - offer.candidates_dropped,
                )
                opened = OpenedCall(
                    key=self._new_key(), etag=call.etag, answer=answer, links=link_headers(servers)
                )
                resumed = None
                if wish is not None:
                    resumed = await go_on_with(wish, caller.identity, services, self._desk.registry)
                await self._converse(services, place, call, opened, options, resumed, task_status)
            finally:
                await peer.aclose()

    async def _converse(
        self,
        services: Services,
        place: Place,
        call: WebRtcCall,
        opened: OpenedCall,
        options: CallOptions,
        resumed: Resumed | None,
        task_status: trio.TaskStatus[OpenedCall],
    ) -> None:
        transport = WebRtcTransport(call.peer, options, self._desk.message_rate())
        try:
            async with open_session(
                services,
                transport,
                identity=call.identity,
                wire=Wire.WEBRTC,
                limits=CallLimits(self._desk.settings),
                resumed=resumed,
            ) as session:
                call.session = session
                self._calls[opened.key] = call
                place.hold(session)
                task_status.started(opened)
                await session.heard_all.wait()
        except Exception:
            # A defect ends one call; the nursery is every call's.
            log.exception("webrtc_call_crashed")
        finally:
            self._calls.pop(opened.key, None)


def _peer_config(settings: Settings, servers: tuple[IceServer, ...]) -> PeerConfig:
    webrtc = settings.webrtc
    return PeerConfig(
        ice_servers=servers,
        allowed_networks=split_list(webrtc.allowed_networks),
        allowed_interfaces=split_list(webrtc.allowed_interfaces),
        is_relay_only=webrtc.relay_only,
        setup_timeout_seconds=webrtc.setup_timeout_seconds,
        media_timeout_seconds=webrtc.media_timeout_seconds,
        max_candidates=webrtc.max_candidates,
        close_timeout_seconds=settings.session.close_timeout_seconds,
    )


@asynccontextmanager
async def open_webrtc_calls(
    desk: CallDesk, open_peer: OpenPeer, new_key: Callable[[], str] = new_call_key
) -> AsyncIterator[WebRtcCalls]:
    """Hold the nursery of WebRTC calls; leaving it cancels those that a drain has left."""
    async with trio.open_nursery() as nursery:
        try:
            yield WebRtcCalls(desk, nursery, open_peer, new_key)
        finally:
            nursery.cancel_scope.cancel()
