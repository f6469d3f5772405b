"""A test that hangs is shown, ended and failed, and the run goes on: on a run of its own, of tests that hang."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent

HANGING = '''
import threading, time
import anyio, anyio.from_thread
import pytest, trio

async def wait_for_what_never_comes():
    await trio.sleep_forever()

async def test_trio():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_for_what_never_comes, name="the one that waits")

async def test_trio_that_takes_a_cancellation_for_an_end():
    with trio.CancelScope() as scope:
        try:
            await trio.sleep_forever()
        finally:
            scope.cancel()

async def test_virtual_time(autojump_clock):
    """Time runs on for ever, because something periodic is left."""
    async def tick():
        while True:
            await trio.sleep(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await trio.Event().wait()

@pytest.fixture
async def hangs_afterwards():
    yield
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

async def test_shielded_teardown(hangs_afterwards):
    pass

async def test_thread_that_nobody_can_end():
    never = threading.Event()
    await trio.to_thread.run_sync(never.wait, 10)

def test_thread():
    never = threading.Event()
    thread = threading.Thread(target=never.wait, name="the thread that waits", daemon=True)
    thread.start()
    thread.join()

@pytest.fixture
def joins_afterwards():
    yield
    threading.Event().wait()

def test_failure_before_a_teardown_that_hangs(joins_afterwards):
    assert False, "a failure of its own"

async def wait_in_asyncio():
    import asyncio
    await asyncio.Event().wait()

async def test_portal():
    """Work in another thread's loop ends only when it's cancelled."""
    with anyio.from_thread.start_blocking_portal("asyncio") as portal:
        await portal.call_async(wait_in_asyncio)

async def test_what_comes_after_them():
    await trio.lowlevel.checkpoint()
'''

DEAF = """
import ctypes

def test_native_code():
    ctypes.PyDLL(None).sleep(60)  # holds the lock of the interpreter
"""

SLOW = """
import time, pytest

@pytest.fixture(scope="module", autouse=True)
def cleans_up(request):
    yield
    with open("cleaned", "w"):
        pass

def test_slow():
    with open("running", "w"):
        pass
    time.sleep(60)

def test_never_begun():
    pass
"""


def command(tmp_path: Path, text: str, *options: str) -> list[str]:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    (tmp_path / "test_them.py").write_text(text)
    return [sys.executable, "-m", "pytest", "-p", "hangs", "-p", "no:cacheprovider", "-rA", *options]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": f"{PLUGINS}:{os.environ.get('PYTHONPATH', '')}",
        "COVERAGE_PROCESS_START": "",
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The run of the tests that hang."""
    folder = tmp_path_factory.mktemp("hanging")
    ended = subprocess.run(
        command(folder, HANGING, "--timeout=1", "-o", "timeout_grace=1"),
        cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended


FAILED = [
    "test_trio",
    "test_trio_that_takes_a_cancellation_for_an_end",
    "test_virtual_time",
    "test_shielded_teardown",
    "test_thread_that_nobody_can_end",
    "test_thread",
    "test_failure_before_a_teardown_that_hangs",
    "test_portal",
]


@pytest.mark.parametrize("name", FAILED)
def test_a_test_that_hangs_fails(run: subprocess.CompletedProcess[str], name: str) -> None:
    """In Trio, in virtual time, in a thread's join, in another thread's loop, while its fixtures end."""
    assert re.search(rf"^(FAILED|ERROR) test_them.py::{name}\b", run.stdout, re.MULTILINE), run.stdout
    assert f"test_them.py::{name} took longer than its limit of 1 s" in run.stderr


def test_the_run_goes_on(run: subprocess.CompletedProcess[str]) -> None:
    """One that hangs costs itself; the next passes."""
    assert "PASSED test_them.py::test_what_comes_after_them" in run.stdout
    assert "8 failed, 1 passed, 1 error" in run.stdout


def test_what_hangs_is_named(run: subprocess.CompletedProcess[str]) -> None:
    """The tasks and threads that wait, and where."""
    assert "the one that waits" in run.stderr
    assert "in wait_for_what_never_comes" in run.stderr
    assert "-- thread the thread that waits" in run.stderr
    assert "in wait_in_asyncio" in run.stderr


def test_native_code_that_hangs_ends_the_process(tmp_path: Path) -> None:
    """Nothing can interrupt it; the stacks say where it was."""
    (tmp_path / "impatient.py").write_text("import hangs\nhangs.DEAF_SECONDS = 1\n")
    environ = environment()
    environ["PYTHONPATH"] = f"{tmp_path}:{environ['PYTHONPATH']}"
    ended = subprocess.run(
        command(tmp_path, DEAF, "-p", "impatient", "--timeout=1"),
        cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "in test_native_code" in ended.stderr


def test_a_run_over_its_limit_says_what_was_running(tmp_path: Path) -> None:
    """``scripts/test`` sends the signal; the test fails, fixtures end, no further test begins."""
    with subprocess.Popen(
        command(tmp_path, SLOW), cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "running").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        out, err = process.communicate(timeout=50)
    assert process.returncode != 0
    assert "test_slow was running when the whole run was over its limit" in err
    assert "the run took longer than its limit" in out
    assert "1 failed" in out
    assert (tmp_path / "cleaned").exists()
