"""A thousand edits of the settings of a running server, good and bad, in every way in which files are replaced.

Ten callers speak all the while. None of them notices; and whoever looks at the settings in force sees those of one edit,
never a mixture of two.
"""

import importlib.util
import json
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import httpx
import numpy as np
import pytest
import trio

pytestmark = pytest.mark.e2e

EDITS = 1000
CALLS = 10
SEED = 20260101
PATIENCE_SECONDS = 30
MEAN_PAUSE_SECONDS = 0.01
LONG_PAUSE_SECONDS, LONG_PAUSE_SHARE = 0.3, 0.05
"""Between two bursts the files stand still, and are read."""
SPEECH_SECONDS = 300.0
"""More than anybody will say until the edits are done."""

Connect = Callable[[str], AbstractAsyncContextManager[Any]]

_spec = importlib.util.spec_from_file_location(
    "bench_drain", Path(__file__).parents[2] / "scripts/bench_drain.py"
)
assert _spec is not None
assert _spec.loader is not None
bench_drain = importlib.util.module_from_spec(_spec)
sys.modules["bench_drain"] = bench_drain
_spec.loader.exec_module(bench_drain)


def settings_of(number: int) -> str:
    """Settings that all tell the same number, and that no call would survive, or be understood under, if they reached it."""
    return f"""\
[websocket]
max_binary_bytes = {100_000 + number}
max_text_bytes = {50_000 + number}
[session]
max_duration_seconds = {15 + number / 1000}
max_waiting_audio_ms = {20_000 + number}
idle_timeout_seconds = {10 + number / 1000}
[vad]
min_speech_ms = 2000
[recogniser]
min_confidence = 1.0
partials = false
worker_threads = {3 + number % 8}
[server]
max_calls = {100 + number}
# {"padding " * (number % 50)}
"""


def number_of(limits: dict[str, Any]) -> int | None:
    """Return the number that the limits tell a caller, None for the defaults; fails for a mixture."""
    numbers = {
        limits["max_binary_bytes"] - 100_000 if limits["max_binary_bytes"] != 262_144 else None,
        limits["max_text_bytes"] - 50_000 if limits["max_text_bytes"] != 65_536 else None,
        round((limits["max_duration_seconds"] - 15) * 1000)
        if limits["max_duration_seconds"] != 7200
        else None,
        limits["max_waiting_audio_ms"] - 20_000 if limits["max_waiting_audio_ms"] != 10_000 else None,
        round((limits["idle_timeout_seconds"] - 10) * 1000) if limits["idle_timeout_seconds"] != 60 else None,
    }
    assert len(numbers) == 1, f"settings of different edits are in force at once: {limits}"
    return numbers.pop()


def second_number_of(settings: dict[str, Any]) -> int | None:
    """The same for the other file, which is swapped like a mounted volume."""
    offer, candidates = (
        settings[f"webrtc.{name}"]["value"] for name in ("max_offer_bytes", "max_candidates")
    )
    numbers = {
        offer - 10_000 if offer != 32_768 else None,
        candidates - 100 if candidates != 20 else None,
    }
    assert len(numbers) == 1, f"settings of different edits are in force at once: {offer}, {candidates}"
    return numbers.pop()


