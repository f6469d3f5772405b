"""The player: what leaves when, and what was heard, to the millisecond of a virtual clock."""

from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import attrs
import numpy as np
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from voice_agent.audio.resample import MonoAudio, open_resampler
from voice_agent.core.errors import InternalError, SynthesisFailedError, TransportBrokenError
from voice_agent.core.frames import AudioFrame
from voice_agent.session.playing import MARK_SECONDS, HeardSentence, Player

RATE = 16_000
FRAME = 0.02
LEAD = 0.1
NOW = 1e-6


def tone(seconds: float, rate: int = RATE, hertz: float = 440) -> MonoAudio:
    """A sound that is audible throughout."""
    times = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


async def sound(*pieces: MonoAudio | float | Exception) -> AsyncIterator[MonoAudio]:
    """A voice's pieces; a number waits for so many seconds, an error is raised."""
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, float):
            await trio.sleep(piece)
        else:
            await trio.lowlevel.checkpoint()
            yield piece


@attrs.define
class Line:
    """A transport that takes its time, and a caller who notes when what came."""

    delays: dict[int, float] = attrs.field(factory=dict)
    frames: list[tuple[float, AudioFrame]] = attrs.field(factory=list)
    clears: list[float] = attrs.field(factory=list)
    far_end: list[tuple[float, MonoAudio]] = attrs.field(factory=list)
    told: list[tuple[float, int, int]] = attrs.field(factory=list)
    firsts: list[float] = attrs.field(factory=list)

    async def send(self, frame: AudioFrame) -> None:
        await trio.sleep(self.delays.get(len(self.frames), 0))
        self.frames.append((trio.current_time(), frame))

    def clear(self) -> int:
        self.clears.append(trio.current_time())
        return 0

    def on_frame(self, samples: MonoAudio, rate: int, at: float) -> None:
        assert rate == self.frames[-1][1].sample_rate
        self.far_end.append((at, samples))

    def on_first(self) -> None:
        self.firsts.append(trio.current_time())

    def teller(self, number: int) -> Callable[[int], Any]:
        async def on_words(count: int) -> None:
            await trio.lowlevel.checkpoint()
            self.told.append((trio.current_time(), number, count))

        return on_words

    def told_since(self, began: float) -> list[tuple[float, int, int]]:
        return [(round(at - began, 4), number, count) for at, number, count in self.told]

    @property
    def samples(self) -> MonoAudio:
        return np.concatenate([tone(0), *(frame.to_mono_float32() for _, frame in self.frames)])

    @property
    def times(self) -> list[float]:
        return [at for at, _ in self.frames]


def player_on(line: Line, **more: Any) -> Player:
    usual: dict[str, Any] = {
        "send": line.send,
        "clear": line.clear,
        "sample_rate": RATE,
        "channels": 1,
        "on_frame": line.on_frame,
        "lead_seconds": LEAD,
    }
    return Player(**usual | more)


async def say(player: Player, line: Line, sentence: str, *pieces: Any, number: int = 1, **more: Any) -> bool:
    return await player.play(
        sentence,
        sound(*pieces),
        more.pop("rate", RATE),
        number=number,
        on_first=line.on_first,
        on_words=line.teller(number),
        **more,
    )


def approximately(times: list[float]) -> Any:
    return pytest.approx(times, abs=NOW)


async def test_frames_leave_a_lead_before_they_have_sounded(autojump_clock: MockClock) -> None:
    """The first frames fill the lead at once, then one frame leaves every 20 ms; play returns a lead before the end."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        assert await say(player, line, "one two three", tone(1))
        assert trio.current_time() - began == pytest.approx(1 - LEAD, abs=NOW)
        await player.finish()
        assert trio.current_time() - began == pytest.approx(1, abs=NOW)
        nursery.cancel_scope.cancel()
    assert line.times == approximately([began] * 5 + [began + FRAME * k for k in range(1, 46)])
    assert [at for at, _ in line.far_end] == approximately([began + FRAME * k for k in range(50)])
    assert line.firsts == approximately([began])
    assert np.array_equal(line.samples, tone(1))
    assert np.array_equal(np.concatenate([samples for _, samples in line.far_end]), tone(1))
    assert [frame.position for _, frame in line.frames] == list(range(0, RATE, 320))


async def test_the_next_sentence_follows_without_a_gap(autojump_clock: MockClock) -> None:
    """Sentences that are played in turn sound as one."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        await say(player, line, "one", tone(0.4))
        await say(player, line, "two", tone(0.4), number=2)
        await player.finish()
        nursery.cancel_scope.cancel()
    assert [at for at, _ in line.far_end] == approximately([began + FRAME * k for k in range(40)])
    assert line.told_since(began) == [(0.4, 1, 1), (0.8, 2, 1)]


