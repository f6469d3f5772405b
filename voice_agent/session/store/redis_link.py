"""RedisLink: a Redis that can be asked for as long as the block lasts, whatever becomes of its connections meanwhile.

The client library keeps connections in a pool that loses a place whenever somebody is cancelled, or finds no master,
while a connection is made, and a cluster's pool ends with whatever its watching task meets. Nothing of that is mended
here: a client that met trouble is closed whole, with all its connections and tasks, and the next question goes to a new
one. So nothing can add up, however often the network fails.
"""

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, NoReturn, TypeVar

import attrs
import coredis
import structlog
import trio
from coredis.connection import TCPLocation
from coredis.retry import NoRetryPolicy

from voice_agent.core.errors import SettingsError, StoreRefusedError, VoiceAgentError
from voice_agent.core.units import MS, SECONDS
from voice_agent.session.body_error import BodyError
from voice_agent.session.store.redis_faults import UNREACHABLE, FaultKind, fault_of
from voice_agent.settings.redis_address import RedisAddress, Topology

OPERATION_SECONDS: Final = 2 * SECONDS
"""A Redis that takes longer is not there: frozen, swapping, or cut off."""
SENTINEL_SECONDS: Final = 500 * MS
"""A Sentinel has nothing to do but to answer; two that are silent leave time for the third."""
MAX_CONNECTIONS: Final = 16
REOPEN_SECONDS: Final = 200 * MS
"""Between two clients; a cluster that can't be found is looked for again after it."""

Client = coredis.Redis[bytes] | coredis.RedisCluster[bytes]
OpenClient = Callable[[], AbstractAsyncContextManager[Client]]
_Result = TypeVar("_Result")

log = structlog.get_logger(__name__)
# It logs a trace for each connection that can't be made; who asked is told, and says it once.
logging.getLogger("coredis").setLevel(logging.CRITICAL)


@attrs.frozen
class _Life:
    """A client, who waits for its answers, and whether it is to be used no more."""

    client: Client
    users: set[trio.CancelScope] = attrs.field(factory=set)
    is_spoilt: trio.Event = attrs.field(factory=trio.Event)


class RedisLink:
    """Use :func:`open_redis_link` to get one."""

    def __init__(self, open_client: OpenClient) -> None:
        self._open_client = open_client
        self._life: _Life | None = None
        self._has_life = trio.Event()
        self._waiting: set[trio.CancelScope] = set()
        self._last_error: Exception | None = None
        self.clients = 0
        """How many clients there have been; a stable Redis needs one."""

    async def ask(self, job: Callable[[Client], Awaitable[_Result]]) -> _Result:
        """Do something with the client, within the time that an operation may take.

        It may have been done when it fails, or be done later: what reached a frozen server is carried out after it
        thaws. It must be safe to do it twice, and late.

        Raises:
            StoreUnavailableError: Redis can't be used now; the message says why.
            StoreCorruptError: what is kept is not what we wrote.
        """
        scope = trio.CancelScope(deadline=trio.current_time() + OPERATION_SECONDS)
        life: _Life | None = None
        try:
            with scope:
                life = await self._alive(scope)
                life.users.add(scope)
                result = await job(life.client)
                self._last_error = None
                return result
        except trio.Cancelled:
            self._spoil(life)  # a connection that was being made leaves its place in the pool taken
            raise
        except Exception as error:
            translated = self._translated(error, life)
            # The library makes a broken connection of a cancellation that finds it connecting.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise translated from error
        finally:
            if life is not None:
                life.users.discard(scope)
        cause: Exception = trio.TooSlowError(f"no answer in {OPERATION_SECONDS:g} s")
        if scope.deadline > trio.current_time() and self._last_error is not None:
            cause = self._last_error  # somebody else met it, or it came while the client was made
        fault, best = fault_of(cause) or (UNREACHABLE, cause)
        if fault.is_link:
            self._spoil(life)
        raise fault.error(best) from cause

    async def _alive(self, scope: trio.CancelScope) -> _Life:
        self._waiting.add(scope)
        try:
            while self._life is None:
                await self._has_life.wait()
            return self._life
        finally:
            self._waiting.discard(scope)

    def _translated(self, error: Exception, life: _Life | None) -> Exception:
        if (ours := _first(error, VoiceAgentError)) is not None:
            return ours
        found = fault_of(error)
        if found is None and life is not None and life.is_spoilt.is_set():
            found = UNREACHABLE, error  # the client was closed below it, and says so in its own words
        if found is None:
            return error
        fault, cause = found
        if fault.is_link:
            self._spoil(life)
            self._last_error = error
        return fault.error(cause)

    def _spoil(self, life: _Life | None) -> None:
        """Let nobody use this client from now on."""
        if life is not None and life is self._life:
            self._life = None
            self._has_life = trio.Event()
            life.is_spoilt.set()

    async def refusal(self, job: Callable[[Client], Awaitable[Any]]) -> StoreRefusedError | None:
        """Ask for the first time; return why no later attempt would fare better without the operator.

        A Redis that is only away is no reason: what is written waits for it, as it would later.
        """
        try:
            await self.ask(job)
        except VoiceAgentError as error:
            found = fault_of(error.__cause__ or self._last_error or error)
            if found is not None and found[0].kind is not FaultKind.AWAY:
                return found[0].refusal(found[1])
            log.warning("store_unavailable", reason=error.message, waiting=0)
        return None

    async def keep(self) -> NoReturn:
        """Have a client, and another one when it is spoilt, for ever."""
        while True:
            began_at = trio.current_time()
            try:
                async with self._open_client() as client:
                    self.clients += 1
                    await self._live(_Life(client))
            except* Exception as group:  # whatever a client dies of, the next one takes its place
                self._last_error = group
                if fault_of(group) is None:
                    log.exception("redis_client_died")
                for scope in self._waiting:  # no need to wait for the next one
                    scope.cancel()
            await trio.sleep(max(0, began_at + REOPEN_SECONDS - trio.current_time()))

    async def _live(self, life: _Life) -> None:
        self._life = life
        self._has_life.set()
        try:
            await life.is_spoilt.wait()
        finally:
            self._spoil(life)
            for scope in life.users:  # who waits for an answer is told that there will be none
                scope.cancel()


