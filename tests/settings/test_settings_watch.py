"""The files of the settings, watched: whatever way they are replaced in, they are read whole, and soon."""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from voice_agent.core.errors import SettingsError
from voice_agent.settings import watch
from voice_agent.settings.files import look_at, whereabouts
from voice_agent.settings.load import LoadedSettings
from voice_agent.settings.origin import SettingsOrigin
from voice_agent.settings.watch import SettingsFiles

PATIENCE_SECONDS = 30
"""Only a defect ever waits so long."""


def text(max_calls: int) -> str:
    return f"[server]\nmax_calls = {max_calls}\n"


def replace_by_renaming(path: Path, content: str) -> None:
    """As editors and configuration management do."""
    new = path.with_name(path.name + ".new")
    new.write_text(content)
    new.replace(path)


def replace_by_renaming_the_old_away(path: Path, content: str) -> None:
    """As vim does with `backupcopy=no`."""
    path.replace(path.with_name(path.name + "~"))
    path.write_text(content)


def delete_and_write(path: Path, content: str) -> None:
    path.unlink()
    path.write_text(content)


def write_in_place(path: Path, content: str) -> None:
    path.write_text(content)


def mount(folder: Path, number: int, content: str) -> None:
    """Lay a Kubernetes ConfigMap's volume: a new folder, and `..data` swapped to it in one step."""
    data = folder / f"..2026_{number}"
    data.mkdir()
    (data / "settings.toml").write_text(content)
    (folder / "..data_tmp").symlink_to(data.name)
    (folder / "..data_tmp").replace(folder / "..data")
    if not (folder / "settings.toml").is_symlink():
        (folder / "settings.toml").symlink_to("..data/settings.toml")


def calls_of(outcome: LoadedSettings | SettingsError | None) -> int:
    assert outcome is not None
    assert not isinstance(outcome, SettingsError), outcome
    return outcome.settings.server.max_calls


@asynccontextmanager
async def watched(
    origin: SettingsOrigin,
) -> AsyncIterator[trio.MemoryReceiveChannel[LoadedSettings | SettingsError]]:
    """Follow an origin as the server does; gives what is read, one reading after the other."""
    send, receive = trio.open_memory_channel[LoadedSettings | SettingsError](1000)
    files = SettingsFiles(origin)
    wakes_send, wakes = trio.open_memory_channel[None](1)

    def wake() -> None:
        with suppress(trio.WouldBlock):
            wakes_send.send_nowait(None)

    async def read() -> None:
        async for _ in wakes:
            outcome = await files.read()
            if outcome is not None:
                await send.send(outcome)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.watch, wake)
        nursery.start_soon(read)
        with trio.fail_after(PATIENCE_SECONDS):
            yield receive
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found by looking every few seconds: what these tests see, the kernel has told."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 3600)


@pytest.mark.parametrize(
    "replace",
    [write_in_place, replace_by_renaming, replace_by_renaming_the_old_away, delete_and_write],
    ids=lambda replace: replace.__name__,
)
async def test_a_file_is_followed_however_it_is_replaced(
    tmp_path: Path, replace: Callable[[Path, str], None]
) -> None:
    """The file is read at the start and after each change, many times over: the watch is not lost with the inode."""
    path = tmp_path / "settings.toml"
    path.write_text(text(1))
    async with watched(SettingsOrigin(config_dir=tmp_path, environ={})) as readings:
        assert calls_of(await readings.receive()) == 1
        for max_calls in range(2, 6):
            replace(path, text(max_calls))
            assert calls_of(await readings.receive()) == max_calls


async def test_the_swap_of_a_mounted_volume_is_followed(tmp_path: Path) -> None:
    """Kubernetes swaps a link to a folder, which is beside the file that was named and not the file itself."""
    mount(tmp_path, 1, text(1))
    origin = SettingsOrigin(files=(tmp_path / "settings.toml",), environ={})
    async with watched(origin) as readings:
        assert calls_of(await readings.receive()) == 1
        for number in range(2, 5):
            mount(tmp_path, number, text(number))
            assert calls_of(await readings.receive()) == number


