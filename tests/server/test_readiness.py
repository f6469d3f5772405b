"""Readiness: each check by itself, and what is told of them all."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import attrs
import numpy as np
import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from voice_agent.core.errors import RecognitionFailedError
from voice_agent.observability.metrics import Metrics
from voice_agent.server.readiness import NotWorkingError, ReadinessChecks
from voice_agent.server.readiness_checks import (
    DiskSpaceCheck,
    MediaThreadCheck,
    ModelFilesCheck,
    RecogniserCheck,
    VoiceActivityCheck,
)
from voice_agent.session.services import Services
from voice_agent.settings.schema import ReadinessSettings, Settings
from voice_agent.speech.engine import Recognition, RecognitionRequest, Urgency
from voice_agent.speech.known_clip import CLIP_WORD, KnownClip, load_known_clip
from voice_agent.speech.models import ModelFile
from voice_agent.speech.scripted import ScriptedEngine, ScriptedVoiceActivity
from voice_agent.transports.webrtc.media_thread import open_media_thread

OpenServices = Callable[..., AbstractAsyncContextManager[Services]]

SETTINGS = ReadinessSettings(interval_seconds=10, timeout_seconds=2)


@asynccontextmanager
async def running(**checks: Callable[[], Awaitable[str]]) -> AsyncIterator[ReadinessChecks]:
    """Checks that run while the block lasts, after their first look."""
    them = ReadinessChecks(SETTINGS, Metrics())
    for name, check in checks.items():
        them.add(name, check)
    async with trio.open_nursery() as nursery:
        await nursery.start(them.run)
        yield them
        nursery.cancel_scope.cancel()


def told(checks: ReadinessChecks) -> dict[str, tuple[bool, str]]:
    return {name: (found.is_ok, found.message) for name, found in checks.findings()}


async def well() -> str:
    await trio.lowlevel.checkpoint()
    return "well"


async def test_what_was_found_last_is_told_until_the_next_look(autojump_clock: MockClock) -> None:
    """A fault shows at the next look, and its end too; each change is one line in the log, and the metric follows."""
    faults: list[Exception] = []

    async def fragile() -> str:
        await trio.sleep(0.25)
        if faults:
            raise faults[0]
        return "well"

    with capture_logs() as logs:
        async with running(fragile=fragile, other=well) as checks:
            assert told(checks) == {"fragile": (True, "well"), "other": (True, "well")}
            assert checks.are_ok
            assert dict(checks.findings())["fragile"].seconds == 0.25
            faults.append(NotWorkingError("broken"))
            await trio.sleep(9)
            assert checks.are_ok
            await trio.sleep(2)
            assert told(checks) == {"fragile": (False, "broken"), "other": (True, "well")}
            assert not checks.are_ok
            assert checks._metrics.value("voice_agent_check_ok", check="fragile") == 0
            assert checks._metrics.value("voice_agent_check_ok", check="other") == 1
            await trio.sleep(30)
            faults.clear()
            await trio.sleep(11)
            assert checks.are_ok
            assert checks._metrics.value("voice_agent_check_ok", check="fragile") == 1
    assert [(line["event"], line["check"]) for line in logs] == [
        ("check_failed", "fragile"),
        ("check_recovered", "fragile"),
    ]


async def test_a_check_that_hangs_is_told_in_time_and_holds_up_no_other(autojump_clock: MockClock) -> None:
    """The time limit ends it; the others are looked at as ever."""
    looks = 0

    async def counted() -> str:
        nonlocal looks
        looks += 1
        return await well()

    async def hanging() -> str:
        await trio.sleep_forever()
        raise AssertionError

    began = trio.current_time()
    async with running(hanging=hanging, counted=counted) as checks:
        assert trio.current_time() - began == pytest.approx(2)
        assert told(checks) == {"hanging": (False, "no answer within 2 s"), "counted": (True, "well")}
        await trio.sleep(35)
        assert looks == 4


async def test_a_check_that_can_not_be_ended_makes_the_server_unready(autojump_clock: MockClock) -> None:
    """What it found before is worth nothing when it is old; the start doesn't wait for it either."""
    released = trio.Event()
    hangs = False

    async def deaf() -> str:
        with trio.CancelScope(shield=hangs):
            if hangs:
                await released.wait()
        return await well()

    async def deaf_from_the_start() -> str:
        with trio.CancelScope(shield=True):
            await released.wait()
        return await well()

    began = trio.current_time()
    async with running(deaf=deaf, worse=deaf_from_the_start) as checks:
        try:
            assert trio.current_time() - began == pytest.approx(2.5)
            assert told(checks) == {"deaf": (True, "well"), "worse": (False, "not looked at yet")}
            hangs = True
            await trio.sleep(19)
            assert told(checks)["deaf"] == (True, "well")
            await trio.sleep(3)
            assert told(checks)["deaf"] == (False, "the check itself hangs")
            released.set()
            await trio.sleep(11)
            assert checks.are_ok
        finally:
            released.set()


async def test_a_check_that_crashes_is_a_fault_and_no_crash(autojump_clock: MockClock) -> None:
    """The kind of the error is told, its message, which may hold a path, is for the log."""

    async def crashing() -> str:
        await trio.lowlevel.checkpoint()
        raise OSError("/secret/path is gone")

    with capture_logs() as logs:
        async with running(crashing=crashing) as checks:
            assert told(checks) == {"crashing": (False, "the check failed: OSError")}
    assert {line["event"] for line in logs} == {"check_crashed", "check_failed"}