async def test_words_are_told_while_nothing_is_played(autojump_clock: MockClock) -> None:
    """A sentence's end is told when it has sounded, though the next sentence is long in coming."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        await say(player, line, "one two", tone(1))
        await trio.sleep(10)
        assert line.told_since(began)[-1] == (1.0, 1, 2)
        assert player.heard == HeardSentence(number=1, words=2, is_whole=True)
        assert player.is_silent
        nursery.cancel_scope.cancel()


async def test_a_late_voice_moves_what_follows(autojump_clock: MockClock) -> None:
    """After a gap the lead is filled anew, and lost time is not made up for."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        await say(player, line, "one two", tone(0.2), 3.0, tone(0.2))
        await player.finish()
        assert trio.current_time() - began == pytest.approx(3.2, abs=NOW)
        nursery.cancel_scope.cancel()
    assert [at for at, _ in line.far_end] == approximately(
        [began + FRAME * k for k in range(10)] + [began + 3 + FRAME * k for k in range(10)]
    )


async def test_a_slow_transport_moves_what_follows(autojump_clock: MockClock) -> None:
    """A frame that the transport took late sounds from then on, and the next ones keep their distance."""
    line = Line(delays={10: 1.0})
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        await say(player, line, "one two", tone(0.4))
        await player.finish()
        nursery.cancel_scope.cancel()
    late = began + 10 * FRAME + FRAME - LEAD + 1
    assert [at for at, _ in line.far_end] == approximately(
        [began + FRAME * k for k in range(10)] + [late + FRAME * k for k in range(10)]
    )


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(
        st.one_of(st.integers(1, 9000).map(lambda n: n / RATE), st.integers(-50, -1)), min_size=1, max_size=8
    ),
    delays=st.dictionaries(st.integers(0, 60), st.floats(0, 0.3), max_size=5),
    lead=st.floats(0.0, 0.3),
)
def test_the_caller_never_holds_more_than_the_lead(
    parts: list[float], delays: dict[int, float], lead: float
) -> None:
    """However voice and transport hesitate, what left and has not sounded is at most the lead, and all of it sounds."""
    line = Line(delays=delays)
    pieces = [tone(part) if part > 0 else -part * 0.01 for part in parts]

    async def main() -> None:
        player = player_on(line, lead_seconds=lead)
        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(player.run)
                await say(player, line, "one two three four five", *pieces)
                await player.finish()
                nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    begins = [at for at, _ in line.far_end]
    for left_at, begins_at in zip(line.times, begins, strict=True):
        assert begins_at >= left_at - NOW
        assert begins_at + FRAME - left_at <= max(lead, FRAME) + NOW
    assert all(after - before >= FRAME - NOW for before, after in pairwise(begins))
    whole = np.concatenate([piece for piece in pieces if not isinstance(piece, float)] or [tone(0)])
    assert np.array_equal(line.samples[: len(whole)], whole)
    assert not line.samples[len(whole) :].any()
    assert 0 <= len(line.samples) - len(whole) < RATE * FRAME
    counts = [count for _, _, count in line.told]
    assert counts == sorted(set(counts))
    assert counts[-1] == 5
    ticks = [at for at, _, _ in line.told][:-1]
    assert all(after - before >= MARK_SECONDS - NOW for before, after in pairwise(ticks))


