"""What everything in this process waits for, in words: threads, the tasks of Trio and asyncio, child processes."""

import asyncio
import gc
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Final

import trio

MACHINERY: Final = re.compile(r"/(_pytest|pluggy)/|^<frozen runpy>$")
"""What stands below every test says nothing of it."""


def describe_everything(frame: FrameType | None) -> Iterator[str]:
    """Yield the lines; ``frame`` is where the calling thread was before it was interrupted."""
    yield from _threads(frame)
    yield from _trio_tasks()
    yield from _asyncio_tasks()
    yield from _processes(Path("/proc/self"))


def _threads(frame: FrameType | None) -> Iterator[str]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    frames = sys._current_frames()  # the only way to another thread's stack
    here = threading.get_ident()
    if frame is not None:
        frames[here] = frame
    for ident, found in frames.items():
        if ident != here:
            yield from _thread(names.get(ident, "?"), found)
    # The last one is read first.
    yield from _thread(names.get(here, "?"), frames[here])


def _thread(name: str, frame: FrameType) -> Iterator[str]:
    yield f"-- thread {name}"
    for line in traceback.StackSummary.from_list(
        [step for step in traceback.extract_stack(frame) if not MACHINERY.search(step.filename)]
    ).format():
        yield line.rstrip()


def _trio_tasks() -> Iterator[str]:
    if trio.lowlevel.in_trio_run():
        yield "-- Trio's tasks"
        yield from _trio_task(trio.lowlevel.current_root_task(), "  ")


def _trio_task(task: Any, indent: str) -> Iterator[str]:
    yield f"{indent}{task.name}"
    for line in _await_chain(task.coro):
        yield f"{indent}  : {line}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _trio_task(child, f"{indent}    ")


def _asyncio_tasks() -> Iterator[str]:
    """Of every loop in every thread: no list of them is kept anywhere."""
    for task in [each for each in gc.get_objects() if issubclass(type(each), asyncio.Task)]:
        if not task.done():
            yield f"-- asyncio's task {task.get_name()}"
            for line in _await_chain(task.get_coro()):
                yield f"  : {line}"


def _await_chain(awaited: Any) -> Iterator[str]:
    """Where each coroutine stands, from the outermost to what it waits for in the end."""
    while awaited is not None:
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(awaited, f"{prefix}_frame", None)
            if frame is not None:
                yield f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
                awaited = getattr(awaited, f"{prefix}_await", None) or getattr(
                    awaited, f"{prefix}_yieldfrom", None
                )
                break
        else:
            return


def _processes(folder: Path, indent: str = "  ") -> Iterator[str]:
    with suppress(OSError):
        for file in folder.glob("task/*/children"):
            for number in file.read_text().split():
                command = (
                    Path("/proc", number, "cmdline")
                    .read_bytes()
                    .replace(b"\0", b" ")
                    .decode(errors="replace")
                )
                yield f"-- process {number}:{indent}{command[:300]}"
                yield from _processes(Path("/proc", number), f"{indent}  ")
