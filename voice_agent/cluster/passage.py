"""Passage: what a node says of a request that it passes on, signed, so that the next one can believe it.

A header holds it: to whom it goes, through which nodes it came, when, and where the client is. The signature covers the
request's method and target too; so a passage that somebody has read is good for the same request to the same node, for
half a minute, and for nothing else. Who the client is stands not in it: credentials travel as they came, and are judged
again.
"""

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import StrEnum
from typing import Final

import attrs
import cattrs

HEADER: Final = "voice-agent-passage"
MAX_HOPS: Final = 2
"""A session may have moved once while a request was under way to it."""
MAX_AGE_SECONDS: Final = 30.0
"""Also how far the clocks of two machines may be apart."""
MAX_CHARACTERS: Final = 4096


class Fault(StrEnum):
    """What is wrong with a passage; for the log of both sides."""

    MALFORMED = "malformed"
    SIGNATURE = "signature"
    CLOCK = "clock"
    ADDRESSEE = "addressee"
    HOPS = "hops"


class PassageError(Exception):
    """A passage is not to be believed."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


@attrs.frozen(kw_only=True)
class Passage:
    """One request's way so far. ``address``, ``scheme``, ``host`` and ``came_by_proxy`` are the client's."""

    to: str
    """The node that it goes to."""
    via: tuple[str, ...]
    """The nodes that it came through, the first one first."""
    at: float
    """Unix time."""
    address: str
    scheme: str
    host: str
    came_by_proxy: bool


@attrs.frozen
class Signer:
    """Signs and reads the passages of one node."""

    node: str
    _secret: str = attrs.field(repr=False)

    def sign(self, passage: Passage, *, method: str, target: bytes) -> str:
        """Return the header's value."""
        text = urlsafe_b64encode(json.dumps(_CONVERTER.unstructure(passage), separators=(",", ":")).encode())
        return f"{text.decode()}.{self._signature(text, method, target)}"

    def read(self, value: str, *, method: str, target: bytes, now: float) -> Passage:
        """Return what a header says.

        Raises:
            PassageError: it is not to be believed, or not meant for this node, or too old.
        """
        text, _, signature = value.partition(".")
        if len(value) > MAX_CHARACTERS or not value.isascii():
            raise PassageError(Fault.MALFORMED)
        if not hmac.compare_digest(signature, self._signature(text.encode(), method, target)):
            raise PassageError(Fault.SIGNATURE)
        try:
            passage = _CONVERTER.structure(json.loads(urlsafe_b64decode(text)), Passage)
        except (ValueError, TypeError, cattrs.BaseValidationError):
            raise PassageError(Fault.MALFORMED) from None
        if passage.to != self.node:
            raise PassageError(Fault.ADDRESSEE)
        if not 0 < len(passage.via) <= MAX_HOPS:
            raise PassageError(Fault.HOPS)
        if abs(now - passage.at) > MAX_AGE_SECONDS:
            raise PassageError(Fault.CLOCK)
        return passage

    def _signature(self, text: bytes, method: str, target: bytes) -> str:
        message = b"\n".join([b"passage 1", text, method.encode(), target])
        return hmac.digest(self._secret.encode(), message, "sha256").hex()


_CONVERTER: Final = cattrs.Converter()
