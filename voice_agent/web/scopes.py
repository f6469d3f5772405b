"""Which scope a route needs: stated at each view, refused by default.

A view says :func:`public` or :func:`needs`; an application with a view that says neither can't be made. So a new route
that nobody thought about is no open door.
"""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any, Final, TypeVar, cast

from quart import Quart, Response, request

from voice_agent.access.admitted import admitted
from voice_agent.access.refusal import Refusal, identity_for
from voice_agent.core.identity import Scope
from voice_agent.observability.audit import Outcome, audit
from voice_agent.web.problems import answer_refusal

View = TypeVar("View", bound=Callable[..., Awaitable[Any]])

_NEED: Final = "_voice_agent_need"


def public(view: View) -> Callable[..., Any]:
    """Let everybody in."""
    return _marked(view, None)


def needs(scope: Scope) -> Callable[[View], Callable[..., Any]]:
    """Let in who has the scope."""
    return partial(_marked, need=scope)


def _marked(view: View, need: Scope | None) -> Callable[..., Any]:
    @wraps(view)
    async def marked(*args: Any, **kwargs: Any) -> Any:
        return await view(*args, **kwargs)

    setattr(marked, _NEED, need)
    return marked


def need_of(view: Callable[..., Any]) -> Scope | None:
    """Return the scope that a view needs; None for a public one.

    Raises:
        TypeError: the view doesn't say.
    """
    if not hasattr(view, _NEED):
        raise TypeError(f"the view {view!r} says neither public nor which scope it needs")
    return cast("Scope | None", getattr(view, _NEED))


def enforce_scopes(app: Quart) -> None:
    """Ask for each request's scope before its view runs; call it when every route is there.

    Raises:
        TypeError: a view doesn't say what it needs.
    """
    for view in app.view_functions.values():
        need_of(view)

    async def check() -> Response | None:
        rule = request.url_rule
        if rule is None or (request.method == "OPTIONS" and rule.provide_automatic_options):
            # Which methods there are is no secret, and a browser that asks beforehand can't show anything.
            return None
        need = need_of(app.view_functions[rule.endpoint])
        return None if need is None else refusal(need)

    app.before_request(check)


def refusal(need: Scope) -> Response | None:
    """Return the answer to a request whose identity has not the scope, or None; who asks for too much is audited."""
    who = admitted(request.scope)
    refused = identity_for(need, who)
    if not isinstance(refused, Refusal):
        return None
    if who.identity is not None and need is not Scope.CALL:
        audit(
            actor=who.identity.key_id,
            action=need.value,
            outcome=Outcome.REFUSED,
            target=f"{request.method} {request.path}",
            address=who.address,
        )
    return answer_refusal(refused)
