"""Key sets (JWKS, RFC 7517): from a document to the public keys that tokens may be signed with.

What can't be used is left out, not refused with the rest: providers publish encryption keys and newer algorithms in the
same set. What must not be used is left out too: symmetric keys, because whoever reads the set could sign with them; keys
with a private part, for the same reason; RSA keys that are too short, or so long that checking them holds up calls.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import attrs
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.util import urlsafe_b64decode

from voice_agent.core.errors import VoiceAgentError
from voice_agent.core.strict_json import load_object

PublicKey = RSAKey | ECKey | OKPKey

MAX_KEYS: Final = 100
"""In one set; the largest providers publish about ten."""
MIN_RSA_BYTES, MAX_RSA_BYTES = 256, 1024
"""Of the modulus: 2048 bits are the least that RFC 7518, section 3.3, allows; 8192 take 0.2 ms to check."""
_MAX_EXPONENT_CHARS: Final = 8
"""A public exponent as long as the modulus takes milliseconds to check; everybody's is 65537."""

_KINDS: Final[Mapping[str, Callable[[dict[str, Any]], PublicKey]]] = {
    "RSA": RSAKey.import_key,
    "EC": ECKey.import_key,
    "OKP": OKPKey.import_key,
}
_PRIVATE_PART: Final = "d"


class KeySetError(ValueError):
    """A document is no key set, or there is no key in it that can be used."""


@attrs.frozen
class SigningKey:
    """A public key, and the algorithms that it may verify: those of its own type and no others."""

    kid: str | None
    algorithms: frozenset[str]
    key: PublicKey


@attrs.frozen
class KeyRing:
    """The keys of one set; ``left_out`` counts those that were not taken."""

    keys: tuple[SigningKey, ...]
    left_out: int = 0

    def knows(self, kid: str | None) -> bool:
        """Whether asking for the set again could not find more."""
        return any(key.kid == kid for key in self.keys) or (kid is None and bool(self.keys))

    def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key that a token names; without a name (RFC 7515, section 4.1.4) the only one that fits."""
        fitting = [key for key in self.keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return fitting[0].key if len(fitting) == 1 else None


def parse_key_set(document: bytes) -> KeyRing:
    """Read a key set.

    Raises:
        KeySetError: it is no set, has too many keys, or none that can be used.
    """
    try:
        members = load_object(document.decode()).get("keys")
    except (VoiceAgentError, UnicodeDecodeError):
        raise KeySetError("is not a JSON object") from None
    if not isinstance(members, list):
        raise KeySetError('has no list "keys"')
    if len(members) > MAX_KEYS:
        raise KeySetError(f"has more than {MAX_KEYS} keys")
    keys = tuple(_usable(members))
    if not keys:
        raise KeySetError(
            "has no key that a token can be checked with (RSA, P-256 or Ed25519, for signatures)"
        )
    return KeyRing(keys, left_out=len(members) - len(keys))


def _usable(members: Iterable[object]) -> Iterable[SigningKey]:
    for member in members:
        if isinstance(member, dict):
            key = _signing_key(member)
            if key is not None:
                yield key


def _signing_key(member: Mapping[str, Any]) -> SigningKey | None:
    algorithms = _algorithms(member)
    kid = member.get("kid")
    if not algorithms or not isinstance(kid, str | None) or _PRIVATE_PART in member:
        return None
    try:
        if member["kty"] == "RSA" and not _is_reasonable_rsa(member):
            return None
        key = _KINDS[member["kty"]](dict(member))
        key.check_use("sig")
        key.check_key_op("verify")
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None
    return SigningKey(kid, algorithms, key)


def _algorithms(member: Mapping[str, Any]) -> frozenset[str]:
    """Return what a key may verify: by its type and curve, and by its own ``alg`` where it has one."""
    match member.get("kty"), member.get("crv"):
        case "RSA", _:
            possible: tuple[str, ...] = ("RS256",)
        case "EC", "P-256":
            possible = ("ES256",)
        case "OKP", "Ed25519":
            # RFC 9864 gave the algorithm the curve's name; most issuers still write the older one (RFC 8037).
            possible = ("EdDSA", "Ed25519")
        case _:
            possible = ()
    stated = member.get("alg")
    return frozenset(name for name in possible if stated in (None, name))


def _is_reasonable_rsa(member: Mapping[str, Any]) -> bool:
    modulus, exponent = member["n"], member["e"]
    return (
        isinstance(modulus, str)
        and isinstance(exponent, str)
        and MIN_RSA_BYTES <= len(urlsafe_b64decode(modulus.encode())) <= MAX_RSA_BYTES
        and len(exponent) <= _MAX_EXPONENT_CHARS
    )
