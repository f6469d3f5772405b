"""Handles: secrets that say which node knows them: tickets, and the addresses of WebRTC calls.

A handle is the tag of its node, random bits, and a signature over both. The tag finds the node without guessing; the
signature tells a handle that some node has made from one that somebody makes up, so that guesses are never passed on.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from typing import Final

import attrs

RANDOM_BYTES: Final = 32
SIGNATURE_BYTES: Final = 12
PARTS: Final = 3


@attrs.frozen
class Handles:
    """Makes and reads the handles of one node."""

    tag: str
    _secret: str = attrs.field(repr=False)

    def new(self) -> str:
        """Return a handle that nobody can guess; without a secret it names no node."""
        random = secrets.token_urlsafe(RANDOM_BYTES)
        return f"{self.tag}.{random}.{self._signature(self.tag, random)}" if self._secret else random

    def maker_of(self, text: str) -> str | None:
        """Return the tag of the node that made a handle; None where no other node of ours has made it."""
        parts = text.split(".")
        if not self._secret or len(parts) != PARTS or not text.isascii():
            return None
        tag, random, signature = parts
        if not hmac.compare_digest(signature, self._signature(tag, random)):
            return None
        return None if tag == self.tag else tag

    def _signature(self, tag: str, random: str) -> str:
        digest = hmac.digest(self._secret.encode(), f"handle 1\n{tag}\n{random}".encode(), "sha256")
        return urlsafe_b64encode(digest[:SIGNATURE_BYTES]).decode()
