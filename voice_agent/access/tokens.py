"""JSON Web Tokens: verified by joserfc, under an allow-list of algorithms that belongs to the key and not to the token.

The token's header chooses among keys, never among ways to check: a public key verifies the algorithms of its own type,
and the shared secret verifies HS256. So "none" is no algorithm, and an RSA key's text is no secret (RFC 8725, sections
3.1 and 3.2). ``jku``, ``jwk``, ``x5u`` and ``x5c`` are not looked at: keys come from the settings. ``crit`` refuses a
token, because no extension is understood here.

What can't be made equal: a token whose key is unknown is refused without a signature check, and may wait for the key set.
Both tell only which keys exist, and a key set is public.
"""

import secrets
from typing import Final

import attrs
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import OctKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from voice_agent.access.claims import identity_of
from voice_agent.access.jwks import PublicKey
from voice_agent.access.key_source import KeySource, origin_of
from voice_agent.access.rejection import Reason, RejectedError
from voice_agent.core.errors import VoiceAgentError
from voice_agent.core.identity import Identity
from voice_agent.core.strict_json import load_object
from voice_agent.core.units import KIB
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import AccessSettings

MAX_TOKEN_BYTES: Final = 8 * KIB
SHARED_ALGORITHM: Final = "HS256"
ALGORITHMS: Final = frozenset({SHARED_ALGORITHM, "RS256", "ES256", "EdDSA", "Ed25519"})
TYPES: Final = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""``typ`` of access tokens (RFC 9068, section 2.1), in lower case; other kinds of JWT are meant for others."""

_NOBODYS_SECRET: Final = OctKey.import_key(secrets.token_bytes(32))
"""What HS256 is checked with where no secret is configured, so that it costs the same."""


class _AllowList(JWSRegistry):
    """joserfc's registry, less its warning of "EdDSA": RFC 9864 renamed what most issuers still call so."""

    max_header_length = MAX_TOKEN_BYTES

    def get_alg(self, name: str) -> JWSAlgModel:
        if name not in ALGORITHMS:
            raise RejectedError(Reason.JWT_ALGORITHM)
        return self.algorithms[name]


_REGISTRY: Final = _AllowList(strict_check_header=False)


def takes_tokens(access: AccessSettings) -> bool:
    """Whether there is anything that a token could be checked with."""
    return bool(access.jwt_secret) or origin_of(access) is not None


@attrs.frozen
class _Header:
    """What the header of a token says about how it is signed: an algorithm of the allow-list, and a key's name."""

    algorithm: str
    kid: str | None


class Tokens:
    """Judges tokens by the settings in force."""

    def __init__(self, current: CurrentSettings, source: KeySource) -> None:
        self._current = current
        self._source = source
        self._secret_text = ""
        self._secret = _NOBODYS_SECRET

    async def identify(self, token: str, *, now: float) -> Identity:
        """Return whom a token describes; ``now`` is Unix time.

        Raises:
            RejectedError: it is no valid token.
            TokenKeysUnavailableError: no key set has come yet, so that nobody can tell.
        """
        access = self._current.now.access
        key = await self._key(_header(token), access)
        try:
            verified = jws.deserialize_compact(token, key, registry=_REGISTRY)
        except (JoseError, ValueError, TypeError):
            raise RejectedError(Reason.JWT_SIGNATURE) from None
        try:
            claims = load_object((verified.payload or b"").decode())
        except (VoiceAgentError, UnicodeDecodeError):
            raise RejectedError(Reason.JWT_MALFORMED) from None
        return identity_of(claims, access, now=now)

    async def _key(self, header: _Header, access: AccessSettings) -> OctKey | PublicKey:
        if header.algorithm == SHARED_ALGORITHM:
            return self._shared_secret(access)
        key = await self._source.find(header.kid, header.algorithm)
        if key is None:
            raise RejectedError(Reason.JWT_KEY_UNKNOWN)
        return key

    def _shared_secret(self, access: AccessSettings) -> OctKey:
        if access.jwt_secret is not self._secret_text:
            text = access.jwt_secret
            self._secret = OctKey.import_key(text.encode()) if text else _NOBODYS_SECRET
            self._secret_text = text
        return self._secret


def _header(token: str) -> _Header:
    """Read the header strictly; the library's reader takes the last of two ``alg``."""
    if len(token) > MAX_TOKEN_BYTES or not token.isascii() or token.count(".") != 2:  # noqa: PLR2004 (RFC 7515: three parts)
        raise RejectedError(Reason.JWT_MALFORMED)
    try:
        header = load_object(urlsafe_b64decode(token.partition(".")[0].encode()).decode())
    except (VoiceAgentError, ValueError):
        raise RejectedError(Reason.JWT_MALFORMED) from None
    kind = header.get("typ", "jwt")
    if not isinstance(kind, str) or kind.lower() not in TYPES or "crit" in header or "b64" in header:
        raise RejectedError(Reason.JWT_MALFORMED)
    kid, algorithm = header.get("kid", ""), header.get("alg")
    if not isinstance(kid, str):
        raise RejectedError(Reason.JWT_MALFORMED)
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise RejectedError(Reason.JWT_ALGORITHM)
    return _Header(algorithm, kid if "kid" in header else None)
