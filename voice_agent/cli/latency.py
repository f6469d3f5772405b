"""How late the words come: pure arithmetic on send and receive times, all in seconds.

The latency of a result is defined as *receive time of the message* minus *send time of the last sample that the
result covers*: the audio message that carries the sample just before the result's ``end`` (seconds of the call)
gives the send time. So the wait for the silence that confirms an end of speech is part of a final's latency, and
the caller's own buffering into messages is not.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from math import floor
from typing import Final

import attrs

_ROUNDING_SECONDS: Final = 1e-6
"""Positions travel as decimal seconds; one that misses a message's edge by less than this means the edge."""


@attrs.define
class SendTimes:
    """When each position of a call's audio was sent; 16 bytes a message."""

    _ends: "array[float]" = attrs.field(init=False, factory=lambda: array("d"))
    _times: "array[float]" = attrs.field(init=False, factory=lambda: array("d"))

    def add(self, end_seconds: float, sent_at: float) -> None:
        """Record that the audio up to ``end_seconds`` of the call was sent at ``sent_at``; both only grow."""
        self._ends.append(end_seconds)
        self._times.append(sent_at)

    @property
    def audio_seconds(self) -> float:
        """How much audio was sent."""
        return self._ends[-1] if self._ends else 0.0

    def sent_at(self, position_seconds: float) -> float | None:
        """When the sample just before the position was sent.

        A position beyond the audio means its last message; ``None`` when nothing was sent.
        """
        if not self._ends:
            return None
        index = bisect_left(self._ends, position_seconds - _ROUNDING_SECONDS)
        return self._times[min(index, len(self._times) - 1)]


@attrs.frozen(kw_only=True)
class LatencySummary:
    """Percentiles of a set of latencies, in seconds."""

    count: int
    p50: float
    p95: float
    maximum: float


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the percentile by linear interpolation between the closest ranks (Hyndman and Fan, definition 7).

    Raises:
        ValueError: there are no values, or ``percent`` is outside 0 to 100.
    """
    if not values:
        raise ValueError("there is no percentile of nothing")
    if not 0 <= percent <= 100:  # noqa: PLR2004  the definition of per cent
        raise ValueError(f"percent {percent} is outside 0 to 100")
    ordered = sorted(values)
    rank = (len(ordered) - 1) * percent / 100
    below = floor(rank)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (rank - below)


def summarise(latencies: Sequence[float]) -> LatencySummary | None:
    """Return the percentiles of latencies in seconds, or ``None`` when there are none."""
    if not latencies:
        return None
    return LatencySummary(
        count=len(latencies),
        p50=percentile(latencies, 50),
        p95=percentile(latencies, 95),
        maximum=max(latencies),
    )


def describe(name: str, summary: LatencySummary | None) -> str:
    """Return one line for people: ``final latency  p50 0.412 s  p95 0.498 s  max 0.512 s  (12 results)``."""
    if summary is None:
        return f"{name}  no results"
    results = "1 result" if summary.count == 1 else f"{summary.count} results"
    return (
        f"{name}  p50 {summary.p50:.3f} s  p95 {summary.p95:.3f} s  max {summary.maximum:.3f} s  ({results})"
    )
