#!/usr/bin/env python3
"""What clean ears cost: CPU for each second of a call, all of it and that of Trio's thread, and memory for each call.

Usage: .venv/bin/python scripts/bench_ears.py [--seconds N] [--calls N]

Frames of 20 ms, as they come; the least of some rounds, because on a shared machine the noise only adds. Prints a table;
asserts nothing, because machines differ.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
import trio

from voice_agent.audio.ears import Care, Ears
from voice_agent.audio.far_end import RATE
from voice_agent.settings.schema import EarsSettings

STEP = RATE // 50
ROUNDS = 5
CARES = {
    "high-pass": Care(high_pass=True),
    "noise": Care(noise_suppression=True),
    "gain": Care(gain_control=True),
    "echo, silent agent": Care(echo_cancellation=True),
    "echo": Care(echo_cancellation=True),
    "all, silent agent": Care(
        echo_cancellation=True, noise_suppression=True, high_pass=True, gain_control=True
    ),
    "all": Care(echo_cancellation=True, noise_suppression=True, high_pass=True, gain_control=True),
}


async def cost(care: Care, *, is_playing: bool, seconds: int) -> tuple[float, float]:
    """Milliseconds of CPU for a second of audio: of the process, and of this thread."""
    frames = (np.random.default_rng(1).standard_normal((50, STEP)) * 0.05).astype(np.float32)
    ears = Ears(EarsSettings(), care)
    whole, own = time.process_time(), time.thread_time()
    for number in range(seconds * 50):
        now = (number + 1) / 50
        if is_playing:
            ears.far_end.play(frames[number % 50], RATE, now - 0.02)
        ears.clock.note(now, now)
        await ears.clean(frames[(number * 7) % 50])
    return (time.process_time() - whole) / seconds * 1000, (time.thread_time() - own) / seconds * 1000


def resident_kib() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


async def memory(care: Care, calls: int) -> float:
    """KiB for each call."""
    before = resident_kib()
    open_ears = [Ears(EarsSettings(), care) for _ in range(calls)]
    for ears in open_ears:
        ears.far_end.play(np.full(STEP, 0.1, np.float32), RATE, 0)
        await ears.clean(np.zeros(STEP, np.float32))
    return (resident_kib() - before) / calls


async def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=50)
    arguments = parser.parse_args()
    # First of all: later on, what other calls have left is used again.
    kib = await memory(CARES["all"], arguments.calls)
    print(f"{'':20s} ms of CPU a second   on Trio's thread")
    for name, care in CARES.items():
        is_playing = care.echo_cancellation and "silent" not in name
        rounds = [await cost(care, is_playing=is_playing, seconds=arguments.seconds) for _ in range(ROUNDS)]
        whole, own = (min(figures) for figures in zip(*rounds, strict=True))
        print(f"{name:20s} {whole:19.1f} {own:18.1f}")
    print(f"memory of a call with all of them: {kib:.0f} KiB")


if __name__ == "__main__":
    trio.run(main)
