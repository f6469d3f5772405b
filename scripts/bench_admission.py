"""What admission is for: callers come who would be too many, and those who are served don't notice.

Starts real server processes and calls them with real speech in real time. Callers arrive one by one until some are refused:
so many fit, N. While they speak on, N more arrive at once and try again as they are told, in turns with quiet. Then the same 2N without admission,
and 2N who arrive in one instant at a server that has just started. Prints the latency of finals, from the end of
speech; asserts nothing, because machines differ and are shared. About three minutes.

    python scripts/bench_admission.py [--seconds 32] [--set admission.max_load=0.8 ...]
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable

import attrs
import numpy as np
import trio

from voice_agent.audio.files import read_audio
from voice_agent.audio.resample import open_resampler
from voice_agent.core.frames import AudioFrame
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

CHUNK_SECONDS = 0.1
CHUNK_BYTES = int(CHUNK_SECONDS * 16_000) * 2
SETTLING_SECONDS = 5
REFUSALS_THAT_TELL_N = 3
TURNS = 4
HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: int, body: bytes) -> bytes:
    """A client's frame (RFC 6455, section 5.2); a mask of zeros leaves the body as it is, and costs nothing."""
    size = len(body)
    length = bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    return bytes([0x80 | opcode]) + length + b"\0\0\0\0" + body


def speech() -> list[bytes]:
    """Real speech, 16 kHz, as frames of 100 ms that are ready to be sent."""
    recording = read_audio(find_models(Settings())[0].path.parent.parent / "two_cities.wav")
    resampler = open_resampler(recording.sample_rate, 16_000, library="soxr", quality="medium")
    samples = np.concatenate((resampler.process(recording.to_mono_float32()), resampler.flush()))
    data = AudioFrame(samples, 16_000).to_s16le()
    return [
        frame(2, data[at : at + CHUNK_BYTES]) for at in range(0, len(data) - CHUNK_BYTES + 1, CHUNK_BYTES)
    ]


@attrs.define
class Crowd:
    """Callers of one server, and what they saw."""

    port: int
    frames: list[bytes]
    finals: list[tuple[float, float, int]] = attrs.field(factory=list)
    """When a final came, how long after the speech it came, and whose it was."""
    admitted: int = 0
    refused: int = 0
    hang_up: trio.Event = attrs.field(factory=trio.Event)

    async def call(self, task_status: trio.TaskStatus[bool] = trio.TASK_STATUS_IGNORED) -> None:
        """Call, and speak until the crowd hangs up; tell whether the server took the call."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(HANDSHAKE)
            received = bytearray()
            while b"\r\n\r\n" not in received:
                received += await stream.receive_some(65_536) or b"HTTP/1.1 0 \r\n\r\n"
            head, _, rest = bytes(received).partition(b"\r\n\r\n")
            if b" 101 " not in head.split(b"\r\n")[0]:
                self.refused += 1
                task_status.started(False)
                return
            self.admitted += 1
            number = self.admitted
            task_status.started(True)
            began_at = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, stream, bytearray(rest), began_at, number)
                await self._speak(stream, began_at, number)
                nursery.cancel_scope.cancel()

    async def call_again_and_again(self) -> None:
        """Call, and when refused try again when the server says, until the crowd hangs up."""
        async with trio.open_nursery() as nursery:
            while not self.hang_up.is_set() and not await nursery.start(self.call):
                with trio.move_on_after(5):
                    await self.hang_up.wait()

    async def _speak(self, stream: trio.SocketStream, began_at: float, number: int) -> None:
        # Callers do not all speak the same word at the same instant.
        at = number * 37
        try:
            await stream.send_all(frame(1, b'{"type":"start"}'))
            while not self.hang_up.is_set():
                at += 1
                await trio.sleep_until(began_at + (at - number * 37) * CHUNK_SECONDS)
                await stream.send_all(self.frames[at % len(self.frames)])
        except trio.BrokenResourceError:
            return

    async def _listen(
        self, stream: trio.SocketStream, received: bytearray, began_at: float, number: int
    ) -> None:
        while True:
            for text in texts(received):
                message = json.loads(text)
                if message["type"] == "final":
                    now = trio.current_time()
                    self.finals.append((now, now - began_at - message["end"], number))
            try:
                data = await stream.receive_some(65_536)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            received += data

    def latencies(self, since: float, until: float, up_to: int = 10_000) -> list[float]:
        """Latencies of the finals of a time, of the first so many callers."""
        return [late for at, late, number in self.finals if since <= at < until and number <= up_to]


def texts(received: bytearray) -> Iterable[bytes]:
    """Take the whole text frames off the front; a server's frames are not masked."""
    while len(received) >= 2:
        size, begin = received[1] & 0x7F, 2
        if size == 126:
            size, begin = int.from_bytes(received[2:4], "big"), 4
        if len(received) < begin + size or begin > len(received):
            return
        opcode, body = received[0] & 0x0F, bytes(received[begin : begin + size])
        del received[: begin + size]
        if opcode == 1:
            yield body


