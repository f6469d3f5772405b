"""The door: everything that enters passes here, HTTP requests and WebSocket handshakes alike.

::

    client address    behind trusted proxies
    → origin          pages of strangers are refused, allowed ones get their CORS headers
    → turnstile       how often this address comes
    → credentials     taken out of the request, and shown to the authenticator
    → turnstile       how often this identity comes
    → elsewhere       to the node that has what the request is about, where that is another one
    → web or desk     with Admitted in the scope, and no secret in it

Who showed wrong credentials is let on as nobody: public addresses serve everybody, so that a stale header fails no
health check; every other one answers 401. While no keys are configured, what is shown is not looked at, for it may be
meant for a proxy before the server.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs

from voice_agent.access.admitted import SCOPE_KEY, Admitted
from voice_agent.access.anonymous import Strangers, asks_who
from voice_agent.access.authenticator import Authenticator, Credentials
from voice_agent.access.client import Client, TrustedProxies
from voice_agent.access.origins import AllowedOrigins, Standing, cors_headers, foreign, may_insist_on_tls
from voice_agent.access.presented import AmbiguousError, take_credentials
from voice_agent.access.refusal import Refusal, ambiguous
from voice_agent.access.turnstile import OpenTurnstile, Turnstile
from voice_agent.core.errors import CallerError, UnauthenticatedError
from voice_agent.core.problem import PROBLEM_TYPE, Problem
from voice_agent.core.request_errors import PassageRefusedError, TooManyFailuresError, UnavailableError
from voice_agent.server.elsewhere import Crossing, Elsewhere, client_of
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.lists import networks, split_list
from voice_agent.transports.websocket.endpoint import Receive, Scope, Send, refuse_handshake

Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

UNCOUNTED_PATHS: Final = frozenset({"/healthz", "/readyz"})
"""An orchestrator that asks from an address that callers share must not take a busy server for a dead one."""

_OPEN: Final = OpenTurnstile()
_SCHEMES: Final = {
    ("http", "http"): "http",
    ("http", "https"): "https",
    ("websocket", "http"): "ws",
    ("websocket", "https"): "wss",
}
_WITH_HEADERS: Final = frozenset({"http.response.start", "websocket.http.response.start", "websocket.accept"})


@attrs.define(kw_only=True)
class Door:
    """An ASGI application before two others."""

    web: Asgi
    """HTTP requests."""
    desk: Asgi
    """WebSocket calls."""
    settings: CurrentSettings
    host: str
    """Where the server listens."""
    authenticator: Authenticator
    turnstile: Turnstile = attrs.field(factory=OpenTurnstile)
    elsewhere: Elsewhere | None = None
    """What other nodes have to do with a request; None where there are none."""
    _rules: "_Rules | None" = attrs.field(init=False, default=None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or handshake (ASGI)."""
        rules = self._rules_in_force()
        try:
            passage = None if self.elsewhere is None else self.elsewhere.passage_of(scope)
        except PassageRefusedError as error:
            answer = _Answer(scope=scope, send=send, standing=Standing.NO_PAGE)
            await answer.refuse(Refusal(error=error))
            return
        client = rules.proxies.find_client(scope) if passage is None else client_of(passage)
        answer = _Answer(scope=scope, send=send, standing=rules.origins.standing(scope, client))
        if may_insist_on_tls(client) and rules.hsts_seconds:
            answer.headers.append((b"strict-transport-security", b"max-age=%d" % rules.hsts_seconds))
        inside = await self._let_in(scope, client, rules, answer, is_counted=passage is None)
        if isinstance(inside, Refusal):
            await answer.refuse(inside)
        elif scope["type"] == "websocket":
            await self.desk(inside, receive, answer.pass_on)
        elif self.elsewhere is not None:
            crossing = Crossing(outside=scope, inside=inside, client=client, passage=passage)
            try:
                await self.elsewhere.serve(crossing, receive, answer.pass_on)
            except (CallerError, UnavailableError) as error:
                await answer.refuse(Refusal(error=error))
        else:
            await self.web(inside, receive, answer.pass_on)

    async def _let_in(
        self, scope: Scope, client: Client, rules: "_Rules", answer: "_Answer", *, is_counted: bool
    ) -> Scope | Refusal:
        """Return the scope as those inside see it, or why nobody inside sees it."""
        if answer.standing is Standing.FOREIGN:
            return foreign()
        turnstile = self.turnstile if is_counted and scope["path"] not in UNCOUNTED_PATHS else _OPEN
        verdict = turnstile.arrives(client.address)
        answer.headers.extend(verdict.headers)
        if verdict.refusal is not None:
            return verdict.refusal
        try:
            credentials, inside = take_credentials(scope)
        except AmbiguousError:
            return ambiguous()
        admitted = await self._identify(credentials, client, answer.standing, rules)
        if admitted.identity is not None:
            verdict = turnstile.enters(client.address, admitted.identity)
            answer.headers.extend(verdict.headers)
            if verdict.refusal is not None:
                return verdict.refusal
        return {
            **inside,
            "client": (client.address, 0),
            "scheme": _SCHEMES[scope["type"], client.scheme],
            SCOPE_KEY: admitted,
        }

    async def _identify(
        self, credentials: Credentials, client: Client, standing: Standing, rules: "_Rules"
    ) -> Admitted:
        if not rules.asks_who or not credentials.are_shown:
            stranger = rules.strangers.identify(client, standing)
            return Admitted(identity=stranger, address=client.address)
        try:
            identity = await self.authenticator.identify(credentials, address=client.address)
        except (UnauthenticatedError, TooManyFailuresError, UnavailableError) as fault:
            return Admitted(identity=None, address=client.address, fault=fault)
        return Admitted(identity=identity, address=client.address)

    def _rules_in_force(self) -> "_Rules":
        if self._rules is None or self._rules.version != self.settings.version:
            self._rules = _Rules.of(self.settings, self.host)
        return self._rules