@asynccontextmanager
async def open_redis_link(address: RedisAddress, *, tls: ssl.SSLContext | None) -> AsyncIterator[RedisLink]:
    """Keep a Redis at hand, also one that can't be reached now."""
    link = RedisLink(lambda: _open_client(address, tls))
    # The link outlives the cancellation of what uses it, for the last writes come then; its own scope ends it.
    keeping = trio.CancelScope(shield=True)

    async def keep() -> None:
        with keeping:
            await link.keep()

    body = BodyError()
    with body.unwrapped():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, name="redis link")
            try:
                with body.noted():
                    yield link
            finally:
                keeping.cancel()


def tls_context(ca_file: str, certificate_file: str, key_file: str) -> ssl.SSLContext:
    """Return how Redis is trusted: by an authority of our own or those of the system, and always by its name.

    Raises:
        SettingsError: a file can't be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
        if certificate_file:
            context.load_cert_chain(certificate_file, key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(
            f"store.redis_ca_file, store.redis_certificate_file or store.redis_key_file can't be used: {error}",
            field="store.redis_ca_file",
        ) from error
    return context


@asynccontextmanager
async def _open_client(address: RedisAddress, tls: ssl.SSLContext | None) -> AsyncIterator[Client]:
    """Open a client of the address's kind; but for a cluster's, nothing is connected yet."""
    shared: dict[str, Any] = {
        "username": address.username,
        "password": address.password,
        "ssl_context": tls if address.is_encrypted else None,
        "connect_timeout": OPERATION_SECONDS,
        "stream_timeout": OPERATION_SECONDS,
        "max_connections": MAX_CONNECTIONS,
    }
    ours: dict[str, Any] = {"retry_policy": NoRetryPolicy(), "verify_version": False}
    client: Any
    match address.topology:
        case Topology.ALONE:
            host, port = address.servers[0]
            client = coredis.Redis(host, port, address.database, **shared, **ours)
        case Topology.SOCKET:
            client = coredis.Redis(
                unix_socket_path=address.path, db=address.database, **{**shared, "ssl_context": None}, **ours
            )
        case Topology.CLUSTER:
            # Whether all slots are covered is CONFIG's to say, which a user of few rights may not ask.
            client = coredis.RedisCluster(
                startup_nodes=_locations(address), skip_full_coverage_check=True, **shared, **ours
            )
        case Topology.SENTINEL:
            sentinels: Any = coredis.Sentinel(
                _locations(address),
                sentinel_kwargs={
                    **shared,
                    "username": address.sentinel_username,
                    "password": address.sentinel_password,
                    "connect_timeout": SENTINEL_SECONDS,
                    "stream_timeout": SENTINEL_SECONDS,
                    "verify_version": False,
                },
                retry_policy=NoRetryPolicy(),
                db=address.database,
                **shared,
            )
            async with sentinels, sentinels.primary_for(address.service) as client:
                yield client
            return
    async with client:
        yield client


def _locations(address: RedisAddress) -> list[TCPLocation]:
    return [TCPLocation(host, port) for host, port in address.servers]


def _first(error: BaseException, kind: type[VoiceAgentError]) -> VoiceAgentError | None:
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _first(inner, kind))), None)
    return None
