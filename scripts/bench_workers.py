"""What workers cost and carry: memory and processor time of one server with 1, 2 and 4 of them, on this machine.

Starts a real server for each row and calls it with real speech in real time. Memory is PSS (proc(5)): what processes share is
divided among them, so the sum is what the machine gives. Prints tables; asserts nothing, because machines differ and are
shared.

    python scripts/bench_workers.py [--workers 1 2 4] [--calls 8] [--seconds 20]
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import httpx
import trio
from bench_cost import cpu_seconds, speech
from prometheus_client.parser import text_string_to_metric_families

from voice_agent.cli.call_client import CallResult, ClientOptions, call_server

WARM_SECONDS = 3
MIB = 1024


@attrs.frozen(kw_only=True)
class Memory:
    """In MiB: of all processes together, and what of it one process more would add."""

    resident: float
    proportional: float
    private: float


@attrs.frozen(kw_only=True)
class Server:
    """A running server, and its processes."""

    process: subprocess.Popen[str]
    place: str

    def pids(self) -> list[int]:
        """The supervisor, the template, the workers; the process alone where there is one."""
        found = [self.process.pid]
        for pid in found:
            for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, tasks.read_text().split())
        return found

    def memory(self, pids: list[int]) -> Memory:
        """Sum up what the kernel says."""
        sums: Counter[str] = Counter()
        for pid in pids:
            for name, kib in re.findall(
                r"^(\w+):\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE
            ):
                sums[name] += int(kib)
        return Memory(
            resident=sums["Rss"] / MIB,
            proportional=sums["Pss"] / MIB,
            private=(sums["Private_Clean"] + sums["Private_Dirty"]) / MIB,
        )

    async def calls_by_worker(self) -> dict[str, float]:
        """How many calls each has had."""
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://{self.place}/metrics", timeout=30)).text
        return {
            sample.labels.get("worker", "-"): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "voice_agent_call_seconds_count"
        }


def start(workers: int, folder: Path) -> Server:
    """Start a server on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0", "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={
            **os.environ,
            # What calls cost is measured, not who is refused for it.
            "VOICE_AGENT__ADMISSION__ENABLED": "false",
            "VOICE_AGENT__SERVER__LAME_DUCK_SECONDS": "0",
        },
    )
    found = re.search(r"http://(\S+)", process.stdout.readline() if process.stdout else "")
    if found is None:
        raise SystemExit("the server did not start; try: voice-agent serve")
    return Server(process=process, place=found[1])


async def measure(workers: int, arguments: argparse.Namespace, folder: Path) -> None:
    """One row: a fresh server."""
    server = await trio.to_thread.run_sync(start, workers, folder)
    url = f"ws://{server.place}/v1/ws"
    results: list[CallResult] = []

    async def one(source: Any, delay_seconds: float) -> None:
        await trio.sleep(delay_seconds)
        results.append(await call_server(url, source, options=ClientOptions()))

    try:
        idle = server.memory(server.pids())
        # What is allocated once, by the first utterances of a process, is no call's own.
        async with trio.open_nursery() as nursery:
            for number in range(2 * workers):
                nursery.start_soon(one, speech(WARM_SECONDS), number * 0.2)
        results.clear()
        before = await server.calls_by_worker()
        pids = server.pids()
        warm = server.memory(pids)
        cpu_before = sum(map(cpu_seconds, pids))
        source = speech(arguments.seconds)
        async with trio.open_nursery() as nursery:
            for index in range(arguments.calls):
                nursery.start_soon(one, source, index * 0.37)
        cpu = sum(map(cpu_seconds, pids)) - cpu_before
        after = await server.calls_by_worker()
        busy = server.memory(pids)
        of_one = server.memory(pids[-1:])
        spread = "+".join(f"{after[name] - before.get(name, 0):.0f}" for name in sorted(after))
        latencies = sorted(latency for result in results for latency in result.final_latencies_seconds)
        failures = sum(result.failure_code is not None for result in results)
        print(
            f"{workers:7d}  {idle.proportional:8.0f}  {warm.proportional:8.0f}  {busy.proportional:8.0f}"
            f"  {busy.resident:8.0f}  {of_one.private:11.0f}"
            f"  {1000 * cpu / (arguments.calls * arguments.seconds):10.0f} ms"
            f"  {statistics.median(latencies):8.2f} s  {latencies[int(len(latencies) * 0.95)]:8.2f} s"
            f"  {spread:>10s}  {failures:6d}",
            flush=True,
        )
    finally:
        server.process.send_signal(signal.SIGTERM)
        await trio.to_thread.run_sync(server.process.wait)
        if server.process.stdout:
            server.process.stdout.close()


async def main(arguments: argparse.Namespace) -> None:
    """Print the table."""
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; {arguments.calls} calls of {arguments.seconds:g} s; "
        "memory in MiB\n"
        "         PSS of all processes                   private to\n"
        "workers      idle      warm      busy   RSS sum   one worker  CPU per s of call"
        "  final p50     p95   calls each  failed"
    )
    folder = Path(tempfile.mkdtemp())
    try:
        for workers in arguments.workers:
            await measure(workers, arguments, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="one row each")
    parser.add_argument("--calls", type=int, default=8, help="callers at once")
    parser.add_argument("--seconds", type=float, default=20, help="length of each call")
    trio.run(main, parser.parse_args())
