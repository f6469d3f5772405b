"""Ears: no sample is lost or moved, echo goes, speech stays; the settings that name a care do what they say."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import trio

from voice_agent.audio.ears import ECHO_DELAY, FRAME, LEAD_SECONDS, NOISE_DELAY, Care, Ears
from voice_agent.audio.far_end import MAX_KEPT_SECONDS, RATE, TAIL_SECONDS, CaptureClock, FarEnd
from voice_agent.settings.schema import EarsSettings

STEP = RATE // 50
Audio = np.ndarray


def noise(seconds: float, level: float = 0.05, seed: int = 1) -> Audio:
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * level).astype(np.float32)


def decibels(sound: Audio) -> float:
    return 10 * math.log10(float(np.mean(np.square(sound, dtype=np.float64))) + 1e-12)


def in_room(far: Audio, delay_ms: int, level: float = 0.5, seed: int = 3) -> Audio:
    """What a microphone hears of a loudspeaker: later, quieter, and with 250 ms of room."""
    rng = np.random.default_rng(seed)
    times = np.arange(RATE // 4) / RATE
    room = rng.standard_normal(len(times)) * np.exp(-6.9 * times / 0.25)
    room[0] = 3
    room *= level / math.sqrt(float(np.sum(room**2)))
    late = np.concatenate((np.zeros(delay_ms * RATE // 1000), np.convolve(far, room)))[: len(far)]
    return late.astype(np.float32)


def bursts(seconds: float) -> Audio:
    """Something like speech: noise that comes and goes, syllable by syllable, and never twice the same way."""
    loudness = np.random.default_rng(5).uniform(0, 1, round(seconds * 8)) ** 3
    return noise(seconds, 0.15) * np.repeat(loudness, RATE // 8).astype(np.float32)


async def listened(
    ears: Ears, near: Audio, far: Audio | None = None, *, cuts: Callable[[], int] = lambda: STEP
) -> Audio:
    """Clean a whole call, in pieces, while ``far`` is played from second 0 on."""
    cleaned, at = [], 0
    ears.jump(0)
    while at < len(near):
        piece = near[at : at + cuts()]
        if far is not None:
            # The player is one frame ahead of what comes back.
            for begin in range(-(-at // STEP) * STEP, at + len(piece), STEP):
                ears.far_end.play(far[begin : begin + STEP], RATE, begin / RATE)
        at += len(piece)
        ears.clock.note(at / RATE, at / RATE)
        cleaned.append(await ears.clean(piece))
    return np.concatenate((*cleaned, await ears.flush()))


CARES = [
    Care(echo_cancellation=True),
    Care(noise_suppression=True),
    Care(high_pass=True),
    Care(gain_control=True),
    Care(echo_cancellation=True, noise_suppression=True, high_pass=True, gain_control=True),
]


@pytest.mark.parametrize("care", CARES, ids=lambda care: "+".join(care.names))
@pytest.mark.parametrize("samples", [0, 1, 159, 160, 161, 5000])
async def test_as_many_samples_come_out_as_went_in(care: Care, samples: int) -> None:
    """Whatever the cuts, twice in a row with a flush between; positions in the call stay true."""
    rng = np.random.default_rng(samples)
    ears = Ears(EarsSettings(), care)
    near = noise(1)[:samples]
    for _ in range(2):
        assert len(await listened(ears, near, cuts=lambda: int(rng.integers(1, 700)))) == samples


@pytest.mark.parametrize("care", CARES, ids=lambda care: "+".join(care.names))
@pytest.mark.parametrize("is_playing", [False, True])
async def test_sound_is_where_it_was(care: Care, is_playing: bool) -> None:
    """The module's delay is taken out: with what comes in, what comes out agrees best unshifted."""
    near = noise(4)
    ears = Ears(EarsSettings(), care)
    cleaned = await listened(ears, near, noise(4, 0.001, seed=2) if is_playing else None)
    middle = slice(round(2.5 * RATE), round(3.5 * RATE))
    assert len(cleaned) == len(near)
    agreement = {
        shift: abs(float(np.dot(near[middle], np.roll(cleaned, shift)[middle]))) for shift in range(-300, 301)
    }
    assert max(agreement, key=agreement.__getitem__) == 0


async def test_with_no_care_sound_passes_untouched_and_at_once() -> None:
    """Who needs nothing waits for nothing."""
    ears = Ears(EarsSettings(), Care())
    near = noise(0.1)
    assert await ears.clean(near[:77]) is not None
    cleaned = await ears.clean(near[77:])
    assert np.array_equal(cleaned, near[77:])
    assert not len(await ears.flush())


async def test_where_nothing_sounds_the_canceller_changes_nothing() -> None:
    """A silent agent has no echo, also one that sends silence: the caller's sound comes out bit for bit."""
    near = noise(1)
    for far in (None, np.zeros_like(near)):
        assert np.array_equal(
            await listened(Ears(EarsSettings(), Care(echo_cancellation=True)), near, far), near
        )


