"""Refusal: the answer to who may not come in, the same over both wires (RFC 6750, section 3)."""

import math
from collections.abc import Sequence
from typing import Final

import attrs

from voice_agent.access.admitted import Admitted
from voice_agent.core.errors import ForbiddenError, UnauthenticatedError, VoiceAgentError
from voice_agent.core.identity import Identity, Scope
from voice_agent.core.request_errors import AmbiguousCredentialsError, TooManyFailuresError

Headers = Sequence[tuple[bytes, bytes]]
"""Lower-case names and values, as ASGI has them."""

RETRY_AFTER_SECONDS: Final = 5
"""After credentials could not be judged: the keys that they are signed with are fetched again by then or a bit later."""

_CHALLENGE: Final = 'Bearer realm="voice_agent"'
"""RFC 6750 wants a parameter behind the scheme's name."""


@attrs.frozen(kw_only=True)
class Refusal:
    """An error and what belongs into the header of its answer."""

    error: VoiceAgentError
    headers: Headers = ()


def identity_for(need: Scope, admitted: Admitted) -> Identity | Refusal:
    """Return who does what needs the scope, or why they may not."""
    identity = admitted.identity
    if identity is None:
        return _nobody(admitted.fault)
    if not identity.may(need):
        error = ForbiddenError(f"This needs the scope {need.value!r}.")
        return _challenge(error, "insufficient_scope", scope=need)
    return identity


def ambiguous() -> Refusal:
    """Return the answer to more than one credential at once (RFC 6750, section 2)."""
    return _challenge(
        AmbiguousCredentialsError("Show one key, token or ticket, in one place."), "invalid_request"
    )


def _nobody(fault: VoiceAgentError | None) -> Refusal:
    match fault:
        case None:
            return _challenge(UnauthenticatedError("Show a key, a token or a ticket."))
        case UnauthenticatedError():
            return _challenge(fault, "invalid_token")
        case TooManyFailuresError(retry_after_seconds=seconds):
            return Refusal(error=fault, headers=((b"retry-after", str(math.ceil(seconds)).encode()),))
        case _:
            return Refusal(error=fault, headers=((b"retry-after", str(RETRY_AFTER_SECONDS).encode()),))


def _challenge(error: VoiceAgentError, reason: str = "", *, scope: Scope | None = None) -> Refusal:
    challenge = _CHALLENGE
    if reason:
        challenge += f', error="{reason}"'
    if scope is not None:
        challenge += f', scope="{scope.value}"'
    return Refusal(error=error, headers=((b"www-authenticate", challenge.encode()),))
