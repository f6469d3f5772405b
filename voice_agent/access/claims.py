"""Claims: from what a token says to who it is (RFC 7519, and the names of RFC 8693, section 4.2, and RFC 9068).

Everything is read strictly. A quota that is not understood must not become no quota, and a subject that can't be printed
must not reach a log.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from joserfc.errors import ClaimError, ExpiredTokenError, MissingClaimError
from joserfc.jwt import JWTClaimsRegistry

from voice_agent.access.rejection import Reason, RejectedError
from voice_agent.core.identity import Identity, Quotas, Scope
from voice_agent.settings.identity_values import DEFAULT_TENANT, FaultError, quotas, tenant
from voice_agent.settings.schema import AccessSettings

SUBJECT_PREFIX: Final = "jwt:"
"""Before a token's subject in an identity's ``key_id``: a token never passes for an API key, nor for a stranger."""
QUOTAS_CLAIM: Final = "quotas"

_SUBJECT: Final = re.compile(r"[!-~]{1,128}", re.ASCII)
_LAST_DATE: Final = 253_402_300_800
"""The year 10000; a date beyond it is no date, and would not fit a float."""
_REASONS: Final[Mapping[str, Reason]] = {
    "iss": Reason.JWT_ISSUER,
    "aud": Reason.JWT_AUDIENCE,
    "nbf": Reason.JWT_FUTURE,
    "iat": Reason.JWT_FUTURE,
}


def identity_of(claims: dict[str, Any], access: AccessSettings, *, now: float) -> Identity:
    """Return whom the claims of a verified token describe; ``now`` is Unix time.

    Raises:
        RejectedError: it is expired or not valid yet, meant for somebody else, or a claim is not what it has to be.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _SUBJECT.fullmatch(subject):
        raise RejectedError(Reason.JWT_CLAIM)
    key_id = f"{SUBJECT_PREFIX}{subject}"
    _check_registered(claims, access, key_id, now)
    try:
        name = claims.get(access.jwt_tenant_claim)
        return Identity(
            key_id=key_id,
            tenant=DEFAULT_TENANT if name is None else tenant(name),
            scopes=_scopes(claims.get("scope", "")),
            quotas=quotas(claims[QUOTAS_CLAIM]) if QUOTAS_CLAIM in claims else Quotas(),
            # With the leeway, or a token that is just let in would be given a ticket that is dead already.
            expires_at=float(claims["exp"]) + access.jwt_leeway_seconds,
        )
    except FaultError:
        raise RejectedError(Reason.JWT_CLAIM, key_id) from None


def _check_registered(claims: dict[str, Any], access: AccessSettings, key_id: str, now: float) -> None:
    registry = JWTClaimsRegistry(
        now=int(now),
        leeway=int(access.jwt_leeway_seconds),
        exp={"essential": True},
        iss={"essential": True, "value": access.jwt_issuer},
        aud={"essential": True, "value": access.jwt_audience},
    )
    try:
        registry.validate(claims)
    except ExpiredTokenError:
        raise RejectedError(Reason.JWT_EXPIRED, key_id) from None
    except MissingClaimError:
        raise RejectedError(Reason.JWT_CLAIM, key_id) from None
    except ClaimError as error:
        raise RejectedError(_REASONS.get(error.claim, Reason.JWT_CLAIM), key_id) from None
    if claims["exp"] > _LAST_DATE:
        raise RejectedError(Reason.JWT_CLAIM, key_id)


def _scopes(stated: object) -> frozenset[Scope]:
    """Read a list separated by spaces (RFC 6749, section 3.3); scopes of other services in it are theirs."""
    if not isinstance(stated, str):
        raise FaultError("must be text")
    names = set(stated.split(" "))
    return frozenset(scope for scope in Scope if scope in names)
