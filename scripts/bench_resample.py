#!/usr/bin/env python3
"""Compare the resamplers side by side: CPU, how long they hold audio back, memory, and what their filters let through.

Usage: .venv/bin/python scripts/bench_resample.py [--seconds N] [--markdown]

Rounds of all converters alternate, and each figure of CPU is the least of the rounds: on a shared machine the noise
only adds. Filters are measured with single tones, a half second each:

- held back: input given, minus output received, after each 20 ms; least and greatest;
- passband: the highest tone that loses less than 1 dB, as a share of the lower of the two Nyquist frequencies;
- images: the loudest thing that is not the tone, for tones up to 3.4 kHz (the telephone's band);
- alias near, far: what is left of tones just above the output's Nyquist frequency (1.05), and from 1.25 times it on.
"""

import argparse
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
import samplerate
import soxr

from voice_agent.audio.resample import SAMPLERATE_CONVERTERS, SOXR_RECIPES, open_resampler

Audio = npt.NDArray[np.float32]
Convert = Callable[[Audio], Audio]

PAIRS = ((48_000, 16_000), (8_000, 16_000), (44_100, 16_000))
ROUNDS = 5
TONE_SECONDS = 0.5
TONE_LEVEL = 0.5
STREAMS_FOR_MEMORY = 400
OPENINGS = 100
PAGE_BYTES = 4096
QUIET = 1e-12


def _samplerate(converter: str) -> Callable[[int, int], Convert]:
    def start(input_rate: int, output_rate: int) -> Convert:
        stream = samplerate.Resampler(converter, channels=1)
        ratio = output_rate / input_rate
        return lambda samples: stream.process(samples, ratio)

    return start


def _soxr(recipe: str) -> Callable[[int, int], Convert]:
    def start(input_rate: int, output_rate: int) -> Convert:
        stream = soxr.ResampleStream(input_rate, output_rate, 1, dtype="float32", quality=recipe)
        convert: Convert = stream.resample_chunk
        return convert

    return start


def _ours(library: str, quality: str) -> Callable[[int, int], Convert]:
    def start(input_rate: int, output_rate: int) -> Convert:
        return open_resampler(input_rate, output_rate, library=library, quality=quality).process  # type: ignore[arg-type]

    return start


CONVERTERS = {
    **{f"samplerate {name}": _samplerate(name) for name in SAMPLERATE_CONVERTERS.values()},
    "samplerate linear": _samplerate("linear"),
    **{f"soxr {recipe}": _soxr(recipe) for recipe in ("QQ", "LQ", "MQ", "HQ", "VHQ")},
    **{f"ours: samplerate {quality}": _ours("samplerate", quality) for quality in SAMPLERATE_CONVERTERS},
    **{f"ours: soxr {quality}": _ours("soxr", quality) for quality in SOXR_RECIPES},
}


@attrs.define
class Figures:
    """What is printed of one converter at one pair of rates."""

    cpu_microseconds: float
    held_back_ms: tuple[float, float]
    kibibytes: float
    open_microseconds: float
    passband: float
    images_db: float
    alias_near_db: float | None
    alias_far_db: float | None


def _pieces(samples: Audio, input_rate: int) -> list[Audio]:
    size = input_rate // 50
    return [samples[start : start + size] for start in range(0, len(samples) - size + 1, size)]


def _cpu_microseconds(convert: Convert, pieces: list[Audio]) -> float:
    began = time.process_time()
    for piece in pieces:
        convert(piece)
    return (time.process_time() - began) / len(pieces) * 1e6


