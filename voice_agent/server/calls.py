"""CallDesk: the ASGI entry of WebSocket calls; admits a call, then gives it a session."""

from functools import partial
from http import HTTPStatus
from typing import Final

import attrs

from voice_agent.access.admitted import admitted
from voice_agent.access.refusal import Refusal, identity_for
from voice_agent.core.commands import CallOptions
from voice_agent.core.events import CloseRecord
from voice_agent.core.identity import Identity
from voice_agent.core.identity import Scope as AccessScope
from voice_agent.core.transport import Transport, Wire
from voice_agent.session.call_limits import CallLimits
from voice_agent.session.open import open_session
from voice_agent.session.registry import CallRegistry, Place
from voice_agent.session.services import Services
from voice_agent.settings.current import SCOPE_KEY, CurrentSettings, InForce
from voice_agent.transports.message_rate import MessageRate
from voice_agent.transports.websocket.endpoint import (
    Receive,
    Scope,
    Send,
    handle_websocket,
    refuse_handshake,
)

RETRY_AFTER_SECONDS: Final = 5


@attrs.define(kw_only=True)
class CallDesk:
    """Admits callers while the server is open and has room."""

    services: Services
    registry: CallRegistry
    settings: CurrentSettings = attrs.field(
        default=attrs.Factory(lambda desk: CurrentSettings(desk.services.settings), takes_self=True)
    )
    """What is in force for the calls to come; the limits follow it while a call lasts."""
    is_open: bool = True
    """False while the server drains."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one WebSocket connection (ASGI)."""
        caller = identity_for(AccessScope.CALL, admitted(scope))
        if isinstance(caller, Refusal):
            self.services.metrics.calls_refused_total.labels(caller.error.code).inc()
            await refuse_handshake(
                scope,
                send,
                status=caller.error.status,
                code=caller.error.code,
                detail=caller.error.message,
                headers=caller.headers,
            )
            return
        cause = self.refusal()
        if cause is not None:
            self.services.metrics.calls_refused_total.labels(cause).inc()
            await refuse_handshake(
                scope,
                send,
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                code=cause,
                detail="The server takes no new calls now; try again soon.",
                headers=[(b"retry-after", str(RETRY_AFTER_SECONDS).encode())],
            )
            return
        # The connection below has taken its limits from the same settings.
        services = self.services_for((scope.get("state") or {}).get(SCOPE_KEY) or self.settings.in_force)
        settings = services.settings
        with self.registry.place() as place:
            await handle_websocket(
                scope,
                receive,
                send,
                settings=settings.websocket,
                serve_call=partial(self._serve_call, services, place, caller),
                defaults=CallOptions(partials=settings.recogniser.partials),
                messages=self.message_rate(),
            )

    def refusal(self) -> str | None:
        """Return why no call is taken now: ``draining`` or ``full``; None while calls are taken."""
        if not self.is_open:
            return "draining"
        return "full" if self.registry.is_full else None

    def services_for(self, in_force: InForce) -> Services:
        """Return what a call works with that begins under these settings, and keeps them."""
        return attrs.evolve(self.services, settings=in_force.settings, settings_version=in_force.version)

    def message_rate(self) -> MessageRate:
        """Return what holds a new call's rate of messages."""
        return MessageRate(lambda: self.settings.now.limits.max_messages_per_second)

    async def _serve_call(
        self, services: Services, place: Place, identity: Identity, transport: Transport
    ) -> CloseRecord:
        async with open_session(
            services,
            transport,
            identity=identity,
            wire=Wire.WEBSOCKET,
            limits=CallLimits(self.settings),
        ) as session:
            place.hold(session)
            await session.heard_all.wait()
        assert session.record is not None  # noqa: S101 (open_session sets it before it returns)
        return session.record