async def test_a_link_to_another_folder_is_followed_to_its_end(tmp_path: Path) -> None:
    """What the link leads to may change, and so may the link."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (there / "real.toml").write_text(text(1))
    (here / "settings.toml").symlink_to(there / "real.toml")
    async with watched(SettingsOrigin(config_dir=here, environ={})) as readings:
        assert calls_of(await readings.receive()) == 1
        replace_by_renaming(there / "real.toml", text(2))
        assert calls_of(await readings.receive()) == 2
        (there / "other.toml").write_text(text(3))
        (here / "link").symlink_to(there / "other.toml")
        (here / "link").replace(here / "settings.toml")
        assert calls_of(await readings.receive()) == 3
        write_in_place(there / "other.toml", text(4))
        assert calls_of(await readings.receive()) == 4


async def test_a_secret_that_is_rotated_is_read_again(tmp_path: Path) -> None:
    """The file that the environment names is watched too."""
    secret = tmp_path / "secrets" / "turn"
    secret.parent.mkdir()
    secret.write_text("first-first-first-first")
    secret.chmod(0o600)
    environ = {"VOICE_AGENT__WEBRTC__TURN_SECRET_FILE": str(secret)}
    async with watched(SettingsOrigin(config_dir=tmp_path, environ=environ)) as readings:
        await readings.receive()
        new = secret.with_name("new")
        new.write_text("second-second-second")
        new.chmod(0o600)
        new.replace(secret)
        outcome = await readings.receive()
        assert not isinstance(outcome, SettingsError)
        assert outcome.settings.webrtc.turn_secret == "second-second-second"  # noqa: S105


async def test_a_file_and_a_folder_that_come_later_are_noticed(tmp_path: Path) -> None:
    """Neither need be there at the start; nor is a folder that was removed and made anew lost."""
    folder = tmp_path / "etc" / "voice-agent"
    origin = SettingsOrigin(files=(folder / "settings.toml",), environ={})
    async with watched(origin) as readings:
        assert isinstance(await readings.receive(), SettingsError)
        for number in (1, 2):
            folder.mkdir(parents=True)
            # The watch moves into the folder step by step; the file may be there before it.
            (folder / "settings.toml").write_text(text(number))
            while isinstance(outcome := await readings.receive(), SettingsError):
                pass
            assert calls_of(outcome) == number
            (folder / "settings.toml").unlink()
            folder.rmdir()
            assert isinstance(await readings.receive(), SettingsError)


async def test_what_the_kernel_does_not_tell_is_found_by_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No watch can be had at all: the files are looked at every few seconds, and the operator is told so once a look."""

    def no_watch(*_folders: str, **_choices: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watch, "awatch", no_watch)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    path = tmp_path / "settings.toml"
    path.write_text(text(1))
    async with watched(SettingsOrigin(config_dir=tmp_path, environ={})) as readings:
        assert calls_of(await readings.receive()) == 1
        path.write_text(text(2))
        assert calls_of(await readings.receive()) == 2


async def test_watching_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    """The thread that waits for the kernel ends with it; by itself it would wait for an hour here."""
    before = set(threading.enumerate())
    async with watched(SettingsOrigin(config_dir=tmp_path, environ={})) as readings:
        await readings.receive()
        (tmp_path / "settings.toml").write_text(text(2))
        await readings.receive()
    # Threads that have ended their job are kept by Trio for the next one, and are idle.
    assert not [one for one in set(threading.enumerate()) - before if "awatch" in one.name]


