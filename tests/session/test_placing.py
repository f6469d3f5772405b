"""Where a call's audio stands, and what of it was heard before: to the sample."""

from itertools import pairwise

import numpy as np
import pytest

from voice_agent.core.frames import AudioFrame
from voice_agent.session.placing import Placing


def frames(total: int, step: int, rate: int, channels: int = 1) -> list[AudioFrame]:
    """Cut samples that count themselves."""
    samples = np.arange(total, dtype=np.int16)
    if channels > 1:
        samples = np.stack([samples] * channels, axis=1)
    return [AudioFrame(samples[i : i + step], rate, i) for i in range(0, total, step)]


def test_frames_follow_each_other_unless_one_lies_ahead() -> None:
    """A position that lies ahead is a gap; one that lies behind is none."""
    placing = Placing()
    places = [placing.place(AudioFrame(np.zeros(100, np.int16), 16_000, at)).position for at in (0, 5, 500)]
    assert places == [0, 100, 500]
    assert placing.seconds == 600 / 16_000


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (16_000, 1), (44_100, 2), (48_000, 2)])
@pytest.mark.parametrize("step", [1, 160, 333, 48_000])
def test_what_was_heard_is_dropped_to_the_sample(rate: int, channels: int, step: int) -> None:
    """Of audio from 1.5 s on, of which 2.001 s were heard, the first sample left is the first behind that."""
    placing = Placing(begin_ms=1500, heard_ms=2001)
    placed = [placing.place(frame) for frame in frames(rate // 2 + 2000, step, rate, channels)]
    left = [frame for frame in placed if frame.sample_count]
    first = -(-2001 * rate // 1000)  # rounded up
    assert left[0].position == first
    begin = round(1.5 * rate)
    for before, after in pairwise(left):
        assert before.end == after.position
    for frame in left:
        whole = frame.samples if channels == 1 else frame.samples[:, 0]
        assert list(whole) == list(range(frame.position - begin, frame.end - begin))
    assert left[-1].end == begin + rate // 2 + 2000


def test_audio_from_further_on_leaves_a_gap() -> None:
    """Nothing is dropped, and its place is where the caller says."""
    placing = Placing(begin_ms=5000, heard_ms=2000)
    assert placing.seconds == 5.0
    frame = placing.place(AudioFrame(np.zeros(100, np.int16), 8_000, 0))
    assert (frame.position, frame.sample_count) == (40_000, 100)


def test_another_rate_goes_on_at_the_same_time() -> None:
    """Positions are counted anew, the clock is not."""
    placing = Placing(begin_ms=1000)
    placing.place(AudioFrame(np.zeros(8_000, np.int16), 16_000, 0))
    frame = placing.place(AudioFrame(np.zeros(480, np.int16), 48_000, 0))
    assert frame.position == 72_000
