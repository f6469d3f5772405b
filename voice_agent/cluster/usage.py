"""Usage: what callers use of their quotas on this node, for the others; and on the others, for this one.

Calls that are open are told as they are. Calls per minute are told as a sum that only grows, in seconds that a rate
takes to give them back; a listener adds what has been added since it looked last to its own debt. So nothing is
counted twice, whatever beats are missed in between.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from voice_agent.cluster.beat import Sighting
from voice_agent.core.units import MINUTES

MAX_NAMES: Final = 256
"""Holders that are told of, each of calls and of rates: 20 KiB a beat. Who holds least is left out."""
MAX_NODES: Final = 1000
"""Nodes that are remembered after they have gone."""
QUIET_SECONDS: Final = 10 * MINUTES
"""Who has begun no call for so long owes nothing any more, with any rate that makes sense."""


@attrs.define
class _Sum:
    seconds: float
    at: float


class CallsBegun:
    """What calls that began here have used of each rate, by the rate's name and whose it is."""

    def __init__(self) -> None:
        self._sums: OrderedDict[str, _Sum] = OrderedDict()

    def note(self, name: str, owed_seconds: float, now: float) -> None:
        """Count a call; the name that was heard of least lately makes room."""
        found = self._sums.setdefault(name, _Sum(0.0, now))
        found.seconds += owed_seconds
        found.at = now
        self._sums.move_to_end(name)
        while len(self._sums) > MAX_NAMES:
            self._sums.popitem(last=False)

    def told(self, now: float) -> Mapping[str, float]:
        """Return the sums, without those of who has been quiet for long."""
        while self._sums and now - next(iter(self._sums.values())).at > QUIET_SECONDS:
            self._sums.popitem(last=False)
        return {name: round(found.seconds, 6) for name, found in self._sums.items()}


def most_held(held: Mapping[str, int]) -> Mapping[str, int]:
    """Return how many calls the holders of the most have open, as many holders as are told of."""
    return dict(sorted(held.items(), key=lambda pair: -pair[1])[:MAX_NAMES])


class OthersUsage:
    """What has been used on other nodes, as far as their beats tell."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, float]] | None = None

    def newly_owed(self, others: Iterable[Sighting]) -> Mapping[str, float]:
        """Return what calls that began elsewhere have used since the last time, by name.

        The first time there is nothing to compare with, and nothing is owed. A sum that has shrunk began anew.
        """
        known, now_known = self._known, {one.beat.node: one.beat.owed_seconds for one in others}
        # Who is not seen now stays known: a beat that comes late must not be counted anew.
        self._known = {**dict(list((known or {}).items())[-MAX_NODES:]), **now_known}
        if known is None:
            return {}
        owed: dict[str, float] = {}
        for node, sums in now_known.items():
            before = known.get(node, {})
            for name, seconds in sums.items():
                last = before.get(name, 0.0)
                added = seconds - last if seconds >= last else seconds
                if added > 0:
                    owed[name] = owed.get(name, 0.0) + added
        return owed
