"""KeySource: the public keys that tokens are signed with, fetched by a task that owns them.

::

    find()  ──wakes──▶  run(): fetch → replace the ring whole → tell who waits → sleep
       ◀──ring────────────┘

The ring is replaced in one step, so that nobody locks anything: who asks sees the old one or the new one. It is fetched
again when it is old, and when a token names a key that is not in it, but not more often than :data:`COOLDOWN_SECONDS`
allows, whatever callers invent. When the provider can't be reached, the keys that came last stay in force.
"""

import math
import os
import stat
from typing import Final, NoReturn

import attrs
import httpx
import structlog
import trio

from voice_agent.access.jwks import KeyRing, KeySetError, PublicKey, parse_key_set
from voice_agent.core.errors import SettingsError
from voice_agent.core.fetching import fetch
from voice_agent.core.request_errors import TokenKeysUnavailableError
from voice_agent.core.units import KIB, MINUTES, SECONDS
from voice_agent.observability.metrics import Metrics
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.schema import AccessSettings

FETCH_SECONDS: Final = 5 * SECONDS
"""For all of a fetch; callers with an unknown key wait as long."""
COOLDOWN_SECONDS: Final = 10 * SECONDS
"""From the end of one fetch to the next that a token may cause."""
MAX_BACKOFF_SECONDS: Final = 5 * MINUTES
MAX_DOCUMENT_BYTES: Final = 256 * KIB

log = structlog.get_logger(__name__)


class _FetchError(Exception):
    """A key set can't be had; the message completes "the key set at … "."""


@attrs.frozen
class Origin:
    """Where the settings say that the key set is; one of the two is empty."""

    file: str
    url: str

    def __str__(self) -> str:
        return self.file or self.url


def origin_of(access: AccessSettings) -> Origin | None:
    """Return where the key set is, or None where there is none."""
    origin = Origin(access.jwks_file, access.jwks_url)
    return origin if origin.file or origin.url else None


class KeySource:
    """The key set of the settings in force. Start :meth:`run` in a nursery of your own; :meth:`find` needs it."""

    def __init__(self, current: CurrentSettings, metrics: Metrics) -> None:
        self._current = current
        self._metrics = metrics
        self._ring: KeyRing | None = None
        self._ring_origin: Origin | None = None
        self._tried_origin: Origin | None = None
        self._tried_at = -math.inf
        self._failures = 0
        self._is_fetching = False
        self._wanted = trio.Event()
        self._fetched = trio.Event()

    async def load_file(self) -> None:
        """Read the key set now if it is a file; it is at hand, so that a wrong one stops the start.

        Raises:
            SettingsError: the file can't be read, or is no key set.
        """
        origin = origin_of(self._current.now.access)
        if origin is None or not origin.file:
            return
        try:
            self._accept(_parsed(await _read(origin.file)), origin)
        except (_FetchError, KeySetError) as error:
            raise SettingsError(
                f"access.jwks_file = {origin.file!r} {error}", field="access.jwks_file"
            ) from None

    async def run(self) -> NoReturn:
        """Keep the ring fresh, for ever."""
        while True:
            self._wanted = trio.Event()
            origin = origin_of(self._current.now.access)
            pause = math.inf if origin is None else await self._refresh(origin)
            with trio.move_on_after(pause):
                await self._wanted.wait()

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """Return the key that a token names, or None; asks for the set again if that may help and may be done.

        Raises:
            TokenKeysUnavailableError: no set has come from where the settings say, so that nobody can tell.
        """
        origin = origin_of(self._current.now.access)
        if origin is None:
            return None
        with trio.move_on_after(FETCH_SECONDS):
            while not self._knows(origin, kid) and (self._is_fetching or self._may_ask(origin)):
                if not self._is_fetching:
                    self._wanted.set()
                await self._fetched.wait()
        if self._ring is None or self._ring_origin != origin:
            raise TokenKeysUnavailableError("Tokens can't be checked now; try again soon.")
        return self._ring.find(kid, algorithm)

    def _knows(self, origin: Origin, kid: str | None) -> bool:
        return self._ring is not None and self._ring_origin == origin and self._ring.knows(kid)

    def _may_ask(self, origin: Origin) -> bool:
        is_rested = trio.current_time() >= self._tried_at + COOLDOWN_SECONDS
        return is_rested or self._tried_origin != origin

    async def _refresh(self, origin: Origin) -> float:
        """Fetch once; return how long nobody needs to try again."""
        self._is_fetching = True
        try:
            with trio.fail_after(FETCH_SECONDS):
                document = await (_read(origin.file) if origin.file else _get(origin.url))
            self._accept(_parsed(document), origin)
            outcome, pause = "ok", self._current.now.access.jwks_max_age_seconds
        except (_FetchError, KeySetError, trio.TooSlowError) as error:
            self._failures += 1
            reason = str(error) or f"did not come within {FETCH_SECONDS:g} s"
            log.warning("key_set_unavailable", origin=str(origin), reason=reason, failures=self._failures)
            outcome, pause = "failed", min(COOLDOWN_SECONDS * 2**self._failures, MAX_BACKOFF_SECONDS)
        except Exception:
            # What a provider sends has to go through parsers of others; a defect there must not end every call.
            self._failures += 1
            log.exception("key_set_fetch_crashed", origin=str(origin))
            outcome, pause = "failed", MAX_BACKOFF_SECONDS
        finally:
            self._is_fetching = False
            self._tried_origin, self._tried_at = origin, trio.current_time()
            self._fetched.set()
            self._fetched = trio.Event()
        self._metrics.key_set_fetches_total.labels(outcome).inc()
        return pause

    def _accept(self, ring: KeyRing, origin: Origin) -> None:
        if ring != self._ring or origin != self._ring_origin:
            log.info("key_set", origin=str(origin), keys=len(ring.keys), left_out=ring.left_out)
        self._ring, self._ring_origin, self._failures = ring, origin, 0


def _parsed(document: bytes) -> KeyRing:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise _FetchError(f"is larger than {MAX_DOCUMENT_BYTES} bytes")
    return parse_key_set(document)


async def _read(path: str) -> bytes:
    try:
        async with await trio.open_file(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            document: bytes = await file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise _FetchError(f"can't be read: {error.strerror}") from None
    except ValueError:
        raise _FetchError("is no path of a file") from None
    if mode & stat.S_IWOTH:
        # Whoever writes the file is whoever they like.
        raise _FetchError("can be written by every user; take that right away (chmod o-w)")
    return document


async def _get(url: str) -> bytes:
    try:
        fetched = await fetch(url, timeout_seconds=FETCH_SECONDS, max_bytes=MAX_DOCUMENT_BYTES)
    except httpx.HTTPError as error:
        raise _FetchError(f"could not be fetched: {type(error).__name__} {error}".rstrip()) from None
    except (httpx.InvalidURL, OSError, ValueError) as error:
        raise _FetchError(f"could not be fetched: {type(error).__name__}") from None
    if fetched.status != httpx.codes.OK:
        raise _FetchError(f"was answered with status {fetched.status}")
    return fetched.body
