"""Other settings while the server runs: taken over whole, or refused with the reason while the old ones stay."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from voice_agent.observability.metrics import Metrics
from voice_agent.server import reload as reload_module
from voice_agent.server.reload import SettingsReload
from voice_agent.settings.changes import Adoption
from voice_agent.settings.current import CurrentSettings
from voice_agent.settings.origin import SettingsOrigin

PATIENCE_SECONDS = 30


@attrs.define
class Followed:
    """A reload at work."""

    path: Path
    current: CurrentSettings
    metrics: Metrics
    reload: SettingsReload
    applied: list[Adoption] = attrs.field(factory=list)
    asked: list[str] = attrs.field(factory=list)

    def write(self, text: str) -> None:
        new = self.path.with_name("new")
        new.write_text(text)
        new.replace(self.path)

    def count(self, outcome: str) -> float:
        value = self.metrics.registry.get_sample_value(
            "voice_agent_settings_reloads_total", {"outcome": outcome}
        )
        return value or 0.0

    async def until(self, **counts: int) -> None:
        """Wait until outcomes have been counted so often; whatever else is counted meanwhile."""
        with trio.fail_after(PATIENCE_SECONDS):
            while any(self.count(outcome) < count for outcome, count in counts.items()):  # noqa: ASYNC110 (a metric)
                await trio.sleep(0.01)


@asynccontextmanager
async def followed(tmp_path: Path, text: str = "") -> AsyncIterator[Followed]:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    origin = SettingsOrigin(config_dir=tmp_path, environ={})
    current, metrics = CurrentSettings(origin.load().settings), Metrics()
    applied: list[Adoption] = []
    asked: list[str] = []
    reload = SettingsReload(
        origin,
        current,
        metrics,
        apply=applied.append,
        on_begin=lambda: asked.append("begin"),
        on_end=lambda: asked.append("end"),
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reload.run)
        it = Followed(path, current, metrics, reload, applied, asked)
        await it.until(unchanged=1)  # read at once, for what has changed since the start
        yield it
        nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests need not spare the machine."""
    monkeypatch.setattr(reload_module, "REST_SECONDS", 0)


def events(logs: Any) -> list[str]:
    return [line["event"] for line in logs]


async def test_a_change_takes_effect_and_is_told(tmp_path: Path) -> None:
    """Version, metric, log: each says what has changed and what waits for a restart."""
    async with followed(tmp_path) as it:
        with capture_logs() as logs:
            it.write("[server]\nmax_calls = 7\nport = 9\n")
            await it.until(applied=1)
        assert (it.current.now.server.max_calls, it.current.version) == (7, 2)
        assert it.current.now.server.port == 8080
        assert it.current.waiting == ("server.port",)
        assert str(it.current.sources["server.max_calls"]) == f"{it.path}:2"
        assert str(it.current.sources["server.port"]) == "default"
        assert it.metrics.registry.get_sample_value("voice_agent_settings_version") == 2
        assert [adoption.changed for adoption in it.applied] == [("server.max_calls",)]
    [line] = [line for line in logs if line["event"] == "settings_changed"]
    assert line["version"] == 2
    assert line["changed"] == ("server.max_calls",)
    assert line["waiting_for_restart"] == ("server.port",)


async def test_what_is_wrong_is_refused_whole(tmp_path: Path) -> None:
    """One wrong value among good ones: the reason in the log, a count, and all of the old settings stay."""
    async with followed(tmp_path, "[server]\nmax_calls = 7\n") as it:
        before = it.current.in_force
        with capture_logs() as logs:
            it.write("[server]\nmax_calls = 8\n[vad]\nthreshold = 7\n")
            await it.until(refused=1)
        assert it.current.in_force is before
        assert not it.applied
        it.write("[server]\nmax_calls = 9\n")
        await it.until(applied=1)
        assert it.current.now.server.max_calls == 9
    [line] = [line for line in logs if line["event"] == "settings_refused"]
    assert "vad.threshold = 7 (" in line["reason"]
    assert line["version"] == 1


async def test_what_only_waits_is_told_and_is_no_new_version(tmp_path: Path) -> None:
    """A change of restart-only settings alone: nothing in force changes, the operator is told, once."""
    async with followed(tmp_path) as it:
        with capture_logs() as logs:
            it.write("[server]\nport = 9\n")
            await it.until(unchanged=2)
            os.utime(it.path)
            await it.until(unchanged=3)
        assert (it.current.version, it.current.waiting) == (1, ("server.port",))
    assert events(logs) == ["settings_changed"]


async def test_who_asks_is_answered_although_nothing_changed(tmp_path: Path) -> None:
    """SIGHUP: read, told, with what must stand around it; a storm of them is done together."""
    async with followed(tmp_path) as it:
        with capture_logs() as logs:
            for _ in range(1000):
                it.reload.ask()
            await it.until(unchanged=2)
            await trio.sleep(0.2)
        assert it.count("unchanged") == 2
        assert it.asked == ["begin", "end"]
    assert events(logs) == ["settings_unchanged"]


async def test_a_defect_in_reading_does_not_end_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reading raises: logged with its trace, counted, and the next change is taken over."""

    def adopt_badly(*_settings: object) -> None:
        raise RuntimeError("a defect")

    async with followed(tmp_path) as it:
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(reload_module, "adopt", adopt_badly)
            it.write("[server]\nmax_calls = 7\n")
            await it.until(refused=1)
        assert "settings_reload_crashed" in events(logs)
        it.write("[server]\nmax_calls = 8\n")
        await it.until(applied=1)


async def test_the_reason_in_the_log_is_bounded(tmp_path: Path) -> None:
    """A file of another kind gives thousands of mistakes and one line of bounded length."""
    async with followed(tmp_path) as it:
        with capture_logs() as logs:
            it.write("".join(f"key_{number} = 1\n" for number in range(5000)))
            await it.until(refused=1)
    [line] = [line for line in logs if line["event"] == "settings_refused"]
    assert len(line["reason"]) <= reload_module.MAX_REASON_CHARS