async def test_a_file_is_not_read_while_it_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file written in two halves, each of which would do by itself, is read when the second is there."""
    # Far apart: on a busy machine a sleep may last several times as long.
    monkeypatch.setattr(watch, "STILL_SECONDS", 0.5)
    path = tmp_path / "settings.toml"
    path.write_text(text(1))
    files = SettingsFiles(SettingsOrigin(config_dir=tmp_path, environ={}))
    assert calls_of(await files.read()) == 1

    def write_slowly() -> None:
        with path.open("w") as file:
            for line in ("[server]\n", "max_calls = 2\n", "max_connections = 3\n"):
                file.write(line)
                file.flush()
                time.sleep(0.05)

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, write_slowly)
            await trio.sleep(0.02)
            outcome = await files.read(although_unchanged=True)
            assert not isinstance(outcome, SettingsError)
            assert outcome is not None
            server = outcome.settings.server
            assert (server.max_calls, server.max_connections) in {(1, 512), (2, 3)}
        await files.read()


async def test_a_file_that_is_emptied_is_not_believed_at_once(tmp_path: Path) -> None:
    """An empty file is good settings, all defaults; but somebody who has truncated it is about to write."""
    path = tmp_path / "settings.toml"
    path.write_text(text(1))
    files = SettingsFiles(SettingsOrigin(config_dir=tmp_path, environ={}))
    assert calls_of(await files.read()) == 1
    path.write_text("")

    async def write_at_last() -> None:
        await trio.sleep(watch.SHRUNK_SECONDS / 4)
        path.write_text(text(2))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_at_last)
        assert calls_of(await files.read()) == 2


async def test_the_first_half_of_a_file_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    """Written in place by a program that stops in the middle, at the end of a line, for longer than files stand still."""
    path = tmp_path / "settings.toml"
    path.write_text("[server]\nmax_calls = 1\nmax_connections = 1\n")
    files = SettingsFiles(SettingsOrigin(config_dir=tmp_path, environ={}))
    assert calls_of(await files.read()) == 1

    async def write_in_two_halves() -> None:
        with path.open("w") as file:
            file.write("[server]\nmax_calls = 2\n")
            file.flush()
            await trio.sleep(watch.SHRUNK_SECONDS / 3)
            file.write("max_connections = 2\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_in_two_halves)
        await trio.sleep(watch.SHRUNK_SECONDS / 10)
        outcome = await files.read()
    assert calls_of(outcome) == 2
    assert not isinstance(outcome, SettingsError | None)
    assert outcome.settings.server.max_connections == 2


async def test_a_file_that_stays_away_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deleted on purpose: the defaults come back after the time that is given an editor."""
    monkeypatch.setattr(watch, "SHRUNK_SECONDS", 0.2)
    path = tmp_path / "settings.toml"
    path.write_text(text(1))
    files = SettingsFiles(SettingsOrigin(config_dir=tmp_path, environ={}))
    assert calls_of(await files.read()) == 1
    path.unlink()
    assert calls_of(await files.read()) == 64


async def test_files_that_never_stand_still_for_long_are_read_all_the_same(tmp_path: Path) -> None:
    """A thousand changes a minute, each by renaming: a reading comes through between two of them."""
    path = tmp_path / "settings.toml"
    path.write_text(text(1))
    files = SettingsFiles(SettingsOrigin(config_dir=tmp_path, environ={}))
    await files.read()
    async with trio.open_nursery() as nursery:

        async def change() -> None:
            for number in range(2, 10_000):
                replace_by_renaming(path, text(number))
                await trio.sleep(60 / 1000)

        nursery.start_soon(change)
        with trio.fail_after(PATIENCE_SECONDS):
            seen: list[int] = []
            while len(seen) < 3:
                if (outcome := await files.read()) is not None:
                    seen.append(calls_of(outcome))
        assert seen == sorted(set(seen))
        nursery.cancel_scope.cancel()


async def test_files_that_are_as_they_were_are_not_read(tmp_path: Path) -> None:
    """Only who asks for it gets the same settings again; a touched file counts as changed."""
    path = tmp_path / "settings.toml"
    path.write_text(text(1))
    files = SettingsFiles(SettingsOrigin(config_dir=tmp_path, environ={}))
    assert calls_of(await files.read()) == 1
    assert await files.read() is None
    assert calls_of(await files.read(although_unchanged=True)) == 1
    os.utime(path)
    assert calls_of(await files.read()) == 1


def test_a_ring_of_links_ends(tmp_path: Path) -> None:
    """Links that lead in a circle are watched where they are, and lead nowhere."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    where = whereabouts([tmp_path / "a"])
    assert [folder for folder, _, _ in where.folders] == [str(tmp_path)]
    assert look_at([tmp_path / "a"]).states == (None,)


def test_an_origin_names_its_files(tmp_path: Path) -> None:
    """The usual two, or exactly those that were given; and the secrets' files, where a variable names one."""
    usual = (tmp_path / "settings.toml", tmp_path / "settings.local.toml")
    assert SettingsOrigin(config_dir=tmp_path, environ={}).paths() == usual
    named = (tmp_path / "a.toml",)
    environ = {"VOICE_AGENT__WEBRTC__TURN_SECRET_FILE": "/run/secrets/turn"}
    assert SettingsOrigin(files=named, environ=environ).paths() == (*named, Path("/run/secrets/turn"))
    environ = {"VOICE_AGENT__WEBRTC__TURN_SECRET_FILE": ""}
    assert SettingsOrigin(files=named, environ=environ).paths() == named
