"""Watch the files of the settings, and read them when they stand still.

What the kernel tells (inotify, through watchfiles) is taken as a hint to look; what is decided, is decided by looking.
So nothing depends on how a file was replaced: written in place, renamed over, deleted and made anew, or swapped by a
link. Folders are looked at every few seconds too, for file systems that tell nothing (NFS) and kernels that have no
watch left. Files are read and stat'ed in a thread, for a file system may hang.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Final, NoReturn, TypeVar

import attrs
import structlog
import trio
from watchfiles import awatch

from voice_agent.core.errors import SettingsError
from voice_agent.core.units import MS, SECONDS
from voice_agent.settings.files import Look, Whereabouts, look_at, whereabouts
from voice_agent.settings.load import LoadedSettings
from voice_agent.settings.origin import SettingsOrigin

STILL_SECONDS: Final = 50 * MS
"""A file that has not changed for so long is not being written. Longer would be safer for a slow writer, and would
never come when files change a thousand times a minute."""
SHRUNK_SECONDS: Final = 1 * SECONDS
"""A file that is gone, empty, or written in place and shorter than it was must stand still for so long: most likely it is
being replaced, and its first half may be good settings too."""
LOOK_SECONDS: Final = 5 * SECONDS
"""How often to look although nothing was told."""
_GROUP_MS: Final = 100
_STEP_MS: Final = 50
"""How soon a change is told, and how soon the watching thread ends when it is not wanted any more."""

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT")


@attrs.frozen
class Reading:
    """What was read, and what the files looked like before and after."""

    look: Look
    outcome: LoadedSettings | SettingsError


class SettingsFiles:
    """The files of an origin. Keeps what they looked like when they were read last."""

    def __init__(self, origin: SettingsOrigin) -> None:
        self._origin = origin
        self._seen: Look | None = None
        self._threads = trio.CapacityLimiter(1)

    async def read(self, *, although_unchanged: bool = False) -> LoadedSettings | SettingsError | None:
        """Wait until the files stand still, and read them; None when they are as they were read last.

        They are read as a whole: if one changes meanwhile, all are read again.
        """
        look, since = await self._look(), trio.current_time()
        while look != self._seen or although_unchanged:
            has_lost = self._seen is not None and look.has_lost(self._seen)
            outcome = None
            if trio.current_time() - since >= (SHRUNK_SECONDS if has_lost else STILL_SECONDS):
                outcome = await self._in_thread(self._load)
            else:
                await trio.sleep(STILL_SECONDS)
            before, look = look, await self._look()
            if look != before:
                since = trio.current_time()
            elif outcome is not None:
                self._seen = look
                return outcome
        return None

    async def watch(self, wake: Callable[[], None]) -> NoReturn:
        """Call ``wake`` whenever the files may have changed: at once, when told so, and every few seconds."""
        while True:
            where = await self._in_thread(self._whereabouts)
            wake()
            try:
                await self._follow(where, wake)
            except* (OSError, RuntimeError) as group:
                # No inotify watch left (fs.inotify.max_user_watches), or the folder went away under our feet.
                log.warning(
                    "settings_not_watched", reason=str(group.exceptions[0]), looking_every=LOOK_SECONDS
                )
                await trio.sleep(LOOK_SECONDS)

    async def _follow(self, where: Whereabouts, wake: Callable[[], None]) -> None:
        """Return when the files must be watched elsewhere."""
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_set_at_end, stop)
            # What has changed after the whereabouts were looked up, and before the watch, is told by nobody.
            nursery.start_soon(self._look_once_more, where, wake, nursery.cancel_scope)
            events = awatch(
                *(folder for folder, _, _ in where.folders),
                watch_filter=lambda _, path: path in where.names,
                debounce=_GROUP_MS,
                step=_STEP_MS,
                stop_event=stop,
                rust_timeout=round(LOOK_SECONDS * 1000),
                yield_on_timeout=True,
                recursive=False,
            )
            async with aclosing(events):
                async for _ in events:
                    wake()
                    if await self._in_thread(self._whereabouts) != where:
                        break
            nursery.cancel_scope.cancel()

    async def _look_once_more(
        self, where: Whereabouts, wake: Callable[[], None], following: trio.CancelScope
    ) -> None:
        await trio.sleep(STILL_SECONDS)
        wake()
        if await self._in_thread(self._whereabouts) != where:
            following.cancel()

    async def _look(self) -> Look:
        return await self._in_thread(partial(look_at, self._paths()))

    def _paths(self) -> Sequence[Path]:
        return self._origin.paths()

    def _whereabouts(self) -> Whereabouts:
        return whereabouts(self._paths())

    def _load(self) -> LoadedSettings | SettingsError:
        try:
            return self._origin.load()
        except SettingsError as error:
            return error

    async def _in_thread(self, job: Callable[[], ResultT]) -> ResultT:
        # Abandoned when cancelled: a file system that hangs must not hold the shutdown.
        return await trio.to_thread.run_sync(job, abandon_on_cancel=True, limiter=self._threads)


async def _set_at_end(stop: trio.Event) -> None:
    """The thread that watches looks at the event; awatch by itself tells it of a cancellation only after its timeout."""
    try:
        await trio.sleep_forever()
    finally:
        stop.set()
