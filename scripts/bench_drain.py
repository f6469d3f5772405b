#!/usr/bin/env python3
"""What a drain costs callers: calls that speak, SIGTERM in the middle, and what became of every word.

A server process gets calls that stream real speech in real time. At SIGTERM half of them are about to finish within the
grace time, the other half goes on until it is cut off at the deadline. Afterwards each call's transcript is compared with
what an idle server makes of exactly the audio that the call was heard with (the close record's position says how
much): a word that the idle server understands and the drained call was not told is lost.

    scripts/bench_drain.py --calls 20
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from voice_agent.audio.files import read_audio
from voice_agent.audio.resample import open_resampler
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

RATE = 16_000
FRAME_SECONDS = 0.1
SECONDS_BEFORE = 8.0
"""Calls speak so long before the signal."""


@attrs.define
class Call:
    """One caller: what it says, and what it was told."""

    speech: np.ndarray
    texts: list[str] = attrs.field(factory=list)
    closed: dict[str, Any] | None = None
    close_code: int | None = None
    was_warned: bool = False

    def heard(self) -> np.ndarray:
        """Return the part of the speech that the server has heard."""
        assert self.closed is not None  # noqa: S101 (asked of finished calls)
        if self.closed["reason"] == "stopped":
            return self.speech
        # Cut off behind a whole message, so the milliseconds are exact.
        return self.speech[: round(self.closed["position_ms"] * RATE / 1000)]


@contextmanager
def server(
    log_to: Path | None = None, **settings: float | str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server process; gives it with its address. Its log is kept where one wants it."""
    environ = {f"VOICE_AGENT__{key.upper()}": str(value) for key, value in settings.items()}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "voice_agent", "serve", "--port", "0", "--log-format", "json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # All the calls are wanted, however busy the machine is.
            env={**os.environ, "VOICE_AGENT__ADMISSION__ENABLED": "false", **environ},
            cwd=folder,
        )
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        try:
            yield process, process.stdout.readline().split("http://")[1].split()[0]
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            if log_to is not None:
                shutil.copy(log.name, log_to)


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[WebSocketConnection]:
    """Open a call."""
    host, _, port = address.rpartition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    try:
        async with trio.open_nursery() as nursery:
            yield await wrap_client_stream(nursery, stream, address, "/v1/ws?partials=false")
            nursery.cancel_scope.cancel()
    finally:
        await trio.aclose_forcefully(stream)


async def listen(socket: WebSocketConnection, call: Call) -> None:
    """Take what the server tells until the call is closed."""
    try:
        while True:
            message = json.loads(await socket.get_message())
            match message["type"]:
                case "final":
                    call.texts.append(message["text"])
                case "closed":
                    call.closed = message
                case "notice" if message["code"] == "draining":
                    call.was_warned = True
    except ConnectionClosed as closed:
        call.close_code = closed.reason.code if closed.reason else None


async def speak(address: str, call: Call, *, in_real_time: bool) -> None:
    """Hold one call to its end, whoever ends it."""
    step = round(RATE * FRAME_SECONDS)
    async with connected(address) as socket, trio.open_nursery() as nursery:
        nursery.start_soon(listen, socket, call)
        began = trio.current_time()
        try:
            for number, begin in enumerate(range(0, len(call.speech), step)):
                await socket.send_message(call.speech[begin : begin + step].tobytes())
                if in_real_time:
                    await trio.sleep_until(began + (number + 1) * FRAME_SECONDS)
            await socket.send_message(json.dumps({"type": "stop"}))
        except ConnectionClosed:
            pass  # the deadline came first; what matters is what was told


async def drain(process: subprocess.Popen[str], address: str, calls: list[Call], grace: float) -> float:
    """Run the calls, send SIGTERM, and return how long the process took to end."""
    async with trio.open_nursery() as nursery:
        for number, call in enumerate(calls):
            nursery.start_soon(_begin, address, call, number / len(calls))
        await trio.sleep(1 + SECONDS_BEFORE)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await trio.to_thread.run_sync(process.wait, grace + 60)
        return time.monotonic() - began


async def _begin(address: str, call: Call, after_seconds: float) -> None:
    await trio.sleep(after_seconds)
    await speak(address, call, in_real_time=True)