def start(settings: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
    """Start a server on a free port and return it with the port."""
    environ = {
        **os.environ,
        **{f"VOICE_AGENT__{key.replace('.', '__').upper()}": value for key, value in settings.items()},
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environ,
    )
    line = process.stdout.readline() if process.stdout else ""
    found = re.search(r"http://\S+:(\d+)", line)
    if found is None:
        raise SystemExit("the server did not start; try: voice-agent serve")
    return process, int(found[1])


def end(process: subprocess.Popen[str]) -> None:
    """End a server."""
    process.send_signal(signal.SIGTERM)
    process.wait()
    if process.stdout:
        process.stdout.close()


def figures(latencies: list[float]) -> str:
    """Median, 95th percentile and number."""
    if not latencies:
        return "no finals"
    median, p95 = np.percentile(latencies, [50, 95])
    return f"p50 {median:.3f} s  p95 {p95:.3f} s  ({len(latencies)} finals, machine load {os.getloadavg()[0]:.1f})"


def p95(latencies: list[float]) -> float:
    """The 95th percentile."""
    return float(np.percentile(latencies, 95)) if latencies else float("nan")


async def one_by_one_then_a_rush(frames: list[bytes], seconds: float, settings: dict[str, str]) -> int:
    """Find N, measure it, and measure it again while N more want in; return N."""
    process, port = await trio.to_thread.run_sync(start, settings)
    crowd = Crowd(port, frames)
    try:
        async with trio.open_nursery() as nursery:
            while crowd.refused < REFUSALS_THAT_TELL_N:
                await nursery.start(crowd.call)
                await trio.sleep(1)
            fit = crowd.admitted
            await trio.sleep(SETTLING_SECONDS)
            before: list[float] = []
            during: list[float] = []
            refused_before = crowd.refused
            # In turns, so that what else the machine does falls on both alike.
            for _ in range(TURNS):
                began_at = trio.current_time()
                await trio.sleep(seconds / TURNS)
                before += crowd.latencies(began_at, trio.current_time(), fit)
                began_at = trio.current_time()
                async with trio.open_nursery() as rush:
                    for _ in range(fit):
                        rush.start_soon(crowd.call_again_and_again)
                    await trio.sleep(seconds / TURNS)
                    rush.cancel_scope.cancel()
                during += crowd.latencies(began_at, trio.current_time(), fit)
            crowd.hang_up.set()
            with trio.move_on_after(3):
                await trio.sleep_forever()
            nursery.cancel_scope.cancel()
        print(f"arriving one by one, {fit} fit", flush=True)
        print(f"  the {fit} alone:                     {figures(before)}")
        print(
            f"  while {fit} more want in:            {figures(during)}\n"
            f"    {crowd.refused - refused_before} refusals, {crowd.admitted - fit} let in; "
            f"p95 is {p95(during) / p95(before):.2f} times what it was",
            flush=True,
        )
        return fit
    finally:
        await trio.to_thread.run_sync(end, process)


async def all_at_once(
    callers: int, frames: list[bytes], seconds: float, settings: dict[str, str], title: str
) -> None:
    """Let callers arrive in one instant, and measure those who are served."""
    process, port = await trio.to_thread.run_sync(start, settings)
    crowd = Crowd(port, frames)
    try:
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(crowd.call)
            await trio.sleep(SETTLING_SECONDS)
            began_at = trio.current_time()
            await trio.sleep(seconds)
            ended_at = trio.current_time()
            nursery.cancel_scope.cancel()
        print(f"{title}: {crowd.admitted} let in, {crowd.refused} refused")
        print(f"  those let in:                   {figures(crowd.latencies(began_at, ended_at))}", flush=True)
    finally:
        await trio.to_thread.run_sync(end, process)


async def main(arguments: argparse.Namespace) -> None:
    """Print all of it."""
    frames = await trio.to_thread.run_sync(speech)
    settings = dict(pair.split("=", 1) for pair in arguments.set)
    fit = await one_by_one_then_a_rush(frames, arguments.seconds, settings)
    await all_at_once(
        2 * fit, frames, arguments.seconds, settings, f"{2 * fit} in one instant, with admission"
    )
    without = {**settings, "admission.enabled": "false"}
    await all_at_once(
        2 * fit, frames, arguments.seconds, without, f"{2 * fit} in one instant, without admission"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=32, help="how long each figure is measured")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="SETTING=VALUE", help="settings of the server"
    )
    trio.run(main, parser.parse_args())
