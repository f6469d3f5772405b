"""/openapi.json and a real server process: schemathesis makes requests of every kind from it, and finds nothing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed

from voice_agent.access.keys import new_key
from voice_agent.core.identity import Scope

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
TIMEOUT_SECONDS = 240


def run_schemathesis(server: Any, folder: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Run it as a user would; what it finds ends it with 1."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "schemathesis.cli",
            *(
                "--config-file",
                HERE / "schemathesis.toml",
                "--no-color",
                "run",
                f"{server.http}/openapi.json",
            ),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py"),
            "SCHEMATHESIS_KEY": key,
        },
    )


async def call_again_and_again(connect: Any, server: Any, key: str) -> None:
    """Hold a call in which something happens all the time; when it is ended, begin another."""
    while True:
        try:
            async with connect(server.url, headers=[(b"Authorization", f"Bearer {key}".encode())]) as caller:
                while True:
                    await caller.send_message('{"type":"ping"}')
                    await caller.get_message()
                    await trio.sleep(0.02)
        except ConnectionClosed:
            continue


async def test_schemathesis_finds_nothing(start_server: Any, connect: Any, tmp_path: Path) -> None:
    """Right requests and wrong ones, alone and in sequences, are answered as the description says; no 500.

    Calls begin, are looked at, followed and ended on the way; afterwards the server stops cleanly, so none is left.
    """
    key = new_key("tester")
    scopes = json.dumps([str(scope) for scope in Scope])
    server = start_server(
        access__keys=f'tester = {{ sha256 = "{key.sha256}", scopes = {scopes} }}',
        webrtc__setup_timeout_seconds=1,
        limits__requests_per_second_per_key=10_000,
        limits__requests_burst_per_key=10_000,
        limits__calls_per_minute_per_key=10_000,
        limits__calls_burst_per_key=10_000,
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call_again_and_again, connect, server, key.text)
        done = await trio.to_thread.run_sync(run_schemathesis, server, tmp_path, key.text)
        nursery.cancel_scope.cancel()
    print(done.stdout[-2000:])
    assert done.returncode == 0, done.stdout
    assert done.stderr == ""
    found = re.search(r"(\d+) generated, \1 passed", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) > 300
    assert await trio.to_thread.run_sync(server.stop) == 0
    assert "Traceback" not in server.log()