@pytest.mark.parametrize("delay_ms", [20, 60, 120, 200, 400])
async def test_echo_goes(delay_ms: int) -> None:
    """25 dB of it at least, wherever within half a second it comes back, once the room is known."""
    far = bursts(8)
    echo = in_room(far, delay_ms) + noise(8, 0.0003)
    cleaned = await listened(Ears(EarsSettings(), Care(echo_cancellation=True)), echo, far)
    known = slice(4 * RATE, None)
    enhancement = decibels(echo[known]) - decibels(cleaned[known])
    print(f"{delay_ms} ms: echo return loss enhancement {enhancement:.1f} dB")
    assert enhancement >= 25


async def test_until_the_room_is_known_nothing_is_heard_of_the_first_sound() -> None:
    """Two seconds from a call's first sound on; before, and ever after, the caller is heard."""
    near = noise(8)
    far = np.concatenate((np.zeros(2 * RATE, np.float32), noise(6, 0.001, seed=2)))
    ears = Ears(EarsSettings(), Care(echo_cancellation=True))
    cleaned, at = [], 0
    for at in range(0, len(near), STEP):
        if at >= 2 * RATE:
            ears.far_end.play(far[at : at + STEP], RATE, at / RATE)
        ears.clock.note((at + STEP) / RATE, (at + STEP) / RATE)
        cleaned.append(await ears.clean(near[at : at + STEP]))
    whole = np.concatenate((*cleaned, await ears.flush()))
    assert np.array_equal(whole[: 2 * RATE], near[: 2 * RATE])
    assert not whole[round(2.05 * RATE) : 4 * RATE].any()
    assert decibels(whole[round(4.05 * RATE) :]) > decibels(near) - 6


async def test_a_restless_network_does_not_bring_the_echo_back() -> None:
    """Audio that comes up to 30 ms late, and after a stall of a second all at once, is still held against what it echoes."""
    far = bursts(12)
    echo = in_room(far, 80) + noise(12, 0.0003)
    rng = np.random.default_rng(6)
    ears = Ears(EarsSettings(), Care(echo_cancellation=True))
    cleaned, played = [], 0
    for at in range(0, len(echo), STEP):
        captured = (at + STEP) / RATE
        came_at = max(captured + rng.uniform(0, 0.03), 7.0 if 6 < captured < 7 else 0)
        while played < min(came_at * RATE, len(far)):
            # The player wakes up late too.
            ears.far_end.play(far[played : played + STEP], RATE, played / RATE + rng.uniform(0, 0.01))
            played += STEP
        ears.clock.note(captured, came_at)
        cleaned.append(await ears.clean(echo[at : at + STEP]))
    whole = np.concatenate((*cleaned, await ears.flush()))
    for known in (slice(4 * RATE, 6 * RATE), slice(7 * RATE, None)):
        enhancement = decibels(echo[known]) - decibels(whole[known])
        print(f"echo return loss enhancement {enhancement:.1f} dB")
        assert enhancement >= 20


async def test_a_known_delay_brings_a_late_echo_within_reach() -> None:
    """`ears.echo_delay_ms` is taken off before the canceller searches."""
    far = bursts(8)
    echo = in_room(far, 1200) + noise(8, 0.0003)
    known = slice(5 * RATE, None)
    settings = EarsSettings(echo_delay_ms=1000)
    cleaned = await listened(Ears(settings, Care(echo_cancellation=True)), echo, far)
    assert decibels(echo[known]) - decibels(cleaned[known]) >= 25
    without = await listened(Ears(EarsSettings(), Care(echo_cancellation=True)), echo, far)
    assert decibels(without[known]) - decibels(cleaned[known]) >= 10


async def test_what_is_left_of_an_echo_is_not_made_louder() -> None:
    """Gain control waits while our own voice sounds."""
    far = bursts(8)
    echo = in_room(far, 60) + noise(8, 0.0003)
    known = slice(4 * RATE, None)
    plain = await listened(Ears(EarsSettings(), Care(echo_cancellation=True)), echo, far)
    raised = await listened(
        Ears(EarsSettings(max_gain_db=30), Care(echo_cancellation=True, gain_control=True)), echo, far
    )
    assert decibels(raised[known]) < decibels(plain[known]) + 1


async def test_noise_rumble_and_level_are_cared_for() -> None:
    """Each care does what its name says, and at the chosen strength."""
    settled = slice(3 * RATE, None)
    hiss = noise(6, 0.01)
    lowered = {}
    for level in ("low", "highest"):
        ears = Ears(EarsSettings(noise_suppression_level=level), Care(noise_suppression=True))
        lowered[level] = decibels(hiss[settled]) - decibels((await listened(ears, hiss))[settled])
    assert 4 < lowered["low"] < 8
    assert lowered["highest"] > 14
    times = np.arange(2 * RATE) / RATE
    rumble = (0.1 * np.sin(2 * math.pi * 30 * times)).astype(np.float32)
    filtered = await listened(Ears(EarsSettings(), Care(high_pass=True)), rumble)
    assert decibels(rumble[RATE:]) - decibels(filtered[RATE:]) > 20
    quiet = bursts(6) * np.float32(0.02)
    raised = {}
    for most in (0, 30):
        ears = Ears(EarsSettings(max_gain_db=most), Care(gain_control=True))
        raised[most] = decibels((await listened(ears, quiet))[settled]) - decibels(quiet[settled])
    assert raised[0] < 1
    assert raised[30] > 5


