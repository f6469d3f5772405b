"""`voice-agent talk`, as a process: lines in, answers out, settings followed, time kept."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
PRICE = 'price_per_gram = {price}\nprice_time = "2025-11-25T09:30:00+05:30"\nprice_max_age_hours = 87600\n'
PATIENCE_SECONDS = 30


class TalkProcess:
    """A talk that runs; its output is read line by line."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "voice_agent", "talk", *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))},
        )

    def until(self, words: str) -> str:
        """Read up to the line with these words."""
        assert self.process.stdout is not None
        lines = []
        watchdog = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        watchdog.start()
        try:
            for line in self.process.stdout:
                lines.append(line)
                if words in line:
                    return "".join(lines)
        finally:
            watchdog.cancel()
        raise AssertionError(f"{words!r} never came; what came: {lines}")

    def say(self, line: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Hang up; gives the exit code and what came on standard error."""
        _, errors = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, errors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with a price in its settings."""
    (tmp_path / "settings.toml").write_text("[gold]\n" + PRICE.format(price="9000.0"))
    return tmp_path


def test_a_talk_about_gold_follows_the_settings(folder: Path) -> None:
    """From the disclosure to the goodbye; a price that changes meanwhile is the price of the next offer."""
    talk = TalkProcess(folder, "--agent", "gold_loan", "--facts")
    assert "I am a machine" in talk.until("[greeting:")
    for line in ("yes", "nobody", "forty grams of twenty two carat"):
        talk.say(line)
    assert "₹2,47,320" in talk.until("[presentation:")
    other = folder / "other.toml"
    other.write_text("[gold]\n" + PRICE.format(price="10000.0"))
    other.replace(folder / "settings.toml")
    for _ in range(200):
        talk.say("what would I get")
        if "₹2,74,800" in talk.until("[presentation:"):
            break
        assert talk.process.poll() is None
    else:
        raise AssertionError("the new price was never used")
    talk.say("no thanks, bye")
    assert "Goodbye" in talk.until("[farewell:")
    talk.say("bye")
    assert talk.end() == (0, "")


def test_spoken_figures_are_words(folder: Path) -> None:
    """What a voice would be given."""
    talk = TalkProcess(folder, "--agent", "gold_loan", "--spoken")
    for line in ("yes", "nobody", "forty grams of twenty two carat"):
        talk.say(line)
    offer = talk.until("This is an estimate")
    assert "two lakh forty seven thousand three hundred twenty rupees" in offer
    assert "ten point five percent" in offer
    assert talk.end() == (0, "")


def test_silence_and_time_count_where_asked(folder: Path) -> None:
    """Nobody types: asked again after the second of the settings, and again, then goodbye; the last words wait ten seconds.

    Takes real time, for it is the clock that is tried.
    """
    (folder / "settings.local.toml").write_text("[agent]\nsilence_seconds = 1.0\n")
    talk = TalkProcess(folder, "--agent", "gold_loan", "--timed")
    said = talk.until("Goodbye")
    assert said.count("Are you still there?") == 2
    assert talk.end()[0] == 0


def test_a_language_model_answers(folder: Path) -> None:
    """At a server process of its own: streamed sentences, an apology where it refuses, with the reason for the operator, and its end."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests/agent/chat_server.py"), "120"], stdout=subprocess.PIPE
    ) as server:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        (folder / "settings.toml").write_text(
            f'[agent]\nfactory = "chat"\n[chat]\nurl = "http://127.0.0.1:{port}/v1"\nmodel = "m"\n'
        )
        talk = TalkProcess(folder)
        talk.until("agent> Hello, you are talking to an automated assistant.")
        talk.say("how much?")
        assert "agent> It is 42.5 grams, I think.\n" in talk.until("agent> Goodbye")
        talk.say("refuse")
        talk.until("agent> I'm sorry, I can't answer right now.")
        talk.say("bye")
        talk.until("agent> Goodbye, friend.")
        code, errors = talk.end()
        assert code == 0
        assert "language_model_refused" in errors
        assert "Traceback" not in errors
        server.terminate()


def test_an_integrators_agent_and_an_input_file(folder: Path) -> None:
    """A module of the working directory; lines of a regular file, the last without an end; no control characters."""
    (folder / "mine.py").write_text("from voice_agent.agent.plain_agents import Echo as make\n")
    (folder / "lines.txt").write_bytes(b"hello\n\x1b[31mred\nlast \xff line")
    with (folder / "lines.txt").open() as lines:
        done = subprocess.run(
            [sys.executable, "-m", "voice_agent", "talk", "--agent", "mine:make"],
            cwd=folder,
            stdin=lines,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_SECONDS,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder)))},
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("agent>")] == [
        "agent> hello",
        "agent> \N{REPLACEMENT CHARACTER}[31mred",
        "agent> last \N{REPLACEMENT CHARACTER} line",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--agent", "nowhere_at_all:make"], 78, "agent.factory = 'nowhere_at_all:make': can't be imported"),
        (["--config", "gone.toml"], 78, "gone.toml"),
        (["--agent", "echo", "--draw"], 2, "follows no table"),
    ],
)
def test_what_can_t_be_talked_with(folder: Path, arguments: list[str], code: int, words: str) -> None:
    """One line that says what to change, and an exit code."""
    exit_code, errors = TalkProcess(folder, *arguments).end()
    assert exit_code == code
    assert words in errors
    assert "Traceback" not in errors
