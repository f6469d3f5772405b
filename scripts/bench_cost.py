"""What a call costs: the server's CPU per second of call, and its memory per added call, on this machine.

Starts a real server process and calls it with real speech in real time, 1, 4 and 8 callers at once, for finals only
and with partials. Prints a table; asserts nothing, because machines differ and are shared.

    python scripts/bench_cost.py [--seconds 20] [--calls 1 4 8]
"""

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import trio

from voice_agent.audio.files import read_audio
from voice_agent.audio.resample import open_resampler
from voice_agent.cli.call_audio import AudioMessage, MemorySource
from voice_agent.cli.call_client import CallResult, ClientOptions, call_server
from voice_agent.core.formats import AudioFormat
from voice_agent.core.frames import AudioFrame
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
FRAME_SECONDS = 0.02


def speech(seconds: float) -> MemorySource:
    """Real speech, 16 kHz, repeated to the length wanted, in 20 ms messages."""
    path = find_models(Settings())[0].path.parent.parent / "two_cities.wav"
    frame = read_audio(path)
    resampler = open_resampler(frame.sample_rate, 16_000, library="soxr", quality="medium")
    samples = np.concatenate((resampler.process(frame.to_mono_float32()), resampler.flush()))
    samples = np.resize(samples, int(seconds * 16_000))
    data = AudioFrame(samples, 16_000).to_s16le()
    step = int(FRAME_SECONDS * 16_000) * 2
    return MemorySource(
        AudioFormat(),
        [AudioMessage(data[i : i + step], (i + step) / 32_000) for i in range(0, len(data), step)],
    )


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


def start() -> tuple[subprocess.Popen[str], str]:
    """Start a server on a free port and return it with its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # What calls cost is measured, not who is refused for it.
        env={**os.environ, "VOICE_AGENT__ADMISSION__ENABLED": "false"},
    )
    line = process.stdout.readline() if process.stdout else ""
    found = re.search(r"http://(\S+)", line)
    if found is None:
        raise SystemExit("the server did not start; try: voice-agent serve")
    return process, f"ws://{found[1]}/v1/ws"


async def measure(calls: int, *, partials: bool, seconds: float) -> None:
    """One row: a fresh server, so that memory begins at the same place."""
    process, url = await trio.to_thread.run_sync(start)
    source = speech(seconds)
    options = ClientOptions(partials=partials)
    results: list[CallResult] = []
    peaks: list[float] = []

    async def one(delay_seconds: float) -> None:
        await trio.sleep(delay_seconds)
        results.append(await call_server(url, source, options=options))

    async def watch() -> None:
        while True:
            peaks.append(resident_mib(process.pid))
            await trio.sleep(0.25)

    try:
        # What is allocated once, by the first utterance of all, is no call's own.
        await call_server(url, speech(3), options=options)
        memory_before, cpu_before = resident_mib(process.pid), cpu_seconds(process.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            async with trio.open_nursery() as callers:
                for index in range(calls):
                    # Callers do not all speak the same word at the same instant.
                    callers.start_soon(one, index * 0.37)
            nursery.cancel_scope.cancel()
        cpu = cpu_seconds(process.pid) - cpu_before
        latencies = [latency for result in results for latency in result.final_latencies_seconds]
        failures = sum(result.failure_code is not None for result in results)
        print(
            f"{calls:5d}  {'partials' if partials else 'finals only':11s}"
            f"  {1000 * cpu / (calls * seconds):10.1f} ms"
            f"  {(max(peaks) - memory_before) / calls:12.1f} MiB"
            f"  {statistics.median(latencies):9.3f} s"
            f"  {sum(len(r.finals) for r in results):7d}  {failures:6d}",
            flush=True,
        )
    finally:
        process.send_signal(signal.SIGTERM)
        await trio.to_thread.run_sync(process.wait)
        if process.stdout:
            process.stdout.close()


async def main(arguments: argparse.Namespace) -> None:
    """Print the table."""
    print("calls  transcripts  CPU per s of call  memory per call  final p50   finals  failed")
    for partials in (False, True):
        for calls in arguments.calls:
            await measure(calls, partials=partials, seconds=arguments.seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=20, help="length of each call")
    parser.add_argument(
        "--calls", type=int, nargs="+", default=[1, 4, 8], help="callers at once, one row each"
    )
    trio.run(main, parser.parse_args())
