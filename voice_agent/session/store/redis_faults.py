"""The one table that says what Redis means when it refuses: away for a while, refused by its operator, or damaged.

A store's caller sees two kinds of failure. :class:`StoreUnavailableError` is tried again, for ever; what waits is written
once the cause is gone, whoever removes it. :class:`StoreCorruptError` is not: the session's own keys are not what we
wrote, and no later attempt would find them different. At the start, what only an operator can mend stops the server.
"""

import re
import ssl
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

import attrs
import coredis.exceptions
import trio

from voice_agent.core.errors import StoreCorruptError, StoreRefusedError, StoreUnavailableError


class FaultKind(Enum):
    """Who can help."""

    AWAY = auto()
    """Time: it is tried again."""
    REFUSED = auto()
    """The operator; tried again all the same, for passwords and rights are mended while servers run."""
    DAMAGED = auto()
    """Nobody: not tried again."""


@attrs.frozen(kw_only=True)
class Fault:
    """One kind of failure. ``is_link``: the connection is no good any more, or leads to the wrong server."""

    kind: FaultKind
    words: str
    is_link: bool = False

    def error(self, cause: BaseException) -> StoreUnavailableError | StoreCorruptError:
        """Return what is raised while the server runs."""
        if self.kind is FaultKind.DAMAGED:
            return StoreCorruptError(f"{self.words} ({cause})")
        return StoreUnavailableError(f"{self.words} ({cause})")

    def refusal(self, cause: BaseException) -> StoreRefusedError:
        """Return what stops the start."""
        return StoreRefusedError(f"{self.words} ({cause})", field="store.redis_url")


_AWAY: Final = FaultKind.AWAY
_REFUSED: Final = FaultKind.REFUSED

UNREACHABLE: Final = Fault(kind=_AWAY, words="Redis can't be reached", is_link=True)
UNKNOWN: Final = Fault(kind=_AWAY, words="Redis refuses for a reason that is not known here")
NO_RIGHTS: Final = Fault(
    kind=_REFUSED, words="Redis doesn't let this user do what is needed: see the rights in docs/storage.md"
)
NO_LOGIN: Final = Fault(
    kind=_REFUSED, words="Redis refuses the user and password of store.redis_url", is_link=True
)
NO_TRUST: Final = Fault(
    kind=_REFUSED,
    words="no TLS with Redis: look at store.redis_ca_file, at the names in its certificate, and whether that port speaks TLS",
    is_link=True,
)
NO_SERVICE: Final = Fault(kind=_AWAY, words="the Sentinels know no master that can be reached", is_link=True)
FOREIGN: Final = Fault(
    kind=FaultKind.DAMAGED,
    words="a key of store.redis_prefix holds something else: another program's, or damaged",
)

REPLIES: Final[tuple[tuple[str, Fault], ...]] = (
    ("WRONGTYPE", FOREIGN),
    ("equal or smaller than the target stream", FOREIGN),
    ("WRONGPASS", NO_LOGIN),
    ("NOAUTH", NO_LOGIN),
    ("NOPERM", NO_RIGHTS),
    ("user executing the script can't", NO_RIGHTS),
    ("NOSCRIPT", NO_RIGHTS),
    ("OOM", Fault(kind=_AWAY, words="Redis has reached its maxmemory, and may drop nothing")),
    ("MISCONF", Fault(kind=_AWAY, words="Redis can't write its file; is its disk full?")),
    (
        "NOREPLICAS",
        Fault(kind=_AWAY, words="Redis has fewer replicas than its min-replicas-to-write", is_link=True),
    ),
    ("READONLY", Fault(kind=_AWAY, words="this Redis is a replica by now", is_link=True)),
    ("MASTERDOWN", Fault(kind=_AWAY, words="this Redis is a replica that lost its master", is_link=True)),
    ("LOADING", Fault(kind=_AWAY, words="Redis reads its file after a start")),
    ("BUSY", Fault(kind=_AWAY, words="Redis is busy with somebody's long script")),
    ("CLUSTERDOWN", Fault(kind=_AWAY, words="some of the cluster's slots have no server", is_link=True)),
    ("TRYAGAIN", Fault(kind=_AWAY, words="the cluster moves slots")),
)
"""By what stands in the reply, in this order; Redis before 7 wraps what a script met into an ``ERR`` of its own."""

CLASSES: Final[tuple[tuple[type[BaseException], Fault], ...]] = (
    (coredis.exceptions.WrongTypeError, FOREIGN),
    (coredis.exceptions.AuthenticationError, NO_LOGIN),
    (coredis.exceptions.AuthorizationError, NO_RIGHTS),
    (coredis.exceptions.NoScriptError, NO_RIGHTS),  # SCRIPT LOAD was refused just before
    (coredis.exceptions.ReadOnlyError, dict(REPLIES)["READONLY"]),
    (coredis.exceptions.BusyLoadingError, dict(REPLIES)["LOADING"]),
    (coredis.exceptions.TryAgainError, dict(REPLIES)["TRYAGAIN"]),
    (
        coredis.exceptions.ReplicationError,
        # Where a failover took place that this server has not heard of, the next connection leads to the new master.
        Fault(kind=_AWAY, words="too few replicas have it (store.redis_wait_replicas)", is_link=True),
    ),
    (ssl.SSLError, NO_TRUST),
    (coredis.exceptions.ClusterDownError, dict(REPLIES)["CLUSTERDOWN"]),
)
"""By class, where the client has cut the reply's first word off."""

LAST_CLASSES: Final[tuple[tuple[type[BaseException], Fault], ...]] = (
    (coredis.exceptions.SentinelError, NO_SERVICE),
    (coredis.exceptions.ClusterError, Fault(kind=_AWAY, words="the cluster can't be reached", is_link=True)),
    (
        coredis.exceptions.RedisClusterError,
        Fault(kind=_AWAY, words="the cluster can't be reached", is_link=True),
    ),
    (coredis.exceptions.ConnectionError, UNREACHABLE),
    (coredis.exceptions.ResponseError, UNKNOWN),
    (coredis.exceptions.RedisError, UNREACHABLE),
    (trio.TooSlowError, UNREACHABLE),
    (OSError, UNREACHABLE),
)
"""What is left, when neither an error nor any of its causes says more."""


def fault_of(error: BaseException) -> tuple[Fault, BaseException] | None:
    """Return what is the matter, and the error that says it best; None for an error that is not Redis's.

    A client wraps what it met while connecting, so causes are looked at as well: a wrong password in a cluster is a
    "cluster can't be connected" whose cause is the password.
    """
    chain = list(_with_causes(error))
    for one in chain:
        for kind, fault in CLASSES:
            if isinstance(one, kind):
                return fault, one
        if isinstance(one, coredis.exceptions.RedisError):
            for token, fault in REPLIES:
                if re.search(rf"\b{re.escape(token)}", str(one)):
                    return fault, one
    for one in chain:
        for kind, fault in LAST_CLASSES:
            if isinstance(one, kind):
                return fault, one
    return None


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, those of its group, and what they were raised from, outermost first."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions
        else:
            yield one
        cause = one.__cause__ if one.__suppress_context__ else one.__cause__ or one.__context__
        if cause is not None:
            waiting.append(cause)
