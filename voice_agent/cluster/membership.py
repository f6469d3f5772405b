"""Membership: this node among the others. It beats, listens, and says goodbye; who they are is known at any moment.

The directory may be away: then those who were seen last stay known until they would be gone, and beating goes on.
"""

from collections.abc import Callable, Mapping
from importlib.metadata import version
from time import time
from typing import Final, NoReturn

import attrs
import structlog
import trio

from voice_agent.cluster.beat import Beat, NodeState, Sighting
from voice_agent.cluster.directory import Directory
from voice_agent.cluster.names import tag_of
from voice_agent.cluster.usage import CallsBegun, OthersUsage, most_held
from voice_agent.core.errors import StoreCorruptError, StoreUnavailableError
from voice_agent.core.units import SECONDS
from voice_agent.settings.schema import ClusterSettings

GOODBYE_SECONDS: Final = 1 * SECONDS
"""Saying goodbye takes no longer; who could not is gone a few beats later."""
MAX_BEAT_SECONDS: Final = 5 * SECONDS

log = structlog.get_logger(__name__)


@attrs.frozen(kw_only=True)
class Report:
    """How a node fares, asked for at each beat."""

    state: NodeState
    capacity: int
    calls: int
    load: float
    calls_held: Mapping[str, int] = attrs.field(factory=dict)


def _nothing(*_: object) -> None:
    """Tell nobody."""


@attrs.frozen(kw_only=True)
class MembershipHooks:
    """Who is told what happens."""

    on_beat: Callable[[bool], None] = _nothing
    """Whether it reached the directory."""
    on_nodes: Callable[[int], None] = _nothing
    """How many nodes there are, this one among them."""
    on_owed: Callable[[str, float], None] = _nothing
    """Calls that began on other nodes have used so many seconds of a rate, by name."""


class Membership:
    """One node's; :meth:`run` keeps it, and everything else answers at once from what was heard last."""

    def __init__(
        self,
        node: str,
        directory: Directory,
        settings: ClusterSettings,
        *,
        report: Callable[[], Report],
        internal_address: str = "",
        hooks: MembershipHooks | None = None,
    ) -> None:
        self.node = node
        self.tag = tag_of(node)
        self._directory = directory
        self._settings = settings
        self._report = report
        self._internal_address = internal_address
        self._hooks = hooks or MembershipHooks()
        self._begun = CallsBegun()
        self._usage = OthersUsage()
        self._seen: tuple[Sighting, ...] = ()
        self._seen_at = trio.current_time()
        self._is_failing = False

    # -- who there is ---------------------------------------------------------------------------------------------

    @property
    def others(self) -> tuple[Sighting, ...]:
        """The other nodes that are not gone, by name, with the ages that their beats have now."""
        waited = trio.current_time() - self._seen_at
        aged = (attrs.evolve(one, age_seconds=one.age_seconds + waited) for one in self._seen)
        return tuple(one for one in aged if one.age_seconds < self._settings.gone_seconds)

    @property
    def own(self) -> Sighting:
        """This node as it is now."""
        return Sighting(beat=self._beat(), age_seconds=0.0)

    def find(self, node: str) -> Beat | None:
        """Return the last beat of another node that is not gone."""
        return next((one.beat for one in self.others if one.beat.node == node), None)

    def find_by_tag(self, tag: str) -> Beat | None:
        """Return the last beat of the other node that a tag stands for, if it is not gone."""
        return next((one.beat for one in self.others if tag_of(one.beat.node) == tag), None)

    @property
    def is_away(self) -> bool:
        """Whether nothing has been heard of the others for so long that they would be gone."""
        return trio.current_time() - self._seen_at >= self._settings.gone_seconds

    # -- what callers use -----------------------------------------------------------------------------------------

    @property
    def is_blind(self) -> bool:
        """Whether new calls can't be judged, and the operator wants none of them then."""
        return self._settings.when_away == "closed" and self.is_away

    def calls_elsewhere(self, holder: str) -> int:
        """Return how many calls somebody has open on other nodes."""
        return sum(one.beat.calls_held.get(holder, 0) for one in self.others)

    def note_begun(self, name: str, owed_seconds: float) -> None:
        """Have the others know that a call has used so much of a rate."""
        self._begun.note(name, owed_seconds, trio.current_time())

    # -- beating --------------------------------------------------------------------------------------------------

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Beat until cancelled, then say goodbye; started when the first beat is done, or has failed."""
        try:
            await self.beat()
            task_status.started()
            while True:
                await trio.sleep(self._settings.beat_seconds)
                await self.beat()
        finally:
            with trio.move_on_after(GOODBYE_SECONDS, shield=True):
                await self._say_goodbye()

    async def beat(self) -> None:
        """Tell how this node does, and hear of the others; what fails is told and tried again with the next beat."""
        try:
            with trio.fail_after(min(MAX_BEAT_SECONDS, self._settings.gone_seconds)):
                await self._directory.put(self._beat())
                seen = await self._directory.beats(gone_seconds=self._settings.gone_seconds)
        except (StoreUnavailableError, StoreCorruptError, trio.TooSlowError) as error:
            self._note_failure(str(error) or "the directory takes too long")
            return
        self._seen = tuple(one for one in seen if one.beat.node != self.node)
        self._seen_at = trio.current_time()
        if self._is_failing:
            self._is_failing = False
            log.info("cluster_reachable", nodes=len(self._seen) + 1)
        self._hooks.on_beat(True)
        self._hooks.on_nodes(len(self._seen) + 1)
        for name, seconds in self._usage.newly_owed(self._seen).items():
            self._hooks.on_owed(name, seconds)

    def _note_failure(self, reason: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            log.warning("cluster_unreachable", reason=reason)
        self._hooks.on_beat(False)
        self._hooks.on_nodes(len(self.others) + 1)

    async def _say_goodbye(self) -> None:
        try:
            await self._directory.remove(self.node)
        except (StoreUnavailableError, StoreCorruptError) as error:
            log.info("cluster_goodbye_unheard", reason=str(error))

    def _beat(self) -> Beat:
        report = self._report()
        return Beat(
            node=self.node,
            state=report.state,
            version=version("voice-agent"),
            capacity=report.capacity,
            calls=report.calls,
            load=round(report.load, 3),
            at=time(),
            advertised_url=self._settings.advertised_url,
            internal_address=self._internal_address,
            calls_held=most_held(report.calls_held),
            owed_seconds=self._begun.told(trio.current_time()),
        )
