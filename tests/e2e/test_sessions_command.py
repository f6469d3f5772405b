"""`voice-agent sessions` as a process, against a server process with keys."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from voice_agent.access.keys import NewKey, new_key

pytestmark = pytest.mark.e2e

PATIENCE_SECONDS = 60


def line(key: NewKey, *scopes: str) -> str:
    return f'{key.key_id} = {{ sha256 = "{key.sha256}", scopes = {json.dumps(scopes)} }}'


class Operator:
    """Somebody at a terminal, with a key in a file."""

    def __init__(self, server: Any, folder: Path, key: NewKey) -> None:
        self.server = server
        self.folder = folder
        self.key_file = folder / f"{key.key_id}.key"
        self.key_file.write_text(key.text)

    def command(self, *arguments: str) -> list[str]:
        access = ["--server", self.server.http, "--key-file", str(self.key_file)]
        return [sys.executable, "-m", "voice_agent", "sessions", *arguments, *access]

    async def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(PATIENCE_SECONDS):
            return await trio.run_process(
                self.command(*arguments),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
                cwd=self.folder,
            )


@attrs.frozen
class Cast:
    """A server with keys, and who has which."""

    server: Any
    boss: Operator
    """May observe and administer."""
    eyes: Operator
    """May observe."""
    kiosk: Operator
    """May call."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"Authorization", b"Bearer " + self.kiosk.key_file.read_bytes())]


@pytest.fixture
def cast(start_server: Any, tmp_path: Path) -> Cast:
    scopes = {"boss": ("observe", "admin"), "eyes": ("observe",), "kiosk": ("call",)}
    keys = {name: new_key(name) for name in scopes}
    server = start_server(access__keys="\n".join(line(keys[name], *scopes[name]) for name in scopes))
    return Cast(server, *(Operator(server, tmp_path, key) for key in keys.values()))


async def test_calls_are_listed_and_shown(cast: Cast, connect: Any) -> None:
    """To who may observe, as a table, as JSON, filtered; nobody else sees them, and who can't end them is told so."""
    nobody = await cast.boss.run("list")
    assert (nobody.returncode, nobody.stdout) == (0, b"")
    async with connect(cast.server.url, headers=cast.headers) as caller:
        await caller.send_message('{"type":"start"}')
        await caller.get_message()
        listed = await cast.eyes.run("list", "--json")
        assert listed.returncode == 0, listed.stderr
        session = json.loads(listed.stdout)
        assert (session["key"], session["wire"], session["state"]) == ("kiosk", "websocket", "live")
        table = await cast.eyes.run("list", "--key", "kiosk")
        assert session["id"] in table.stdout.decode()
        assert (await cast.eyes.run("list", "--key", "other")).stdout == b""
        shown = await cast.eyes.run("show", session["id"])
        assert f"id: {session['id']}\n" in shown.stdout.decode()
        refused = await cast.eyes.run("end", session["id"])
        assert refused.returncode == 77
        assert b"403 forbidden" in refused.stderr
        assert (await cast.kiosk.run("list")).returncode == 77
    unknown = await cast.boss.run("show", "nobody")
    assert unknown.returncode == 1
    assert b"sessions list" in unknown.stderr
    assert await trio.to_thread.run_sync(cast.server.stop) == 0
    unreachable = await cast.boss.run("list")
    assert unreachable.returncode == 69
    assert b"is the server running?" in unreachable.stderr
    for done in (nobody, listed, refused, unreachable, unknown):
        assert b"Traceback" not in done.stderr


async def test_a_call_is_followed_to_its_end(cast: Cast, connect: Any) -> None:
    """Two follow, one ends the call: each reads what happened, and only the one with the scope admin reads the words."""
    tails: dict[str, Any] = {}

    async def tail(name: str, operator: Operator, session_id: str) -> None:
        tails[name] = await operator.run("tail", session_id, "--after", "1", "--json")

    async with connect(cast.server.url, headers=cast.headers) as caller, trio.open_nursery() as nursery:
        await caller.send_message('{"type":"start"}')
        session_id = json.loads(await caller.get_message())["session"]
        nursery.start_soon(tail, "boss", cast.boss, session_id)
        nursery.start_soon(tail, "eyes", cast.eyes, session_id)
        with trio.fail_after(PATIENCE_SECONDS):
            while json.loads((await cast.eyes.run("show", session_id, "--json")).stdout)["listeners"] < 2:
                pass
        await caller.send_message('{"type":"text","text":"my secret"}')
        assert json.loads(await caller.get_message())["type"] == "final"
        ended = await cast.boss.run("end", session_id)
        assert (ended.returncode, ended.stdout.decode()) == (0, f"{session_id}: ending\n")
        assert json.loads(await caller.get_message())["reason"] == "ended_by_operator"
    for name, done in tails.items():
        assert done.returncode == 0, (name, done.stderr)
        assert [json.loads(text)["type"] for text in done.stdout.splitlines()] == ["final", "closed"]
    assert b"my secret" in tails["boss"].stdout
    assert b"my secret" not in tails["eyes"].stdout
    again = await cast.boss.run("end", session_id)
    assert (again.returncode, again.stdout.decode()) == (0, f"{session_id}: had ended already\n")
    gone = await cast.boss.run("tail", session_id)
    assert gone.returncode == 1
    assert b"session_closed" in gone.stderr
    assert await trio.to_thread.run_sync(cast.server.stop) == 0