@pytest.mark.parametrize("frames", range(31))
async def test_a_cut_at_any_time_leaves_nothing_to_sound(frames: int, autojump_clock: MockClock) -> None:
    """A cut at each 20 ms ends the sentence at once; what had the time to sound was heard, and nothing more ever is."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        results: list[bool] = []

        async def speak() -> None:
            results.append(await say(player, line, "a b c d e f g h i j", tone(0.5)))

        nursery.start_soon(speak)
        await trio.sleep(frames * FRAME + 0.001)
        sent = len(line.frames)
        player.cut()
        heard = player.heard
        assert line.clears == [trio.current_time()]
        await player.finish()
        assert trio.current_time() - began == pytest.approx(frames * FRAME + 0.001, abs=NOW)
        await trio.sleep(5)
        assert player.heard == heard
        assert len(line.frames) == sent
        assert results == [frames >= 20]
        nursery.cancel_scope.cancel()
    words = min(10, frames * 2 // 5)
    if frames:
        assert heard == HeardSentence(number=1, words=words, is_whole=words == 10)
    assert [count for _, _, count in line.told][-1:] == ([words] if words else [])


async def test_after_a_cut_the_next_sentence_sounds_at_once(autojump_clock: MockClock) -> None:
    """The lead of what was cut off is forgotten."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        await say(player, line, "one two", tone(1))
        player.cut()
        now = trio.current_time()
        await say(player, line, "three", tone(0.1), number=2)
        assert [at for at, _ in line.far_end[-5:]] == approximately([now + FRAME * k for k in range(5)])
        nursery.cancel_scope.cancel()


async def test_a_frame_that_slips_past_a_cut_is_cleared_too(autojump_clock: MockClock) -> None:
    """A transport that puts a frame although the cut has come is cleared once more, and the frame is not counted."""
    line = Line()

    async def stubborn(frame: AudioFrame) -> None:
        await line.send(frame)
        if len(line.frames) == 10:
            player.cut()

    player = player_on(line, send=stubborn)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        assert not await say(player, line, "one two", tone(1))
        assert len(line.clears) == 2
        assert len(line.far_end) == 9
        await trio.sleep(3)
        assert player.heard == HeardSentence(number=1, words=0, is_whole=False)
        nursery.cancel_scope.cancel()


async def test_errors_come_out_as_they_were_raised(autojump_clock: MockClock) -> None:
    """What the voice made before it failed is played first; a caller who is gone is told by the transport's own error."""
    line = Line()
    player = player_on(line)
    failure = SynthesisFailedError("the voice broke")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        with pytest.raises(SynthesisFailedError) as raised:
            await say(player, line, "one two", tone(0.5), failure)
        assert raised.value is failure
        assert np.array_equal(line.samples, tone(0.5))
        await player.finish()
        assert player.heard == HeardSentence(number=1, words=1, is_whole=False)

        async def gone(_: AudioFrame) -> None:
            await trio.lowlevel.checkpoint()
            raise TransportBrokenError("the caller hung up")

        with pytest.raises(TransportBrokenError):
            await say(player_on(line, send=gone), line, "one", tone(1))
        nursery.cancel_scope.cancel()


async def test_one_sentence_at_a_time(autojump_clock: MockClock) -> None:
    """Two sentences at once are a mistake of the program, and are told as one."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(say, player, line, "one", tone(1))
        await trio.sleep(0.1)
        with pytest.raises(InternalError):
            await say(player, line, "two", tone(1))


async def test_a_sentence_without_sound_is_over_at_once(autojump_clock: MockClock) -> None:
    """Where nothing can be said nothing is waited for, behind what still sounds."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        assert await say(player, line, "one", tone(0.2))
        assert await say(player, line, "...", number=2)
        await player.finish()
        assert line.told_since(began) == [(0.2, 1, 1), (0.2, 2, 1)]
        nursery.cancel_scope.cancel()


async def test_a_cancelled_play_leaves_the_player_usable(autojump_clock: MockClock) -> None:
    """Cancelled at any time, nothing more leaves, what left still sounds, and the next sentence is played whole."""
    for step in range(60):
        line = Line(delays=dict.fromkeys(range(100), 0.003))
        player = player_on(line)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(player.run)
            with trio.move_on_after(step * 0.007 + 0.001):
                await say(player, line, "one two", 0.05, tone(0.2), 0.05, tone(0.1))
            sent = len(line.frames)
            await player.finish()
            assert len(line.frames) == sent
            await say(player, line, "three", tone(0.2), number=2)
            await player.finish()
            nursery.cancel_scope.cancel()
        assert len(line.frames) == sent + 10
        assert line.told[-1][1:] == (2, 1)


