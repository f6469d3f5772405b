"""API keys: made, shown once, and checked.

A key is ``va_<id>_<secret>``; the secret is 256 random bits in hexadecimal. The server keeps the SHA-256 of the whole
key. Slow hashes with salt (bcrypt, Argon2) guard secrets that people choose, because those can be guessed; nobody
guesses 256 bits, fast or slow, and a slow hash at each request would be a lever for whoever wants the server busy.
"""

import hashlib
import hmac
import re
import secrets
from typing import Final

import attrs

from voice_agent.access.rejection import Reason, RejectedError
from voice_agent.core.identity import Identity
from voice_agent.settings.api_keys import KEY_ID, ApiKey, parse_keys

PREFIX: Final = "va_"
"""What every key begins with: it tells a key from a token, and lets scanners find keys that leaked."""

SECRET_BYTES: Final = 32
_ID_BYTES: Final = 5
_FORM: Final = re.compile(rf"{PREFIX}({KEY_ID.pattern})_[0-9a-f]{{{2 * SECRET_BYTES}}}", re.ASCII)
_NOBODYS_HASH: Final = secrets.token_bytes(hashlib.sha256().digest_size)
"""What a key with an unknown id is compared with, so that it costs what a wrong secret costs."""


@attrs.frozen
class NewKey:
    """A key that has just been made. ``text`` is the key itself: show it once, keep it nowhere."""

    key_id: str
    text: str = attrs.field(repr=False)

    @property
    def sha256(self) -> str:
        """What the server keeps, in hexadecimal."""
        return _hashed(self.text).hex()


def new_key(key_id: str | None = None) -> NewKey:
    """Make a key; without an id it gets a random one."""
    chosen = secrets.token_hex(_ID_BYTES) if key_id is None else key_id
    return NewKey(chosen, f"{PREFIX}{chosen}_{secrets.token_hex(SECRET_BYTES)}")


class KeyTable:
    """The keys that are valid, read from the setting ``access.keys``."""

    def __init__(self, text: str) -> None:
        self._keys = parse_keys(text)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def identify(self, shown: str, *, now: float) -> Identity:
        """Return whose key it is; ``now`` is Unix time.

        Raises:
            RejectedError: it is no valid key.
        """
        form = _FORM.fullmatch(shown)
        if form is None:
            raise RejectedError(Reason.KEY_MALFORMED)
        key_id = form[1]
        key = self._keys.get(key_id)
        is_right = hmac.compare_digest(_hashed(shown), _NOBODYS_HASH if key is None else key.sha256)
        if key is None:
            raise RejectedError(Reason.KEY_UNKNOWN, key_id)
        if not is_right:
            raise RejectedError(Reason.KEY_WRONG, key_id)
        if _is_expired(key, now):
            raise RejectedError(Reason.KEY_EXPIRED, key_id)
        return _identity(key_id, key)

    def find(self, key_id: str, *, now: float) -> Identity | None:
        """Return whom an id means, while its key is valid."""
        key = self._keys.get(key_id)
        return None if key is None or _is_expired(key, now) else _identity(key_id, key)


def _identity(key_id: str, key: ApiKey) -> Identity:
    return Identity(
        key_id=key_id,
        tenant=key.tenant,
        scopes=key.scopes,
        quotas=key.quotas,
        expires_at=None if key.expires is None else key.expires.timestamp(),
    )


def _is_expired(key: ApiKey, now: float) -> bool:
    return key.expires is not None and now >= key.expires.timestamp()


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
