"""The tasks of a call, in words: which there are, where each waits, and which does not wait at all."""

import itertools
from collections.abc import Iterator
from pathlib import PurePath
from types import FrameType
from typing import Final

import attrs
import trio

from voice_agent.core.units import MS

MAX_TASKS: Final = 64
"""A call has about ten; who opens more is told by these."""
LOOK_SECONDS: Final = 50 * MS
BUSY_TURNS: Final = 20
"""Turns within a look: a task that handles audio has a few, one that burns has thousands."""


@attrs.frozen
class CallRoot:
    """Where the tasks of a call begin: the task that holds its block, and how many nurseries that one had before."""

    host: trio.lowlevel.Task
    nurseries_before: int

    @classmethod
    def here(cls) -> "CallRoot":
        """Return the root of a call that the current task is about to open."""
        host = trio.lowlevel.current_task()
        return cls(host, len(host.child_nurseries))

    def tasks(self) -> Iterator[tuple[int, trio.lowlevel.Task]]:
        """Yield each task with its depth; the host comes first."""
        yield 0, self.host
        for nursery in self.host.child_nurseries[self.nurseries_before :]:
            yield from _below(nursery, 1)


async def describe_tasks(root: CallRoot) -> list[str]:
    """Return one line a task, indented by its depth: its name, where it waits, and whether it is busy instead.

    Takes :data:`LOOK_SECONDS`, to tell a task that waits from one that only seems to.
    """
    before = {task: _turns(task) for _, task in root.tasks()}
    await trio.sleep(LOOK_SECONDS)
    lines = []
    for depth, task in itertools.islice(root.tasks(), MAX_TASKS):
        turns = _turns(task) - before.get(task, _turns(task))
        busy = f" [busy: {turns} turns in {LOOK_SECONDS:g} s]" if turns >= BUSY_TURNS else ""
        lines.append(f"{'  ' * depth}{task.name}: {where_it_waits(task)}{busy}")
    return lines


def where_it_waits(task: trio.lowlevel.Task) -> str:
    """Return the innermost place outside of Trio, and what of Trio's it waits for there.

    As ``batching.py:150 submit, in Event.wait``.
    """
    place, primitive = "", ""
    for frame, line in task.iter_await_frames():
        if _is_trios(frame):
            # The first of Trio's frames below the place is what was called there.
            primitive = primitive or frame.f_code.co_qualname
        else:
            place = f"{PurePath(frame.f_code.co_filename).name}:{line} {frame.f_code.co_name}"
            primitive = ""
    return f"{place}, in {primitive}" if primitive else place or "not begun, or ended"


def _is_trios(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module == "trio" or module.startswith("trio.")


def _below(nursery: trio.Nursery, depth: int) -> Iterator[tuple[int, trio.lowlevel.Task]]:
    for task in sorted(nursery.child_tasks, key=lambda task: task.name):
        yield depth, task
        for inner in task.child_nurseries:
            yield from _below(inner, depth + 1)


def _turns(task: trio.lowlevel.Task) -> int:
    # Trio counts them for its own instruments and promises nothing; without the count nobody is called busy.
    return int(getattr(task, "_schedule_points", 0))
