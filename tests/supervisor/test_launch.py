"""What a worker is given by its supervisor, and where the workers meet."""

import stat
from pathlib import Path

import attrs
import pytest

from voice_agent.core.errors import SettingsError
from voice_agent.core.worker import WORKER_VARIABLES, WorkerPlace
from voice_agent.settings.load import load_settings
from voice_agent.supervisor.folder import LONGEST_PATH, open_folder
from voice_agent.supervisor.launch import environ_of_workers

THREADS = "VOICE_AGENT__RECOGNISER__WORKER_THREADS"


def common(cores: int, **environ: str) -> dict[str, str]:
    loaded = load_settings(files=[], environ=environ)
    return environ_of_workers(loaded, environ, cores=lambda: cores)


@pytest.mark.parametrize(
    ("workers", "cores", "threads"), [(2, 2, "1"), (2, 8, "2"), (4, 2, "1"), (3, 8, "2")]
)
def test_workers_share_the_cores(workers: int, cores: int, threads: str) -> None:
    """As many threads for recognition as there are cores for them; never more than a server alone has, never none."""
    assert common(cores, VOICE_AGENT__SERVER__WORKERS=str(workers))[THREADS] == threads


def test_what_the_operator_chose_stays() -> None:
    """Threads that were set are each worker's."""
    chosen = {"VOICE_AGENT__SERVER__WORKERS": "4", THREADS: "3"}
    assert common(2, **chosen)[THREADS] == "3"


def test_what_systemd_says_is_for_the_supervisor_alone() -> None:
    """A worker that told systemd would be taken for the service."""
    told = {
        "NOTIFY_SOCKET": "/run/x",
        "WATCHDOG_USEC": "1",
        "WATCHDOG_PID": "1",
        "STATE_DIRECTORY": "/var/lib/x",
    }
    environ = common(2, VOICE_AGENT__SERVER__WORKERS="2", **told)
    assert set(told) & set(environ) == {"STATE_DIRECTORY"}


def test_a_place_is_read_as_it_was_written(tmp_path: Path) -> None:
    """By way of the environment; in a process that is nobody's worker there is none."""
    place = WorkerPlace(number=2, count=3, folder=tmp_path, listen_fds=(5, 6), lifeline_fd=7)
    environ = place.to_environ()
    assert set(environ) == set(WORKER_VARIABLES)
    assert WorkerPlace.from_environ(environ) == place
    assert WorkerPlace.from_environ({}) is None
    assert place.siblings == {1: tmp_path / "worker-1.sock", 3: tmp_path / "worker-3.sock"}
    assert attrs.evolve(place, listen_fds=()).to_environ()["VOICE_AGENT_WORKER_LISTEN_FDS"] == ""


def test_the_folder_is_the_owner_s_alone_and_goes_with_the_supervisor(tmp_path: Path) -> None:
    """In systemd's runtime directory, which others may look into, it is one of its own; what a killed one left is gone."""
    tmp_path.chmod(0o755)
    left = tmp_path / "workers"
    left.mkdir(mode=0o755)
    (left / "worker-1.sock").touch()
    with open_folder({"RUNTIME_DIRECTORY": f"{tmp_path}:/elsewhere"}) as folder:
        assert folder == left
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not list(folder.iterdir())
    assert not left.exists()


def test_without_systemd_it_is_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of mode 0700 too; where its path would be too long for a socket's address, it is elsewhere."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_folder({}) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert len(str(folder)) <= LONGEST_PATH
    deep = tmp_path / ("d" * LONGEST_PATH)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with open_folder({}) as folder:
        assert len(str(folder)) <= LONGEST_PATH
    assert not list(deep.iterdir())


def test_a_folder_that_can_t_be_made_is_the_operator_s(tmp_path: Path) -> None:
    """The message names the variable."""
    with (
        pytest.raises(SettingsError, match="RUNTIME_DIRECTORY"),
        open_folder({"RUNTIME_DIRECTORY": str(tmp_path / "nowhere")}),
    ):
        pass


@pytest.mark.parametrize("kind", ["none", "memory"])
def test_several_workers_need_a_store_that_they_share(kind: str) -> None:
    """A session that one worker alone knows could be neither resumed nor found; the message says what to set."""
    environ = {"VOICE_AGENT__SERVER__WORKERS": "2", "VOICE_AGENT__STORE__KIND": kind}
    with pytest.raises(SettingsError, match="sqlite") as raised:
        load_settings(files=[], environ=environ)
    assert "server.workers = 2" in raised.value.message
    load_settings(files=[], environ={**environ, "VOICE_AGENT__SERVER__WORKERS": "1"})