@pytest.mark.parametrize("output_rate", [8_000, 16_000, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("cuts", [[], [1], [7, 4_000, 4_001], list(range(500, 11_000, 500))])
async def test_pieces_are_resampled_as_one(
    cuts: list[int], output_rate: int, autojump_clock: MockClock
) -> None:
    """Wherever the voice cuts its sound, what is played is the one-shot resampling of all of it: nothing clicks."""
    line = Line()
    whole = tone(0.5, 22_050)
    player = player_on(line, sample_rate=output_rate)
    await say(player, line, "one", *np.split(whole, cuts), rate=22_050)
    resampler = open_resampler(22_050, output_rate)
    expected = np.concatenate((resampler.process(whole), resampler.flush()))
    assert all(len(frame.samples) == output_rate // 50 for _, frame in line.frames)
    assert np.array_equal(line.samples[: len(expected)], expected)
    assert not line.samples[len(expected) :].any()


async def test_both_channels_get_the_same(autojump_clock: MockClock) -> None:
    """A caller with two channels hears the voice on both."""
    line = Line()
    await say(player_on(line, channels=2), line, "one", tone(0.1))
    assert {frame.samples.shape for _, frame in line.frames} == {(320, 2)}
    stereo = np.concatenate([frame.to_float32() for _, frame in line.frames])
    assert np.array_equal(stereo[:, 0], tone(0.1))
    assert np.array_equal(stereo[:, 1], tone(0.1))


async def test_a_sentence_goes_on_from_a_word(autojump_clock: MockClock) -> None:
    """The words before the sound are heard from the beginning, and are not told again."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        await say(player, line, "a b c d", tone(0.5), skip_words=2)
        await player.finish()
        assert [count for _, _, count in line.told] == [4]
        nursery.cancel_scope.cancel()


async def test_words_are_told_every_half_second(autojump_clock: MockClock) -> None:
    """While a sentence sounds, what is new is told each 500 ms; nothing is told twice, nor what is not new."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        await say(player, line, "ab abc a abcdefghijklmn", tone(2))
        await player.finish()
        assert line.told_since(began) == [(0.5, 1, 2), (1.0, 1, 3), (2.0, 1, 4)]
        nursery.cancel_scope.cancel()


async def test_a_listener_who_is_slow_holds_up_no_sound(autojump_clock: MockClock) -> None:
    """Whoever is told the words may take long over it; frames leave on time, and the last count is told."""
    line = Line()
    player = player_on(line)
    counts: list[int] = []

    async def slowly(count: int) -> None:
        await trio.sleep(1.2)
        counts.append(count)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        await player.play("a b c d", sound(tone(2)), RATE, number=1, on_words=slowly)
        assert trio.current_time() - began == pytest.approx(2 - LEAD, abs=NOW)
        await player.finish()
        assert counts == [1, 3, 4]
        nursery.cancel_scope.cancel()


async def test_the_pace_of_a_voice_is_learned(autojump_clock: MockClock) -> None:
    """A voice that says ten letters a second is taken to say the next sentence so, while that is still coming."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        await say(player, line, "abcdefghij abcdefghij", tone(2))
        await player.finish()
        async with trio.open_nursery() as inner:
            inner.start_soon(
                lambda: say(player, line, "abcdefghij abcdefghij abcdefghij", tone(1.2), 5.0, number=2)
            )
            await trio.sleep(0.97)
            assert player.heard == HeardSentence(number=2, words=0, is_whole=False)
            await trio.sleep(0.04)
            assert player.heard == HeardSentence(number=2, words=1, is_whole=False)
            inner.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


async def test_a_voice_that_is_too_loud_is_clipped(autojump_clock: MockClock) -> None:
    """Neither a transport nor an echo canceller gets more than full scale."""
    line = Line()
    await say(player_on(line), line, "one", 4 * tone(0.1))
    assert np.abs(line.samples).max() == 1
    assert max(np.abs(samples).max() for _, samples in line.far_end) == 1


async def test_a_cut_tells_what_was_heard_until_then(autojump_clock: MockClock) -> None:
    """A cut between two tellings tells the words in between; of a sentence that was handed over whole no more either."""
    line = Line()
    player = player_on(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(player.run)
        began = trio.current_time()
        await say(player, line, "a b c d e f g h i j", tone(1))
        await trio.sleep_until(began + 0.91)
        player.cut()
        await player.finish()
        assert line.told_since(began) == [(0.5, 1, 5), (0.91, 1, 9)]
        assert player.heard == HeardSentence(number=1, words=9, is_whole=False)
        nursery.cancel_scope.cancel()