@attrs.define
class Editor:
    """Edits the files of one server, as many programs at once would that don't know of each other."""

    folder: Path
    process: Any
    rng: random.Random
    counts: dict[str, int] = attrs.field(factory=dict)
    number: int = 0

    @property
    def path(self) -> Path:
        return self.folder / "settings.toml"

    def rename(self, text: str) -> None:
        new = self.folder / f"new-{self.rng.randrange(3)}"
        new.write_text(text)
        new.replace(self.path)

    async def good_by_renaming(self) -> None:
        self.rename(settings_of(self.number))

    async def good_in_place(self) -> None:
        self.path.write_text(settings_of(self.number))

    async def good_by_vim(self) -> None:
        with suppress(FileNotFoundError):
            self.path.replace(self.folder / "settings.toml~")
        self.path.write_text(settings_of(self.number))

    async def truncated_then_written(self) -> None:
        self.path.write_text("")
        await trio.sleep(self.rng.choice([0, 0.01, 0.05]))
        self.path.write_text(settings_of(self.number))

    async def written_in_pieces(self) -> None:
        # In the middle of a line: what is written so far is no TOML. A file that stops at the end of one is for the
        # tests of the watch, which hold the clock.
        text = settings_of(self.number)
        cut = text.index(" = ", self.rng.randrange(text.index("[server]"))) + 3
        with self.path.open("w") as file:
            file.write(text[:cut])
            file.flush()
            await trio.sleep(self.rng.choice([0, 0.002, 0.02]))
            file.write(text[cut:])

    async def deleted_then_written(self) -> None:
        self.path.unlink(missing_ok=True)
        await trio.sleep(self.rng.choice([0, 0.01, 0.05]))
        self.rename(settings_of(self.number))

    async def volume_swapped(self) -> None:
        data = self.folder / f"..data-{self.number}"
        data.mkdir(exist_ok=True)
        (data / "settings.local.toml").write_text(
            f"[webrtc]\nmax_offer_bytes = {10_000 + self.number % 900}\nmax_candidates = {100 + self.number % 900}\n"
            if self.rng.random() < 0.8
            else "[webrtc]\nmax_offer_bytes = 1\n"
        )
        (self.folder / "..data_tmp").unlink(missing_ok=True)
        (self.folder / "..data_tmp").symlink_to(data.name)
        (self.folder / "..data_tmp").replace(self.folder / "..data")

    def volume_swapped_back(self) -> None:
        (self.folder / "..data_tmp").unlink(missing_ok=True)
        (self.folder / "..data_tmp").symlink_to("..data-0")
        (self.folder / "..data_tmp").replace(self.folder / "..data")

    async def one_wrong_value(self) -> None:
        wrong = self.rng.choice(
            ["[server]\nmax_calls = -1\n", "[nonsense]\nx = 1\n", "[vad]\nthreshold = nan\n", "server = 1\n"]
        )
        self.rename(settings_of(self.number).replace("[server]", "[audio]") + wrong)

    async def garbage(self) -> None:
        self.path.write_bytes(self.rng.randbytes(self.rng.randrange(1, 5000)))

    async def half_a_file(self) -> None:
        text = settings_of(self.number)
        self.rename(text[: self.rng.randrange(20, len(text) // 2)].rstrip() + " = [")

    async def a_folder_instead(self) -> None:
        self.path.unlink(missing_ok=True)
        self.path.mkdir()
        await trio.sleep(0.01)
        self.path.rmdir()
        self.rename(settings_of(self.number))

    async def hang_ups(self) -> None:
        for _ in range(self.rng.randrange(1, 50)):
            self.process.send_signal(signal.SIGHUP)

    async def touched(self) -> None:
        with suppress(FileNotFoundError):
            os.utime(self.path)

    async def edit(self) -> None:
        """Make one edit, chosen at random."""
        self.number += 1
        kinds = {
            self.good_by_renaming: 25,
            self.good_in_place: 15,
            self.good_by_vim: 8,
            self.truncated_then_written: 6,
            self.written_in_pieces: 8,
            self.deleted_then_written: 4,
            self.volume_swapped: 12,
            self.one_wrong_value: 6,
            self.garbage: 4,
            self.half_a_file: 4,
            self.a_folder_instead: 2,
            self.hang_ups: 4,
            self.touched: 2,
        }
        [kind] = self.rng.choices(list(kinds), list(kinds.values()))
        await kind()
        self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1


@pytest.fixture
def server(start_server: Any, tmp_path: Path) -> Any:
    """A server whose second file is mounted as Kubernetes mounts one."""
    (tmp_path / "..data-0").mkdir()
    (tmp_path / "..data-0/settings.local.toml").write_text("# nothing\n")
    (tmp_path / "..data").symlink_to("..data-0")
    (tmp_path / "settings.local.toml").symlink_to("..data/settings.local.toml")
    return start_server()


@attrs.define
class Speakers:
    """Callers who speak in real time until they are asked to stop, all after the same word."""

    speeches: list[np.ndarray]
    sent: int = 0
    last: int | None = None

    def stop(self) -> None:
        self.last = self.sent + 3

    def said(self, number: int) -> np.ndarray:
        assert self.last is not None
        return self.speeches[number % len(self.speeches)][: self.last * round(bench_drain.RATE * 0.1)]

    async def speak(self, socket: Any, number: int) -> list[dict[str, Any]]:
        """Hold one call; returns what was told."""
        speech, step = self.speeches[number % len(self.speeches)], round(bench_drain.RATE * 0.1)
        messages: list[dict[str, Any]] = []

        async def listen() -> None:
            while not messages or messages[-1]["type"] != "closed":
                messages.append(json.loads(await socket.get_message()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            began = trio.current_time()
            frame = 0
            while self.last is None or frame < self.last:
                await socket.send_message(speech[frame * step : (frame + 1) * step].tobytes())
                frame += 1
                self.sent = max(self.sent, frame)
                await trio.sleep_until(began + frame * 0.1)
            await socket.send_message('{"type":"stop"}')
        return messages


async def told(socket: Any, kind: str) -> dict[str, Any]:
    with trio.fail_after(PATIENCE_SECONDS):
        while True:
            message: dict[str, Any] = json.loads(await socket.get_message())
            if message["type"] == kind:
                return message


@asynccontextmanager
async def looked_at(server: Any, connect: Connect, seen: set[int | None]) -> AsyncIterator[None]:
    """While the block runs, begin short calls and read the settings in force, and find no mixture."""

    async def begin_calls() -> None:
        while True:
            async with connect(server.url) as caller:
                await caller.send_message('{"type":"start"}')
                seen.add(number_of((await told(caller, "ready"))["limits"]))
            await trio.sleep(0.3)

    async def read_settings() -> None:
        async with httpx.AsyncClient(base_url=server.http, timeout=PATIENCE_SECONDS) as client:
            while True:
                settings = (await client.get("/v1/settings")).json()["settings"]
                number_of({key.rpartition(".")[2]: value["value"] for key, value in settings.items()})
                second_number_of(settings)
                assert settings["recogniser.worker_threads"]["value"] == 2, "it waits for a restart"
                await trio.sleep(0.3)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(begin_calls)
        nursery.start_soon(read_settings)
        yield
        nursery.cancel_scope.cancel()


async def test_a_thousand_edits_under_ten_calls(
    server: Any, connect: Connect, assets: Path, tmp_path: Path
) -> None:
    """The callers are told the same words as without edits, no notice, no error, and lose no audio."""
    editor = Editor(tmp_path, server.process, random.Random(SEED))
    speakers = Speakers([call.speech for call in bench_drain.make_calls(3, SPEECH_SECONDS, SEED)])
    calls: dict[int, list[dict[str, Any]]] = {}
    numbers: set[int | None] = set()

    async def call(number: int, task_status: trio.TaskStatus[None]) -> None:
        async with connect(f"{server.url}?partials=false") as caller:
            await told(caller, "ready")
            task_status.started()
            calls[number] = await speakers.speak(caller, number)

    async with trio.open_nursery() as nursery:
        for number in range(CALLS):
            await nursery.start(call, number)
        async with looked_at(server, connect, numbers):
            began = trio.current_time()
            for _ in range(EDITS):
                await editor.edit()
                is_long = editor.rng.random() < LONG_PAUSE_SHARE
                await trio.sleep(
                    LONG_PAUSE_SECONDS if is_long else editor.rng.expovariate(1 / MEAN_PAUSE_SECONDS)
                )
            seconds = trio.current_time() - began
        speakers.stop()
    assert server.process.poll() is None, server.log()

    # Without edits: the same server, with room for audio that comes all at once.
    await quiet(editor, server)
    expected = [await words_of(server, connect, speakers.said(number)) for number in range(3)]
    for number, messages in calls.items():
        assert {message["type"] for message in messages} <= {
            "speech_started",
            "speech_stopped",
            "final",
            "closed",
        }
        texts = [message["text"] for message in messages if message["type"] == "final"]
        assert texts == expected[number % 3]
        closed = messages[-1]
        assert (closed["reason"], closed["dropped_audio_ms"], closed["tasks_left"]) == ("stopped", 0, 0)
    outcomes = reload_counts(server)
    print(
        f"\n{EDITS} edits in {seconds:.1f} s ({EDITS / seconds * 60:.0f} a minute): {editor.counts}\n"
        f"readings: {outcomes}; settings of {len(numbers)} edits seen in short calls; "
        f"{sum(map(len, expected)) * CALLS // 3} finals in {CALLS} calls"
    )
    assert outcomes["applied"] >= 5
    assert outcomes["refused"] >= 1
    assert len(numbers) >= 3
    assert "settings_reload_crashed" not in server.log()
    assert "Traceback" not in server.log()
    assert server.stop() == 0


async def quiet(editor: Editor, server: Any) -> None:
    """Put settings in force that let audio come at any speed, and wait for them."""
    editor.volume_swapped_back()
    editor.rename("[session]\nmax_waiting_audio_ms = 600000\n[limits]\nmax_audio_rate = 1000\n")
    with trio.fail_after(PATIENCE_SECONDS):
        async with httpx.AsyncClient(base_url=server.http, timeout=PATIENCE_SECONDS) as client:
            while True:
                settings = (await client.get("/v1/settings")).json()["settings"]
                if settings["limits.max_audio_rate"]["value"] == 1000:
                    return
                await trio.sleep(0.1)


async def words_of(server: Any, connect: Connect, speech: np.ndarray) -> list[str]:
    """Return the finals of a call that says it all at once."""
    step = bench_drain.RATE
    async with connect(f"{server.url}?partials=false") as caller:
        messages: list[dict[str, Any]] = []

        async def listen() -> None:
            while not messages or messages[-1]["type"] != "closed":
                messages.append(json.loads(await caller.get_message()))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for begin in range(0, len(speech), step):
                await caller.send_message(speech[begin : begin + step].tobytes())
            await caller.send_message('{"type":"stop"}')
    assert messages[-1]["dropped_audio_ms"] == 0
    return [message["text"] for message in messages if message["type"] == "final"]


def reload_counts(server: Any) -> dict[str, int]:
    """Return how often settings were read, by outcome."""
    text = httpx.get(f"{server.http}/metrics", timeout=PATIENCE_SECONDS).text
    found = re.findall(r'^voice_agent_settings_reloads_total\{outcome="(\w+)"\} (\S+)', text, re.MULTILINE)
    return {outcome: round(float(value)) for outcome, value in found}
