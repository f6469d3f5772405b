"""Latency arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voice_agent.cli.latency import LatencySummary, SendTimes, describe, percentile, summarise


def test_a_position_takes_the_send_time_of_the_message_that_carries_the_sample_before_it() -> None:
    """A position inside a message, or at its end, belongs to that message and not to the next."""
    times = SendTimes()
    for end_seconds, sent_at in [(0.02, 100.0), (0.04, 101.0), (0.06, 102.0)]:
        times.add(end_seconds, sent_at)
    assert times.sent_at(0.0) == 100.0
    assert times.sent_at(0.02) == 100.0
    assert times.sent_at(0.021) == 101.0
    assert times.sent_at(0.04) == 101.0
    assert times.sent_at(0.06) == 102.0


def test_a_position_is_not_pushed_over_a_messages_edge_by_its_rounding() -> None:
    """Positions travel as decimals; a millionth beyond the edge still means the edge."""
    times = SendTimes()
    times.add(0.1, 1.0)
    times.add(0.2, 2.0)
    assert times.sent_at(0.1 + 1e-9) == 1.0


def test_a_position_beyond_the_audio_means_the_last_message() -> None:
    """A server may round the end of the last utterance up."""
    times = SendTimes()
    times.add(1.0, 5.0)
    assert times.sent_at(99.0) == 5.0


def test_without_audio_nothing_was_sent() -> None:
    """A transcript of typed text has no send time, and no audio is counted."""
    times = SendTimes()
    assert times.sent_at(1.0) is None
    assert times.audio_seconds == 0.0


def test_audio_seconds_is_the_end_of_the_last_message() -> None:
    """What was sent is told to the user."""
    times = SendTimes()
    times.add(0.02, 0.0)
    times.add(0.035, 0.02)
    assert times.audio_seconds == 0.035


def test_percentiles_interpolate_between_the_closest_ranks() -> None:
    """p50 of an even count lies half way; p95 of 1..5 at rank 3.8."""
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 95) == pytest.approx(4.8)
    assert percentile([7.0], 95) == 7.0
    assert percentile([3.0, 1.0, 2.0], 0) == 1.0
    assert percentile([3.0, 1.0, 2.0], 100) == 3.0


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=50),
    st.floats(0, 100),
)
def test_percentiles_are_those_of_numpy(values: list[float], percent: float) -> None:
    """The definition is the common one, so that figures can be compared."""
    assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))


@pytest.mark.parametrize(("values", "percent"), [([], 50), ([1.0], -1), ([1.0], 101)])
def test_a_percentile_of_nothing_or_beyond_a_hundred_is_refused(values: list[float], percent: float) -> None:
    """Wrong questions are errors, not numbers."""
    with pytest.raises(ValueError, match="percent"):
        percentile(values, percent)


def test_a_summary_holds_count_percentiles_and_maximum() -> None:
    """What the report and the JSON summary are made of."""
    assert summarise([0.1, 0.2, 0.3]) == LatencySummary(
        count=3, p50=0.2, p95=pytest.approx(0.29), maximum=0.3
    )
    assert summarise([]) is None


def test_the_line_for_people_names_its_figures() -> None:
    """One result is not "1 results", and no results are no zeros."""
    assert describe("final latency", summarise([0.5])) == (
        "final latency  p50 0.500 s  p95 0.500 s  max 0.500 s  (1 result)"
    )
    assert describe("final latency", summarise([0.4, 0.6])) == (
        "final latency  p50 0.500 s  p95 0.590 s  max 0.600 s  (2 results)"
    )
    assert describe("final latency", None) == "final latency  no results"