async def understand(address: str, calls: list[Call]) -> list[str]:
    """Return what an idle server makes of what each call was heard with."""
    texts = []
    for call in calls:
        again = Call(call.heard())
        await speak(address, again, in_real_time=False)
        texts.append(" ".join(again.texts))
    return texts


def words(text: str) -> Counter[str]:
    """Count a text's words."""
    cleaned = "".join(letter if letter.isalpha() or letter == "'" else " " for letter in text.lower())
    return Counter(cleaned.split())


def make_calls(count: int, grace: float, seed: int) -> list[Call]:
    """Cut each call's speech out of a recording: even ones end within the grace time, odd ones go on beyond it."""
    encoder = next(m for m in find_models(Settings()) if m.name == "moonshine-encoder")
    frame = read_audio(encoder.path.parent.parent / "two_cities.wav")
    resampler = open_resampler(frame.sample_rate, RATE)
    whole = np.concatenate((resampler.process(frame.to_mono_float32()), resampler.flush()))
    recording = (whole * 32_767).astype("<i2")
    rng = random.Random(seed)
    calls = []
    for number in range(count):
        seconds = SECONDS_BEFORE + (grace * rng.uniform(0.1, 0.6) if number % 2 == 0 else grace + 30)
        start = rng.randrange(len(recording))
        calls.append(Call(_with_pauses(np.roll(recording, -start), rng)[: round(seconds * RATE)]))
    return calls


def _with_pauses(recording: np.ndarray, rng: random.Random) -> np.ndarray:
    """Speak as one does in a conversation, about half of the time."""
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < 120 * RATE:
        recording = np.roll(recording, -round(RATE * rng.uniform(2, 5)))
        pieces.append(recording[: round(RATE * rng.uniform(2, 5))])
        pieces.append(np.zeros(round(RATE * rng.uniform(2, 5)), "<i2"))
    return np.concatenate(pieces)


def main() -> None:
    """Drain, compare, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20, help="live calls at the signal")
    parser.add_argument("--grace", type=float, default=8, help="grace time in seconds")
    parser.add_argument("--seed", type=int, default=1, help="where in the recording each call begins")
    parser.add_argument("--log", type=Path, help="keep the log of the drained server there")
    arguments = parser.parse_args()
    grace = arguments.grace
    calls = make_calls(arguments.calls, grace, arguments.seed)
    with server(arguments.log, server__grace_seconds=grace, server__lame_duck_seconds=2) as (
        process,
        address,
    ):
        seconds = trio.run(drain, process, address, calls, grace)
        code = process.returncode
    with server(session__max_waiting_audio_ms=600_000, limits__max_audio_rate=1000) as (_, address):
        expected = trio.run(understand, address, [call for call in calls if call.closed])
    closed = [call for call in calls if call.closed]
    lost = [
        sum((words(text) - words(" ".join(call.texts))).values())
        for call, text in zip(closed, expected, strict=True)
    ]
    for call, text, count in zip(closed, expected, lost, strict=True):
        if count:
            print(f"lost in a call of {call.closed and call.closed['position_ms']} ms:")
            print(f"  told:      {' '.join(call.texts)}\n  undrained: {text}")
    reasons = Counter(call.closed["reason"] for call in closed if call.closed)
    print(f"calls: {len(calls)}, told of the drain: {sum(call.was_warned for call in calls)}")
    print(f"calls finished with their close record: {len(closed)} {dict(reasons)}")
    print(f"close codes: {dict(Counter(int(call.close_code or 0) for call in calls))}")
    print(
        f"words told: {sum(sum(words(' '.join(call.texts)).values()) for call in calls)}, lost: {sum(lost)}"
    )
    dropped = sum(call.closed["dropped_audio_ms"] for call in closed if call.closed)
    print(f"audio dropped: {dropped} ms")
    print(f"exit code: {code}, {seconds:.2f} s after SIGTERM (grace {grace:g} s)")
    sys.exit(0 if len(closed) == len(calls) and not sum(lost) and code == 0 and seconds <= grace + 5 else 1)


if __name__ == "__main__":
    main()
