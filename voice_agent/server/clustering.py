"""open_clustering: from settings and a store to a node among others, which beats for as long as the block lasts."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import attrs
import trio

from voice_agent.cluster.beat import NodeState
from voice_agent.cluster.directory import Directory
from voice_agent.cluster.handles import Handles
from voice_agent.cluster.membership import Membership, MembershipHooks, Report
from voice_agent.cluster.memory import MemoryDirectory
from voice_agent.cluster.passage import Signer
from voice_agent.cluster.passing import Couriers, open_couriers
from voice_agent.cluster.sqlite import SqliteDirectory
from voice_agent.core.worker import WorkerPlace
from voice_agent.observability.cluster_metrics import ClusterMetrics
from voice_agent.server.calls import CallDesk
from voice_agent.server.ticket_exchange import TicketExchange
from voice_agent.session.body_error import BodyError
from voice_agent.session.store.protocol import Store
from voice_agent.session.store.sqlite import SqliteStore
from voice_agent.settings.schema import ClusterSettings, Settings
from voice_agent.web.node_routes import NodeList, NodeSummary


@attrs.frozen(kw_only=True)
class Clustering:
    """A node among others, and its means of reaching them."""

    membership: Membership
    couriers: Couriers
    handles: Handles
    signer: Signer | None
    """None without a secret."""

    def nodes(self) -> NodeList:
        """Return the nodes as they were heard of last."""
        own = self.membership.own
        seen = sorted((own, *self.membership.others), key=lambda sighting: sighting.beat.node)
        return NodeList(
            nodes=tuple(
                NodeSummary(
                    node=one.beat.node,
                    is_self=one is own,
                    state=one.beat.state,
                    version=one.beat.version,
                    calls=one.beat.calls,
                    capacity=one.beat.capacity,
                    load=one.beat.load,
                    age_seconds=one.age_seconds,
                    address=one.beat.advertised_url,
                )
                for one in seen
            ),
            is_directory_away=self.membership.is_away,
        )

    @property
    def tickets(self) -> TicketExchange:
        """What uses up the tickets of other nodes."""
        return TicketExchange(
            handles=self.handles, signer=self.signer, membership=self.membership, couriers=self.couriers
        )


@asynccontextmanager
async def open_clustering(
    settings: Settings,
    *,
    node: str,
    store: Store | None,
    metrics: ClusterMetrics,
    report: Callable[[], Report],
    on_owed: Callable[[str, float], None],
    place: WorkerPlace | None = None,
) -> AsyncIterator[Clustering]:
    """Beat until the block ends, then say goodbye; what the block raises comes out as it is."""
    cluster = settings.cluster
    membership = Membership(
        node,
        directory_of(cluster, store),
        cluster,
        report=report,
        internal_address="" if place is None else f"unix:{place.socket_path}",
        hooks=MembershipHooks(
            on_beat=lambda is_heard: metrics.beats_total.labels("heard" if is_heard else "failed").inc(),
            on_nodes=metrics.nodes.set,
            on_owed=on_owed,
        ),
    )
    body = BodyError()
    with body.unwrapped():
        async with (
            open_couriers(node, answer_seconds=cluster.answer_seconds) as couriers,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(membership.run, name="beats")
            with body.noted():
                yield Clustering(
                    membership=membership,
                    couriers=couriers,
                    handles=Handles(membership.tag, cluster.secret),
                    signer=Signer(node, cluster.secret) if cluster.secret else None,
                )
            nursery.cancel_scope.cancel()


def directory_of(settings: ClusterSettings, store: Store | None) -> Directory:
    """Return where the nodes meet: where they keep their sessions.

    A file is the directory of those who have a secret in common; a server that stands alone, which is what most files
    belong to, need not write to its disk every two seconds.
    """
    if isinstance(store, SqliteStore):
        return SqliteDirectory(store) if settings.secret else MemoryDirectory()
    if store is None:
        return MemoryDirectory()
    try:
        from voice_agent.cluster.redis import RedisDirectory  # noqa: PLC0415 (an extra)
        from voice_agent.session.store.redis import RedisStore  # noqa: PLC0415 (the same)
    except ModuleNotFoundError:
        return MemoryDirectory()
    return RedisDirectory(store) if isinstance(store, RedisStore) else MemoryDirectory()


def report_of(desk: CallDesk, *, is_listening: bool) -> Report:
    """Return how this node does, for its next beat."""
    registry = desk.registry
    state = NodeState.OPEN if is_listening else NodeState.STARTING
    return Report(
        state=state if desk.is_open else NodeState.DRAINING,
        capacity=desk.settings.now.server.max_calls,
        calls=len(registry),
        load=0.0 if desk.admission is None else desk.admission.load,
        calls_held=registry.held(),
    )