@pytest.mark.parametrize(
    ("wanted", "is_raw", "is_done"),
    [("auto", True, True), ("auto", False, False), ("on", False, True), ("off", True, False)],
)
@pytest.mark.parametrize("name", ["echo_cancellation", "noise_suppression", "high_pass", "gain_control"])
def test_each_care_is_chosen_by_its_own_setting(name: str, wanted: str, is_raw: bool, is_done: bool) -> None:
    """`auto` asks what the caller's microphone is; `on` and `off` ask nobody."""
    others = dict.fromkeys(("echo_cancellation", "noise_suppression", "high_pass", "gain_control"), "off")
    care = Care.chosen(EarsSettings(**(others | {name: wanted})), is_raw=is_raw)  # type: ignore[arg-type]
    assert care.names == ((name,) if is_done else ())


def test_what_is_held_back_is_bounded() -> None:
    """All cares together are late by 14 ms, and a frame that is not full yet."""
    assert CARES[-1].delay == ECHO_DELAY + NOISE_DELAY
    assert (CARES[-1].delay + FRAME) / RATE <= 0.024


def test_the_far_end_stands_on_its_line_of_time() -> None:
    """Frames that follow each other have no seam, wherever a player's clock put them; a pause is silence."""
    far, sound = FarEnd(), noise(1)
    for number in range(50):
        jitter = 0.004 * (number % 3)
        far.play(sound[number * STEP : (number + 1) * STEP], RATE, 100 + number * 0.02 + jitter)
    far.play(sound[:STEP], RATE, 102.0)
    heard = far.between(100 * RATE, 3 * RATE)
    assert heard is not None
    assert np.array_equal(heard[:RATE], sound)
    assert not heard[RATE : 2 * RATE].any()
    assert np.array_equal(heard[2 * RATE : 2 * RATE + STEP], sound[:STEP])
    assert far.between(round((102.02 + TAIL_SECONDS) * RATE) - 1, FRAME) is not None
    assert far.between(round((102.02 + TAIL_SECONDS) * RATE) + 1, FRAME) is None


def test_another_rate_is_kept_at_the_rate_of_hearing() -> None:
    """A tone of 48 kHz stands where it stood."""
    far = FarEnd()
    tone = np.sin(2 * math.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    for number in range(50):
        far.play(tone[number * 960 : (number + 1) * 960], 48_000, number * 0.02)
    heard = far.between(0, RATE // 2)
    assert heard is not None
    expected = np.sin(2 * math.pi * 440 * np.arange(RATE // 2) / RATE)
    assert np.abs(heard - expected)[RATE // 10 :].max() < 0.01


def test_what_nobody_asks_for_is_forgotten() -> None:
    """A caller who sends no audio does not fill the memory; and one who needs no canceller keeps nothing."""
    far, deaf = FarEnd(), FarEnd(is_wanted=False)
    frame = noise(0.02)
    for number in range(5000):
        far.play(frame, RATE, number * 0.02)
        deaf.play(frame, RATE, number * 0.02)
    assert far.kept_seconds <= MAX_KEPT_SECONDS
    assert not deaf.kept_seconds


def test_the_line_of_capture_follows_the_quickest_audio() -> None:
    """Bursts after a stall move nothing; a caller's pause does, within two seconds; small errors are left alone."""
    clock = CaptureClock()
    for number in range(1, 51):
        clock.note(number * 0.02, 10 + number * 0.02 + 0.003 * (number % 4))
    assert abs(clock.sample_at(1.0) - 11 * RATE) <= 0.003 * RATE
    before = clock.sample_at(1.0)
    for number in range(51, 101):  # a second comes at once
        clock.note(number * 0.02, 12.0)
    assert clock.sample_at(1.0) == before
    for number in range(101, 301):  # as if nothing had been recorded for five seconds
        clock.note(number * 0.02, 15 + number * 0.02)
    assert abs(clock.sample_at(1.0) - 16 * RATE) <= 0.003 * RATE


async def test_cancelling_echo_does_not_hold_up_other_calls() -> None:
    """The dear part runs in a thread, and within a call never two of them at once."""
    ears = Ears(EarsSettings(), Care(echo_cancellation=True))
    far = noise(1)
    ears.far_end.play(far, RATE, 0)
    ears.clock.note(1, 1)
    ran = False

    async def another_call() -> None:
        nonlocal ran
        ran = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(another_call)
        await ears.clean(far)
    assert ran
    assert LEAD_SECONDS == 0.02