@attrs.frozen(kw_only=True)
class _Rules:
    """What the settings of one version say, read once."""

    version: int
    proxies: TrustedProxies
    origins: AllowedOrigins
    strangers: Strangers
    asks_who: bool
    hsts_seconds: int

    @classmethod
    def of(cls, settings: CurrentSettings, host: str) -> "_Rules":
        access = settings.now.access
        return cls(
            version=settings.version,
            proxies=TrustedProxies(networks=networks(access.trusted_proxies), header=access.proxy_header),
            origins=AllowedOrigins.parse(split_list(access.allowed_origins)),
            strangers=Strangers.of(access, host=host),
            asks_who=asks_who(access),
            hsts_seconds=settings.now.server.hsts_seconds,
        )


@attrs.frozen(kw_only=True)
class _Answer:
    """What goes back to the client, and what the door adds to it."""

    scope: Scope
    send: Send
    standing: Standing
    headers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    """For whatever answer comes."""

    async def refuse(self, refusal: Refusal) -> None:
        """Answer in the place of the application."""
        error = refusal.error
        if self.scope["type"] == "websocket":
            await refuse_handshake(
                self.scope,
                self.pass_on,
                status=error.status,
                code=error.code,
                detail=error.message,
                field=error.field,
                headers=refusal.headers,
            )
            return
        body = Problem.of(error).to_json().encode()
        headers = [
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            *refusal.headers,
        ]
        await self.pass_on({"type": "http.response.start", "status": int(error.status), "headers": headers})
        await self.pass_on({"type": "http.response.body", "body": body})

    async def pass_on(self, message: dict[str, Any]) -> None:
        """Send a message of those inside; the one that has the headers gets the door's too."""
        if message["type"] in _WITH_HEADERS:
            headers = list(message.get("headers") or ())
            if message["type"] != "websocket.accept":
                # The same address answers one page and refuses another.
                headers.append((b"vary", b"Origin"))
                if self.standing is Standing.ALLOWED:
                    headers.extend(cors_headers(self.scope, headers))
            message = {**message, "headers": [*headers, *self.headers]}
        await self.send(message)
