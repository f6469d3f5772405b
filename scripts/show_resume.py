#!/usr/bin/env python3
"""A node dies in mid-sentence, and its calls go on at the other one: what became of every final.

Two nodes share one Redis. Callers (`voice-agent call`) stream real speech to both, in turn, and one more call, which nothing
happens to, streams it to the second. When each call has had a final and the first node's callers are in the middle of a
sentence, that node is killed with -9. Afterwards each call's finals are compared with those of the call that nothing
happened to, and with what Redis has kept of it.

    scripts/show_resume.py --calls 10

With the default recording it takes a minute and a quarter. The exit code is 0 when no final is missing, twice, or kept otherwise than told.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import httpx

from voice_agent.settings.schema import Settings
from voice_agent.speech.models import find_models

PATIENCE_SECONDS = 180
FINALS_BEFORE = 1
"""Each call has had so many finals before the node is killed."""


LATE_SECONDS = 1.0


@attrs.define
class Told:
    """What one call's caller was told, from the lines of ``--json``."""

    finals: list[dict[str, Any]] = attrs.field(factory=list)
    session: str = ""
    is_speaking: bool = False
    """Whether words of an utterance without a final have come."""
    notices: Counter[str] = attrs.field(factory=Counter)
    lost: list[dict[str, Any]] = attrs.field(factory=list)
    resumed: list[dict[str, Any]] = attrs.field(factory=list)

    def take(self, line: dict[str, Any]) -> None:
        """Take a line of the call's."""
        if "reconnecting" in line:
            self.lost.append(line["reconnecting"])
        elif "resumed" in line:
            self.resumed.append(line["resumed"])
        else:
            message = line["message"]
            match message["type"]:
                case "ready":
                    self.session = message["session"]
                case "partial":
                    self.is_speaking = True
                case "notice" | "error":
                    self.notices[message["code"]] += 1
                case "final":
                    self.is_speaking = False
                    self.finals.append(message)

    @property
    def texts(self) -> list[str]:
        """The finals' words."""
        return [words(final["text"]) for final in self.finals]


