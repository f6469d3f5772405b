"""CallDesk: the ASGI entry of WebSocket calls; admits a call, then gives it a session."""

from contextlib import AbstractContextManager
from functools import partial

import attrs

from voice_agent.access.admitted import admitted
from voice_agent.access.caller import Caller
from voice_agent.access.limiter import FULL_RETRY_SECONDS, Limiter
from voice_agent.access.rate_fields import retry_after_field
from voice_agent.access.refusal import Refusal, identity_for
from voice_agent.core.commands import CallOptions
from voice_agent.core.events import CloseRecord
from voice_agent.core.identity import Scope as AccessScope
from voice_agent.core.request_errors import (
    ClusterAwayError,
    ServerDrainingError,
    ServerFullError,
    ServerOverloadedError,
    StoreAwayError,
    UnavailableError,
)
from voice_agent.core.transport import Transport, Wire
from voice_agent.server.admission import Admission
from voice_agent.server.reception import receive, resumed_session
from voice_agent.session.call_limits import CallLimits
from voice_agent.session.open import open_session
from voice_agent.session.registry import CallRegistry, Place
from voice_agent.session.services import Services
from voice_agent.session.store.writer import StoreState
from voice_agent.settings.current import SCOPE_KEY, CurrentSettings, InForce
from voice_agent.transports.message_rate import MessageRate
from voice_agent.transports.websocket.endpoint import (
    Receive,
    Scope,
    Send,
    handle_websocket,
    refuse_handshake,
)


@attrs.define(kw_only=True)
class CallDesk:
    """Admits callers while the server is open and has room."""

    services: Services
    registry: CallRegistry
    settings: CurrentSettings = attrs.field(
        default=attrs.Factory(lambda desk: CurrentSettings(desk.services.settings), takes_self=True)
    )
    """What is in force for the calls to come; the limits follow it while a call lasts."""
    limiter: Limiter | None = None
    """How often one caller may call; None counts nobody."""
    admission: Admission | None = None
    """Whether another call would spoil the running ones; None never asks."""
    is_open: bool = True
    """False while the server drains."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket connection (ASGI)."""
        identity = identity_for(AccessScope.CALL, admitted(scope))
        if isinstance(identity, Refusal):
            refusal: Refusal | None = identity
            self.count_refusal(identity)
        else:
            caller = Caller(identity, admitted(scope).address, resumed_session(scope))
            refusal = self.admit(caller)
        if refusal is not None:
            await refuse_handshake(
                scope,
                send,
                status=refusal.error.status,
                code=refusal.error.code,
                detail=refusal.error.message,
                headers=refusal.headers,
            )
            return
        # The connection below has taken its limits from the same settings.
        services = self.services_for((scope.get("state") or {}).get(SCOPE_KEY) or self.settings.in_force)
        settings = services.settings
        with self.place(caller) as place:
            await handle_websocket(
                scope,
                receive,
                send,
                settings=settings.websocket,
                serve_call=partial(self._serve_call, services, place, caller),
                defaults=CallOptions(partials=settings.recogniser.partials),
                messages=self.message_rate(),
            )

    def admit(self, caller: Caller) -> Refusal | None:
        """Return why no call is taken now from the caller; None when one is, which is counted, as refusals are."""
        refusal = self.room_for(caller) or self._load_refusal()
        if refusal is None and self.limiter is not None:
            verdict = self.limiter.begins_call(caller)
            if verdict.refusal is not None:
                refusal = attrs.evolve(verdict.refusal, headers=(*verdict.refusal.headers, *verdict.headers))
        if refusal is not None:
            self.count_refusal(refusal)
        elif self.admission is not None:
            self.admission.let_in()
        return refusal

    @property
    def is_overloaded(self) -> bool:
        """Whether another call would spoil the running ones."""
        return self.admission is not None and self.admission.is_refusing

    def _load_refusal(self) -> Refusal | None:
        if not self.is_overloaded:
            return None
        return _come_again(
            ServerOverloadedError("Another call would spoil the running ones; try again soon.")
        )

    def room_for(self, caller: Caller) -> Refusal | None:
        """Return why there is no room for a call of the caller; None when there is."""
        if not self.is_open:
            return _come_again(ServerDrainingError("The server is shutting down and takes no new calls."))
        # Who goes on with a session takes the place of its former connection.
        goes_on = self._replaced_by(caller) is not None
        if self.registry.is_full and not goes_on:
            return _come_again(ServerFullError("The server has as many calls as it takes; try again soon."))
        storage = self.services.storage
        if storage is not None and storage.writer.state is StoreState.FULL:
            return _come_again(StoreAwayError("No new session can be kept at the moment; try again soon."))
        if self.limiter is not None and self.limiter.shared.is_blind:
            return _come_again(
                ClusterAwayError(
                    "Nothing is heard of the other nodes, and calls are counted over all; try again soon."
                )
            )
        if self.limiter is None or (holder := self.limiter.holder(caller)) is None:
            return None
        return self.limiter.has_too_many(caller, self.registry.held_by(holder) - goes_on)

    def place(self, caller: Caller) -> AbstractContextManager[Place]:
        """Hold a place for a call of the caller, who was admitted a moment ago."""
        holder = None if self.limiter is None else self.limiter.holder(caller)
        return self.registry.place(holder, replaces=self._replaced_by(caller))

    def _replaced_by(self, caller: Caller) -> str | None:
        """Return the session of which a caller says that it goes on with it, if it has a connection here that is the caller's."""
        return caller.resumes if self.registry.may_replace(caller.resumes, caller.identity) else None

    def count_refusal(self, refusal: Refusal) -> None:
        """Count a call that did not begin."""
        self.services.metrics.calls_refused_total.labels(refusal.error.code).inc()

    def services_for(self, in_force: InForce) -> Services:
        """Return what a call works with that begins under these settings, and keeps them."""
        return attrs.evolve(self.services, settings=in_force.settings, settings_version=in_force.version)

    def message_rate(self) -> MessageRate:
        """Return what holds a new call's rate of messages."""
        return MessageRate(lambda: self.settings.now.limits.max_messages_per_second)

    async def _serve_call(
        self, services: Services, place: Place, caller: Caller, transport: Transport
    ) -> CloseRecord:
        received = await receive(
            transport, caller.identity, services, self.registry, must_resume=place.replaces
        )
        async with open_session(
            services,
            received.transport,
            identity=caller.identity,
            wire=Wire.WEBSOCKET,
            limits=CallLimits(self.settings),
            resumed=received.resumed,
        ) as session:
            place.hold(session)
            await session.heard_all.wait()
        assert session.record is not None  # noqa: S101 (open_session sets it before it returns)
        return session.record


def _come_again(error: UnavailableError) -> Refusal:
    return Refusal(error=error, headers=(retry_after_field(FULL_RETRY_SECONDS),))
