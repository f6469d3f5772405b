"""What files look like from outside: whether they have changed, and where to watch for it. Nothing here waits."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import attrs

MAX_LINKS: Final = 40
"""Symbolic links that are followed from one path; the kernel gives up at the same number (path_resolution(7))."""


@attrs.frozen
class _State:
    inode: tuple[int, int]
    """With its device."""
    size: int
    times_ns: tuple[int, int]
    """When content and inode were changed."""


@attrs.frozen
class Look:
    """What files looked like at one moment; two that are equal hold the same content."""

    paths: tuple[Path, ...]
    states: tuple[_State | None, ...]
    """None for a file that is not there."""

    def has_lost(self, earlier: "Look") -> bool:
        """Whether a file that had content then is gone, empty, or the same one with less in it."""
        states = dict(zip(self.paths, self.states, strict=True))
        return any(
            _has_lost(before, states.get(path))
            for path, before in zip(earlier.paths, earlier.states, strict=True)
        )


@attrs.frozen
class Whereabouts:
    """Where a change of some files can be seen."""

    folders: tuple[tuple[str, int, int], ...]
    """Each with its device and inode: a folder that was replaced must be watched anew."""
    names: frozenset[str]
    """The paths whose changes matter: of the files, of every link and missing folder on the way to them, of the folders."""


def look_at(paths: Sequence[Path]) -> Look:
    """Look at the files, through links."""
    return Look(tuple(paths), tuple(map(_state, paths)))


def whereabouts(paths: Iterable[Path]) -> Whereabouts:
    """Return where to watch: the folders of the files, and of every link on the way to them.

    A symbolic link may be swapped anywhere on the way: Kubernetes mounts ``settings.toml -> ..data/settings.toml`` and
    replaces ``..data``, a link to a folder.
    """
    names: set[str] = set()
    pending = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (resolve() would hide the links)
    for _ in range(MAX_LINKS * len(pending)):
        if not pending:
            break
        path = pending.pop()
        link = next((part for part in (*reversed(path.parents), path) if part.is_symlink()), None)
        names.add(str(link or path))
        if link is not None:
            pending.append(Path(os.path.normpath(link.parent / link.readlink() / path.relative_to(link))))
    nearest = {name: _nearest_folder(Path(name).parent) for name in names}
    folders = set(nearest.values())
    # Of a path whose folders are missing, the first of them is what will come.
    coming = {folder / Path(name).relative_to(folder).parts[0] for name, folder in nearest.items()}
    return Whereabouts(
        tuple(sorted(filter(None, map(_identity, folders)))),
        frozenset({*names, *map(str, coming), *map(str, folders)}),
    )


def _has_lost(before: _State | None, after: _State | None) -> bool:
    if before is None or not before.size:
        return False
    return after is None or not after.size or (after.inode == before.inode and after.size < before.size)


def _state(path: Path) -> _State | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return _State((stat.st_dev, stat.st_ino), stat.st_size, (stat.st_mtime_ns, stat.st_ctime_ns))


def _nearest_folder(folder: Path) -> Path:
    return next(part for part in (folder, *folder.parents) if part.is_dir() or part == part.parent)


def _identity(folder: Path) -> tuple[str, int, int] | None:
    state = _state(folder)
    return (str(folder), *state.inode) if state else None
