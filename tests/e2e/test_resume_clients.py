"""``voice-agent call`` on a network that breaks and on nodes that die: every final is there, once."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
import jiwer
import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
CUTTING = runpy.run_path(str(Path(__file__).with_name("cutting_proxy.py")))
PROCESS_SECONDS = 120
SPEED = 3
"""Of the speech: what is tested is where the sound lies, not when it comes."""


@attrs.define
class Told:
    """What a command told, line by line as it came."""

    process: subprocess.Popen[str]
    lines: list[dict[str, Any]] = attrs.field(factory=list)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            line = json.loads(text)
            self.lines.append(line)
            yield line

    def finish(self) -> int:
        for _ in self:
            pass
        return self.process.wait(PROCESS_SECONDS)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [line[kind] for line in self.lines if kind in line]

    @property
    def finals(self) -> list[dict[str, Any]]:
        return [message for message in self.of("message") if message["type"] == "final"]


@contextmanager
def calling(*arguments: object) -> Iterator[Told]:
    """Run ``voice-agent call --json``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "voice_agent", "call", "--json", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Told(process)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def is_partial(line: dict[str, Any]) -> bool:
    return "message" in line and line["message"]["type"] == "partial"


def test_a_call_through_a_network_that_breaks_hears_every_word_once(
    server: Any, assets: Path, words: Callable[[str], str], two_cities_words: str
) -> None:
    """Cut four times in mid-sentence, twice for a second and more: the words of the call beside it that nothing happened to.

    Real speech of 44 s at three times its speed. The two are compared word by word: where an utterance was cut, its
    beginning is heard anew, and recognition may put it otherwise by a word.
    """
    path = assets / "two_cities.wav"
    options = ("--speed", SPEED, "--silence-seconds", 1, path)
    with (
        CUTTING["cutting_proxy"](server.port) as proxy,
        calling("--url", server.url, *options) as whole,
        calling("--url", f"ws://127.0.0.1:{proxy.port}", *options) as broken,
    ):
        cut = 0
        for line in broken:
            finals = len(broken.finals)
            if is_partial(line) and cut < 4 and finals >= 2 * cut + 1:
                cut += 1
                proxy.target = None if cut % 2 else server.port
                assert proxy.cut() == 1
            elif "reconnecting" in line and line["reconnecting"]["attempt"] > 1:
                proxy.target = server.port
        assert broken.finish() == 0
        assert whole.finish() == 0
    assert cut == 4
    assert len(broken.of("resumed")) == 4
    assert [it["lost_seconds"] for it in broken.of("resumed")] == [0.0] * 4
    assert len({message["session"] for message in broken.of("message") if "session" in message}) == 1
    expected, found = ([words(final["text"]) for final in it.finals] for it in (whole, broken))
    error_rate = jiwer.wer(" ".join(expected), " ".join(found))
    print(
        f"{len(expected)} finals, {len(found)} through the network; word error rate between them {error_rate:.3f}"
    )
    assert error_rate <= 0.03
    assert (
        jiwer.wer(two_cities_words, " ".join(found)) <= jiwer.wer(two_cities_words, " ".join(expected)) + 0.03
    )
    for earlier, later in pairwise(broken.finals):
        assert earlier["end"] <= later["start"] + 0.05
        assert earlier["seq"] < later["seq"]


def test_several_calls_outlive_a_drain_on_another_server(
    start_server: Any, assets: Path, words: Callable[[str], str], tmp_path: Path
) -> None:
    """A rolling restart: SIGTERM in mid-call, the grace over, and the other server goes on; the exit code is 0."""
    path = tmp_path / "kept.db"
    first = start_server(store__path=path, server__grace_seconds=1)
    second = start_server(store__path=path)
    with calling("--url", first.url, "--url", second.url, "--calls", 4, assets / "beckett.wav") as told:
        drained = False
        for line in told:
            if is_partial(line) and not drained:
                drained = True
                first.process.terminate()
        assert told.finish() == 0
    assert first.process.wait(30) == 0
    (summary,) = told.of("summary")
    assert [call["resumes"] for call in summary["calls"]] == [1, 0, 1, 0]
    texts = {words(call["text"]) for call in summary["calls"]}
    assert texts == {"ever tried ever failed no matter try again fail again fail better"}


@pytest.mark.skipif(
    shutil.which("redis-server") is None and shutil.which("valkey-server") is None,
    reason="neither redis-server nor valkey-server is installed (Debian package redis-server)",
)
def test_ten_calls_outlive_the_death_of_a_node(assets: Path) -> None:
    """Two nodes on one Redis, ten calls of real speech; SIGKILL in mid-sentence: every final is there, once, and kept once.

    It takes what the speech takes, some ten seconds, for words that came at another speed would be others.
    """
    script = ROOT / "scripts" / "show_resume.py"
    run = subprocess.run(
        [sys.executable, str(script), "--calls", "10", "--file", str(assets / "beckett.wav")],
        capture_output=True,
        text=True,
        timeout=PROCESS_SECONDS,
        check=False,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = dict(re.findall(r"^([a-z ]+): (.*)$", run.stdout, re.MULTILINE))
    assert (figures["resumed"], figures["calls of the killed node"]) == ("5", "5")
    assert figures["finals wanted"] == "60"
