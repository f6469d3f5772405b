"""What one call costs Redis, and how many calls one Redis could carry: measured, and then computed.

    python scripts/bench_redis.py [--calls 4] [--seconds 60] [--fsync everysec] [--program redis-server]

First a real server keeps real calls, which speak at the speed of sound, in a Redis of this script's own: what Redis counts
meanwhile, less what a server without calls costs, is the cost of a call's minute. Then the same writes, as the store's own
script makes them, go to Redis as fast as it takes them, over connections that never wait: what a write costs its one
thread. The last line divides one by the other. It is an estimate: of one Redis process on this machine, kept busy to 70 %,
that does nothing else.
"""

import argparse
import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from voice_agent.core.journal import EntryKind, JournalEntry, SessionRecord
from voice_agent.session.store.codec import dump_entry, dump_record
from voice_agent.session.store.redis_scripts import WRITE_SCRIPT
from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

BUSY_SHARE = 0.7
"""Of one processor: above it queues grow."""
IDLE_SECONDS = 20
CONNECTIONS = 8
IN_FLIGHT = 16
"""Writes that wait on each connection, as a busy node's do."""
NAME = "n" * 32
"""As long as a session's id."""
ENTRY_TEXT = "it was the best of times, it was the worst of times"


class Redis:
    """A Redis of this script's own."""

    def __init__(self, folder: Path, program: str, fsync: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [
            program,
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(folder),
            "--save",
            "",
        ]
        if fsync != "none":
            command += ["--appendonly", "yes", "--appendfsync", fsync]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while True:
            with contextlib.suppress(OSError):
                self.ask("PING")
                return
            time.sleep(0.05)

    def ask(self, *words: str) -> str:
        """Ask one question on a connection of its own."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as asking:
            asking.sendall(encoded(*words))
            asking.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: asking.recv(65_536), b"")).decode()

    def counts(self) -> dict[str, float]:
        """Return how often each command was called by a client, bytes each way, and processor seconds."""
        found = self.ask("INFO", "everything")
        counts = {
            name: float(calls)
            for name, calls in re.findall(r"^cmdstat_(\S+?):calls=(\d+)", found, re.MULTILINE)
        }
        for field in ("total_net_input_bytes", "total_net_output_bytes", "used_cpu_user_main_thread",
                      "used_cpu_sys_main_thread"):  # fmt: skip
            value = re.search(rf"^{field}:(\S+)", found, re.MULTILINE)
            counts[field] = float(value[1]) if value else 0.0
        return counts

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


def encoded(*words: str | bytes) -> bytes:
    """Return a command as Redis reads it (RESP)."""
    raw = [word if isinstance(word, bytes) else word.encode() for word in words]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """What was counted between two looks."""
    return {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name)}


def speech(folder: Path, seconds: int) -> Path:
    """A file of real speech of that length: the recording beside the models, again and again."""
    encoder = next(model for model in find_models(Settings()) if model.name == "moonshine-encoder")
    samples, rate = soundfile.read(encoder.path.parent.parent / "beckett.wav", dtype="int16")
    path = folder / "speech.wav"
    soundfile.write(path, np.resize(samples, seconds * rate), rate)
    return path


@contextlib.contextmanager
def server(redis: Redis, folder: Path) -> Iterator[str]:
    """A real server that keeps its calls there."""
    environ = {
        **os.environ,
        "VOICE_AGENT__STORE__KIND": "redis",
        "VOICE_AGENT__STORE__REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
        "VOICE_AGENT__SERVER__LAME_DUCK_SECONDS": "0",
        "VOICE_AGENT__ADMISSION__ENABLED": "false",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_agent", "serve", "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ, cwd=folder,
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    line = process.stdout.readline()
    found = re.search(r"http://(127\.0\.0\.1:\d+)", line)
    if found is None:
        raise SystemExit(f"the server did not start: {line}")
    try:
        yield f"ws://{found[1]}/v1/ws"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def cost_of_calls(redis: Redis, folder: Path, calls: int, seconds: int) -> dict[str, float]:
    """Return what one minute of one call costs; what a server without calls does is taken off."""
    path = speech(folder, seconds)
    with server(redis, folder) as url:
        before = redis.counts()
        time.sleep(IDLE_SECONDS)
        idle = {name: value / IDLE_SECONDS for name, value in difference(redis.counts(), before).items()}
        show("a node without calls, each minute", {name: value * 60 for name, value in idle.items()})
        before, began_at = redis.counts(), time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "voice_agent", "call", "--url", url, "--calls", str(calls), str(path)],
            check=True, stdout=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        took = time.monotonic() - began_at
        both = difference(redis.counts(), before)
    minutes = calls * seconds / 60
    keys = redis.ask("KEYS", "voice-agent:{*").split("\r\n")[2::2]
    held = sum(int(redis.ask("MEMORY", "USAGE", key)[1:]) for key in keys)
    print(f"memory that a call's minute takes: {held / minutes / 1000:.1f} kB")
    return {name: max(0.0, (value - idle.get(name, 0.0) * took) / minutes) for name, value in both.items()}


def show(title: str, counts: dict[str, float]) -> None:
    """Print counts, the scripts' inner commands and our own looks left out."""
    sent = {
        name: n
        for name, n in counts.items()
        if name in {"evalsha", "zadd", "set", "get", "hget", "zrange", "xrange"}
    }
    print(f"{title}:")
    print("  commands  " + ", ".join(f"{name} {n:.1f}" for name, n in sorted(sent.items()) if n >= 0.05))
    print(
        f"  bytes     {counts.get('total_net_input_bytes', 0) / 1000:.1f} kB in, "
        f"{counts.get('total_net_output_bytes', 0) / 1000:.1f} kB out"
    )
    seconds = counts.get("used_cpu_user_main_thread", 0) + counts.get("used_cpu_sys_main_thread", 0)
    print(f"  processor {seconds * 1000:.1f} ms")


def writes(sha: str) -> bytes:
    """The first commands of one call, one after the other, as the store sends them; the call is named NAME."""
    record = dump_record(
        SessionRecord(
            session_id=NAME, key_id="anonymous", tenant="default", wire="websocket", encoding="pcm_s16le",
            sample_rate=16_000, channels=1, language="en", agent="none", settings_version=1, node="node-1",
            opened_at=1.7e9, updated_at=1.7e9, lease_until=1.7e9 + 30, resumable_seconds=60.0, token_sha256="0" * 64,
        )
    )  # fmt: skip
    keys = (f"bench:{{{NAME}}}:record", f"bench:{{{NAME}}}:journal")
    commands = []
    for number in range(1, IN_FLIGHT + 1):
        body = {
            "text": ENTRY_TEXT,
            "start": number * 2.0,
            "end": number * 2.0 + 1.5,
            "is_final": True,
            "stream": 0,
        }
        entry = JournalEntry(
            number=number, seq=number * 4, kind=EntryKind.FINAL, at=1.7e9 + number, position_ms=number * 2000,
            heard_ms=number * 2000, body=body,
        )  # fmt: skip
        arguments = [1, record, 3600, 1.7e9 + number, number, number * 4, number * 2000, dump_entry(entry)]
        commands.append(encoded("EVALSHA", sha, "2", *keys, *map(str, arguments)))
    return b"".join(commands)


def rate_of_writes(redis: Redis, seconds: float) -> tuple[float, float]:
    """Return how many writes a second Redis took, and how many processor seconds each cost it."""
    sha = redis.ask("SCRIPT", "LOAD", WRITE_SCRIPT).splitlines()[1]
    selector = selectors.DefaultSelector()
    for _ in range(CONNECTIONS):
        selector.register(socket.create_connection(("127.0.0.1", redis.port)), selectors.EVENT_READ, 0)
    template = writes(sha)
    session = done = 0

    def send(connection: socket.socket) -> None:
        nonlocal session
        session += 1
        connection.sendall(template.replace(NAME.encode(), f"{session:032d}".encode()))

    before, began_at = redis.counts(), time.monotonic()
    for key in list(selector.get_map().values()):
        assert isinstance(key.fileobj, socket.socket)  # noqa: S101 (registered above)
        send(key.fileobj)
    while time.monotonic() < began_at + seconds:
        for key, _ in selector.select(1):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)  # noqa: S101 (registered above)
            answers = connection.recv(65_536)
            if b"-" in answers:
                raise SystemExit(f"a write was refused: {answers!r}")
            count = answers.count(b":")
            done += count
            answered = key.data + count
            if answered == IN_FLIGHT:
                answered = 0
                send(connection)
            selector.modify(connection, selectors.EVENT_READ, answered)
    took = time.monotonic() - began_at
    counted = difference(redis.counts(), before)
    processor = counted["used_cpu_user_main_thread"] + counted["used_cpu_sys_main_thread"]
    return done / took, processor / done


def main() -> None:
    """Measure both, and divide."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--fsync", choices=["always", "everysec", "none"], default="everysec")
    parser.add_argument("--program", default="redis-server")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis = Redis(folder, chosen.program, chosen.fsync)
        try:
            minute = cost_of_calls(redis, folder, chosen.calls, chosen.seconds)
            show(f"a call's minute (mean of {chosen.calls} calls of {chosen.seconds} s)", minute)
            rate, write_seconds = rate_of_writes(redis, 10)
        finally:
            redis.end()
    print(
        f"writes as fast as it takes them: {rate:,.0f} a second, {write_seconds * 1e6:.1f} µs of its thread each"
    )
    # A plain command costs a fraction of a script; counted as half of one.
    scripts = minute.get("evalsha", 0.0) + minute.get("zadd", 0.0) / 2
    print(
        f"so a call's minute is {scripts:.1f} writes, and one Redis, busy to {BUSY_SHARE:.0%}, carries (an estimate):"
    )
    print(f"  by its thread's time  about {BUSY_SHARE * 60 / (scripts * write_seconds):,.0f} calls")
    print(f"  by the rate that it reached here  about {BUSY_SHARE * rate * 60 / scripts:,.0f} calls")


if __name__ == "__main__":
    main()