@attrs.define
class Callers:
    """A running ``voice-agent call``."""

    process: subprocess.Popen[str]
    told: dict[int, Told]
    summary: dict[str, Any] = attrs.field(factory=dict)
    _reader: threading.Thread = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None  # noqa: S101 (it is a pipe)
        for text in self.process.stdout:
            line = json.loads(text)
            if "summary" in line:
                self.summary = line["summary"]
            else:
                self.told[line["call"]].take(line)

    def finish(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        return code


def words(text: str) -> str:
    """Reduce text to lower-case words."""
    cleaned = "".join(letter if letter.isalpha() or letter == "'" else " " for letter in text.lower())
    return " ".join(cleaned.split())


@contextmanager
def ending(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End the process with the block."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run a Redis; gives its address."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        sys.exit("this needs redis-server or valkey-server (Debian package redis-server)")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("w") as log, ending(subprocess.Popen(command, stdout=log, text=True)):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def node(folder: Path, name: str, redis_url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server; gives it with its address."""
    home = folder / name
    home.mkdir()
    environ = {
        "VOICE_AGENT__STORE__KIND": "redis",
        "VOICE_AGENT__STORE__REDIS_URL": redis_url,
        "VOICE_AGENT__SERVER__LAME_DUCK_SECONDS": "0",
        # All the calls are wanted, however busy the machine is.
        "VOICE_AGENT__ADMISSION__ENABLED": "false",
    }
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "voice_agent", "serve", "--port", "0", "--log-format", "json"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **environ},
            cwd=home,
        )
    with ending(process):
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        line = process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"the node {name} did not start: {(home / 'log').read_text()[-2000:]}")
        yield process, line.split("http://")[1].split()[0]


@contextmanager
def callers(addresses: list[str], count: int, arguments: argparse.Namespace) -> Iterator[Callers]:
    """Call the addresses in turn, ``count`` calls at once."""
    urls = [part for address in addresses for part in ("--url", f"ws://{address}")]
    options = ["--json", "--calls", str(count), "--speed", f"{arguments.speed:g}", "--silence-seconds", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_agent", "call", *urls, *options, str(arguments.file)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with ending(process):
        yield Callers(process, {number: Told() for number in range(1, count + 1)})


def kill_in_mid_sentence(victim: subprocess.Popen[str], calls: Callers) -> int:
    """Wait until every call has had a final and the victim's calls speak; kill it; return how many of them did."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    ready_at: float | None = None
    while True:
        of_victim = [told for number, told in calls.told.items() if number % 2]
        ready = all(len(told.finals) >= FINALS_BEFORE for told in calls.told.values())
        speaking = sum(told.is_speaking for told in of_victim)
        if ready and ready_at is None:
            ready_at = time.monotonic()
        # On a machine that is too busy for partials few are seen to speak, and there is no more waiting for most.
        is_late = ready_at is not None and time.monotonic() > ready_at + LATE_SECONDS
        if ready and (speaking * 2 > len(of_victim) or (speaking and is_late)):
            break
        if time.monotonic() > deadline or calls.process.poll() is not None:
            sys.exit("the calls did not come so far that a node could be killed")
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    return speaking


def kept_finals(address: str, session: str) -> list[str]:
    """Return what the store has of a call, through the node that lives."""
    answer = httpx.get(f"http://{address}/v1/journals/{session}/transcript", timeout=30)
    return [words(line["text"]) for line in answer.raise_for_status().json()["lines"]]


def overlaps(finals: list[dict[str, Any]]) -> int:
    """How many finals tell a piece of the call that an earlier one has told."""
    spans = sorted((final["start"], final["end"]) for final in finals)
    return sum(later[0] < earlier[1] - 0.05 for earlier, later in pairwise(spans))


def compare(calls: Callers, expected: Told, kept: dict[int, list[str]]) -> dict[str, Any]:
    """Count what is missing, twice, and other than it should be."""
    wanted = Counter(expected.texts)
    missing = twice = overlapping = other = differing = 0
    for number, told in calls.told.items():
        found = Counter(told.texts)
        if found != wanted:
            ended = calls.summary["calls"][number - 1]
            closed = {
                name: ended["closed"].get(name) for name in ("reason", "audio_seconds", "dropped_audio_ms")
            }
            print(f"call {number}: {dict(told.notices)}, {ended['audio_seconds']} s sent, {closed}")
            print(f"  wanted: {sorted((wanted - found).elements())}")
            print(f"  found:  {sorted((found - wanted).elements())}")
        missing += sum((wanted - found).values())
        twice += sum((found - wanted).values())
        overlapping += overlaps(told.finals)
        other += kept[number] != told.texts
        whole, mine = " ".join(expected.texts).split(), " ".join(told.texts).split()
        same = sum(block.size for block in SequenceMatcher(None, whole, mine).get_matching_blocks())
        differing += max(len(whole), len(mine)) - same
    return {
        "finals_wanted": sum(wanted.values()) * len(calls.told),
        "finals_missing": missing,
        "finals_too_many": twice,
        "finals_overlapping": overlapping,
        "words_wanted": len(" ".join(expected.texts).split()) * len(calls.told),
        "words_differing": differing,
        "journals_unlike_what_was_told": other,
    }


def main() -> None:
    """Kill, resume, compare, print."""
    encoder = next(m for m in find_models(Settings()) if m.name == "moonshine-encoder")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=10, help="calls to the two nodes")
    parser.add_argument("--speed", type=float, default=1, help="1 is the speed of sound")
    parser.add_argument("--file", type=Path, default=encoder.path.parent.parent / "two_cities.wav")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis_url = stack.enter_context(redis(folder))
        victim, first = stack.enter_context(node(folder, "first", redis_url))
        _, second = stack.enter_context(node(folder, "second", redis_url))
        untouched = stack.enter_context(callers([second], 1, arguments))
        calls = stack.enter_context(callers([first, second], arguments.calls, arguments))
        speaking = kill_in_mid_sentence(victim, calls)
        codes = [calls.finish(), untouched.finish()]
        expected = untouched.told[1]
        kept = {number: kept_finals(second, told.session) for number, told in calls.told.items()}
    figures = compare(calls, expected, kept)
    resumed = [resumed for told in calls.told.values() for resumed in told.resumed]
    of_victim = [told for number, told in calls.told.items() if number % 2]
    away = sorted(it["away_seconds"] for it in resumed)
    figures |= {
        "calls": len(calls.told),
        "calls_of_the_killed_node": len(of_victim),
        "in_mid_sentence": speaking,
        "resumed": sum(bool(told.resumed) for told in of_victim),
        "attempts": sum(len(told.lost) for told in of_victim),
        "away_seconds_median": round(statistics.median(away), 3) if away else None,
        "away_seconds_max": round(away[-1], 3) if away else None,
        "sound_lost_seconds": sum(it["lost_seconds"] for it in resumed),
        "notices": dict(sum((told.notices for told in calls.told.values()), Counter())),
        "exit_codes": codes,
    }
    for name, value in figures.items():
        print(f"{name.replace('_', ' ')}: {value}")
    is_good = (
        figures["resumed"] == len(of_victim)
        and codes == [0, 0]
        and not any(
            figures[name]
            for name in (
                "finals_missing",
                "finals_too_many",
                "finals_overlapping",
                "journals_unlike_what_was_told",
                "sound_lost_seconds",
            )
        )
    )
    sys.exit(0 if is_good else 1)


if __name__ == "__main__":
    main()