CLIP = KnownClip(np.full(16_000, 0.1, np.float32), "tried")


async def look(check: Callable[[], Awaitable[str]], limit_seconds: float = 2.0) -> str:
    with trio.fail_after(limit_seconds):
        return await check()


async def test_the_recogniser_hears_a_clip_whose_words_are_known(
    open_scripted_services: OpenServices,
) -> None:
    """Behind everybody's work; other words, or none, are a fault."""
    for text, is_ok in (("Ever tried.", True), ("Ever.", False), ("", False)):
        engine = ScriptedEngine(lambda _request, text=text: text)
        async with open_scripted_services(engine=engine) as services:
            check = RecogniserCheck(services, CLIP)
            if is_ok:
                assert await look(check.look) == "a known clip was understood"
            else:
                with pytest.raises(NotWorkingError, match="did not understand"):
                    await look(check.look)
            assert [request.urgency for request in engine.requests] == [Urgency.PROBE]
            silence = RecogniserCheck(services, KnownClip(CLIP.samples))
            assert await look(silence.look) == "silence was heard"


async def test_a_recogniser_that_fails_is_a_fault(open_scripted_services: OpenServices) -> None:
    """The model's error is told by its class' own message."""

    class Failing:
        async def recognise(self, request: RecognitionRequest) -> Recognition:
            await trio.lowlevel.checkpoint()
            raise RecognitionFailedError("the speech model failed: RuntimeError")

    async with open_scripted_services(engine=Failing()) as services:
        checks = ReadinessChecks(SETTINGS, services.metrics)
        checks.add("recogniser", RecogniserCheck(services, CLIP).look)
        await services.supervisor.start(checks.run)
        assert told(checks) == {"recogniser": (False, "the speech model failed: RuntimeError")}


async def test_a_busy_recogniser_is_no_fault_and_a_stuck_one_is(
    autojump_clock: MockClock, open_scripted_services: OpenServices
) -> None:
    """No answer in time is well as long as other batches are done; with none it hangs."""
    async with open_scripted_services(engine=ScriptedEngine(latency_seconds=60)) as services:
        check = RecogniserCheck(services, CLIP)
        with pytest.raises(NotWorkingError, match="nothing else"):
            await look(check.look)

        async def work() -> None:
            await trio.sleep(1)
            services.metrics.recognition_batch_size.observe(3)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            assert await look(check.look) == "busy: 1 batches done meanwhile"


async def test_voice_activity_finds_speech_in_the_clip() -> None:
    """No speech where there is some is a fault, and so is what is no number."""

    @attrs.frozen
    class Fixed:
        value: float

        def open_stream(self) -> "Fixed":
            return self

        def reset(self) -> None:
            raise AssertionError

        async def probabilities(self, windows: np.ndarray) -> np.ndarray:
            await trio.lowlevel.checkpoint()
            return np.full(len(windows), self.value, np.float32)

    assert "found" in await look(VoiceActivityCheck(ScriptedVoiceActivity(), CLIP).look)
    assert "silence" in await look(VoiceActivityCheck(Fixed(0.0), KnownClip(CLIP.samples)).look)
    for value in (0.1, float("nan")):
        with pytest.raises(NotWorkingError):
            await look(VoiceActivityCheck(Fixed(value), CLIP).look)


async def test_the_media_thread_answers() -> None:
    """Its loop turns; one that is held up is found out."""
    async with open_media_thread() as media:
        check = MediaThreadCheck(media, 5)
        assert (await look(check.look, 10)).startswith("answered in")
        held = trio.Event()
        token = trio.lowlevel.current_trio_token()
        import threading

        release = threading.Event()
        media.call_soon(lambda: (token.run_sync_soon(held.set), release.wait(10)))
        await held.wait()
        with pytest.raises(trio.TooSlowError):
            await MediaThreadCheck(media, 0.05).look()
        release.set()


async def test_model_files_are_still_there(tmp_path: Path) -> None:
    """One that is gone, or of another size, is named; not where it was."""
    path = tmp_path / "model.onnx"
    path.write_bytes(b"12345")
    file = ModelFile(name="ears", path=path, size=5, sha256="", licence="", setting="")
    check = ModelFilesCheck([file])
    assert await look(check.look) == "1 files"
    path.write_bytes(b"123")
    with pytest.raises(NotWorkingError, match="ears has another size"):
        await look(check.look)
    path.unlink()
    with pytest.raises(NotWorkingError, match="ears is gone") as caught:
        await look(check.look)
    assert str(tmp_path) not in str(caught.value)


async def test_disk_space_is_looked_at_where_something_is_written(tmp_path: Path) -> None:
    """Nowhere, enough, and too little."""
    assert await look(DiskSpaceCheck([], 10**18).look) == "nothing is written to disk"
    assert "MiB are free" in await look(DiskSpaceCheck([tmp_path], 1).look)
    with pytest.raises(NotWorkingError, match="are wanted"):
        await look(DiskSpaceCheck([tmp_path], 10**18).look)


def test_the_known_clip_ships_with_the_models(tmp_path: Path) -> None:
    """And where it doesn't, for models of one's own, silence takes its place."""
    clip = load_known_clip(Settings())
    assert clip.word == CLIP_WORD
    assert len(clip.samples) == 22_400
    assert np.abs(clip.samples).max() > 0.05