def _held_back_ms(
    convert: Convert, pieces: list[Audio], input_rate: int, output_rate: int
) -> tuple[float, float]:
    given = received = 0
    held = []
    for piece in pieces:
        given += len(piece)
        received += len(convert(piece))
        held.append((given / input_rate - received / output_rate) * 1000)
    return min(held), max(held)


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def memory_kibibytes(name: str, input_rate: int, output_rate: int) -> float:
    """Return what one stream takes; true only in a process that has freed nothing before."""
    silence = np.zeros(input_rate // 50, np.float32)
    CONVERTERS[name](input_rate, output_rate)(silence)
    before = _resident_bytes()
    streams = [CONVERTERS[name](input_rate, output_rate) for _ in range(STREAMS_FOR_MEMORY)]
    for stream in streams:
        for _ in range(10):
            stream(silence)
    return (_resident_bytes() - before) / STREAMS_FOR_MEMORY / 1024


def _in_fresh_processes(input_rate: int, output_rate: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        rates = [[rate] * len(CONVERTERS) for rate in (input_rate, output_rate)]
        return dict(zip(CONVERTERS, pool.map(memory_kibibytes, CONVERTERS, *rates), strict=True))


def _opening_microseconds(start: Callable[[int, int], Convert], input_rate: int, output_rate: int) -> float:
    began = time.process_time()
    for _ in range(OPENINGS):
        start(input_rate, output_rate)
    return (time.process_time() - began) / OPENINGS * 1e6


def _tone(
    start: Callable[[int, int], Convert], frequency: float, input_rate: int, output_rate: int
) -> tuple[float, float]:
    """Return the gain of a tone, and the level of everything else beside it, both relative to the tone (linear)."""
    times = np.arange(int(input_rate * (TONE_SECONDS + 0.3))) / input_rate
    tone = (TONE_LEVEL * np.sin(2 * np.pi * frequency * times)).astype(np.float32)
    convert = start(input_rate, output_rate)
    output = np.concatenate([convert(piece) for piece in _pieces(tone, input_rate)]).astype(np.float64)
    middle = slice(int(output_rate * 0.1), int(output_rate * TONE_SECONDS))
    phase = 2 * np.pi * frequency * np.arange(len(output))[middle] / output_rate
    basis = np.stack([np.sin(phase), np.cos(phase)], axis=1)
    fit, *_ = np.linalg.lstsq(basis, output[middle], rcond=None)
    rest = output[middle] - basis @ fit if frequency < output_rate / 2 else output[middle]
    level = TONE_LEVEL / np.sqrt(2)
    return float(np.hypot(*fit)) / TONE_LEVEL, float(np.sqrt(np.mean(rest**2))) / level


def _decibels(value: float) -> float:
    return 20 * float(np.log10(max(value, QUIET)))


def _passband(start: Callable[[int, int], Convert], input_rate: int, output_rate: int) -> float:
    nyquist = min(input_rate, output_rate) / 2
    highest = 0.0
    for share in np.arange(0.5, 1.0, 0.01):
        gain, _ = _tone(start, share * nyquist, input_rate, output_rate)
        if abs(_decibels(gain)) >= 1:
            break
        highest = float(share)
    return highest


def _worst(
    start: Callable[[int, int], Convert], tones: npt.NDArray[np.float64], input_rate: int, output_rate: int
) -> float:
    return _decibels(max(_tone(start, tone, input_rate, output_rate)[1] for tone in tones))


def measure(input_rate: int, output_rate: int, seconds: float) -> dict[str, Figures]:
    """Measure every converter at one pair of rates."""
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, int(input_rate * seconds)).astype(np.float32)
    pieces = _pieces(noise, input_rate)
    cpu = {
        name: min(costs)
        for name, costs in zip(
            CONVERTERS,
            zip(
                *(
                    [
                        _cpu_microseconds(start(input_rate, output_rate), pieces)
                        for start in CONVERTERS.values()
                    ]
                    for _ in range(ROUNDS)
                ),
                strict=True,
            ),
            strict=True,
        )
    }
    nyquist, is_down = output_rate / 2, output_rate < input_rate
    memory = _in_fresh_processes(input_rate, output_rate)
    figures = {}
    for name, start in CONVERTERS.items():
        far = np.linspace(1.25 * nyquist, input_rate / 2 * 0.98, 40)
        figures[name] = Figures(
            cpu_microseconds=cpu[name],
            held_back_ms=_held_back_ms(start(input_rate, output_rate), pieces, input_rate, output_rate),
            kibibytes=memory[name],
            open_microseconds=_opening_microseconds(start, input_rate, output_rate),
            passband=_passband(start, input_rate, output_rate),
            images_db=_worst(start, np.linspace(200, 3_400, 20), input_rate, output_rate),
            alias_near_db=_worst(start, np.array([1.05 * nyquist]), input_rate, output_rate)
            if is_down
            else None,
            alias_far_db=_worst(start, far, input_rate, output_rate) if is_down else None,
        )
    return figures


def _row(name: str, figures: Figures) -> list[str]:
    def decibels(value: float | None) -> str:
        return "-" if value is None else f"{value:.0f}"

    least, greatest = figures.held_back_ms
    return [
        name,
        f"{figures.cpu_microseconds:.0f}",
        f"{least:.1f}-{greatest:.1f}",
        f"{figures.kibibytes:.0f}",
        f"{figures.open_microseconds:.0f}",
        f"{figures.passband:.0%}",
        decibels(figures.images_db),
        decibels(figures.alias_near_db),
        decibels(figures.alias_far_db),
    ]


HEADER = [
    "converter",
    "CPU us/20 ms",
    "held back ms",
    "KiB a stream",
    "open us",
    "passband",
    "images dB",
    "alias near dB",
    "alias far dB",
]


def main() -> None:
    """Measure and print one table for each pair of rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="audio converted for each figure of CPU")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")
    options = parser.parse_args()
    for input_rate, output_rate in PAIRS:
        rows = [
            _row(name, figures) for name, figures in measure(input_rate, output_rate, options.seconds).items()
        ]
        print(f"\n{input_rate} -> {output_rate} Hz\n")
        if options.markdown:
            print("| " + " | ".join(HEADER) + " |")
            print("|" + "---|" * len(HEADER))
            for row in rows:
                print("| " + " | ".join(row) + " |")
            continue
        widths = [max(len(row[column]) for row in [HEADER, *rows]) for column in range(len(HEADER))]
        for row in [HEADER, *rows]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
