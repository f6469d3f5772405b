"""What the server needs, and how it is looked at; the one place where checks are registered."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import attrs
import numpy as np
import trio

from voice_agent.core.errors import StoreUnavailableError
from voice_agent.core.units import MIB
from voice_agent.server.readiness import NotWorkingError, ReadinessChecks
from voice_agent.server.storage import Stored, file_of
from voice_agent.session.services import Services
from voice_agent.session.store.writer import StoreState
from voice_agent.settings.schema import Settings
from voice_agent.speech.engine import VAD_WINDOW, RecognitionRequest, Urgency, VoiceActivity
from voice_agent.speech.known_clip import KnownClip, load_known_clip
from voice_agent.speech.models import ModelFile, find_models
from voice_agent.transports.webrtc.media_thread import MediaThread

CHECKS: Final = ("recogniser", "voice_activity", "media_thread", "model_files", "disk_space", "store")

SPEECH_PROBABILITY: Final = 0.5

_disk: Final = trio.CapacityLimiter(2)
"""A disk that hangs takes these threads along, and no more; then the checks of it fail by their time limit."""


async def add_checks(
    checks: ReadinessChecks,
    services: Services,
    media: MediaThread,
    settings: Settings,
    stored: Stored | None = None,
) -> None:
    """Register the checks of :data:`CHECKS`; reads the known clip and looks the model files up."""
    clip = await trio.to_thread.run_sync(load_known_clip, settings)
    files = await trio.to_thread.run_sync(find_models, settings)
    timeout_seconds = settings.readiness.timeout_seconds
    checks.add("recogniser", RecogniserCheck(services, clip).look)
    checks.add("voice_activity", VoiceActivityCheck(services.voice_activity, clip).look)
    checks.add("media_thread", MediaThreadCheck(media, timeout_seconds).look)
    checks.add("model_files", ModelFilesCheck(files).look)
    checks.add(
        "disk_space",
        DiskSpaceCheck(written_folders(settings), settings.readiness.min_free_disk_mib * MIB).look,
    )
    checks.add("store", StoreCheck(stored).look)


def written_folders(settings: Settings) -> list[Path]:
    """Return the folders that the server writes to."""
    files = [Path(path) for path in (settings.logging.audit_path,) if path]
    if settings.store.kind == "sqlite":
        files.append(file_of(settings.store))
    return [file.expanduser().absolute().parent for file in files]


@attrs.frozen
class RecogniserCheck:
    """A clip whose words are known goes through the queue that calls use, behind all of their work.

    A busy engine may not come to it in time, or drop it; that is no fault as long as it gets other work done.
    """

    _services: Services
    _clip: KnownClip

    async def look(self) -> str:
        """Hear the clip."""
        batches_before = self._batches_done()
        request = RecognitionRequest(
            samples=self._clip.samples, urgency=Urgency.PROBE, utterance_key=("readiness", 0)
        )
        heard = None
        # A little less than the time limit, so that there is time to say why.
        with trio.move_on_at(trio.current_effective_deadline() - 0.1):
            heard = await self._services.engine.recognise(request)
        if heard is None:
            batches = self._batches_done() - batches_before
            if not batches:
                raise NotWorkingError("the recogniser gave no answer, and did nothing else meanwhile")
            return f"busy: {batches:g} batches done meanwhile"
        if self._clip.word and self._clip.word not in heard.text.lower():
            raise NotWorkingError("the recogniser did not understand a clip that it should")
        return "a known clip was understood" if self._clip.word else "silence was heard"

    def _batches_done(self) -> float:
        return self._services.metrics.value("voice_agent_recognition_batch_size_count")


@attrs.frozen
class VoiceActivityCheck:
    """The same clip for the model that finds speech."""

    _voice_activity: VoiceActivity
    _clip: KnownClip

    async def look(self) -> str:
        """Listen to the clip."""
        whole = len(self._clip.samples) // VAD_WINDOW
        windows = self._clip.samples[: whole * VAD_WINDOW].reshape(whole, VAD_WINDOW)
        probabilities = await self._voice_activity.open_stream().probabilities(windows)
        if not np.isfinite(probabilities).all():
            raise NotWorkingError("voice activity is no number")
        if self._clip.word and probabilities.max() < SPEECH_PROBABILITY:
            raise NotWorkingError("no speech was found in a clip that holds some")
        return "speech was found in a known clip" if self._clip.word else "silence was listened to"


@attrs.frozen
class MediaThreadCheck:
    """The asyncio loop that WebRTC lives in."""

    _media: MediaThread
    _timeout_seconds: float

    async def look(self) -> str:
        """Ask it for an answer."""
        seconds = await self._media.ping(self._timeout_seconds)
        return f"answered in {seconds * 1000:.1f} ms"


@attrs.frozen
class ModelFilesCheck:
    """The models are in memory; but a server whose files are gone does not survive its next start."""

    _files: Sequence[ModelFile]

    async def look(self) -> str:
        """Look whether each file is there and has its size."""
        await _on_disk(self._compare)
        return f"{len(self._files)} files"

    def _compare(self) -> None:
        for file in self._files:
            try:
                size = file.path.stat().st_size
            except OSError:
                raise NotWorkingError(f"the file of {file.name} is gone") from None
            if size != file.size:
                raise NotWorkingError(f"the file of {file.name} has another size than at the start")


@attrs.frozen
class DiskSpaceCheck:
    """Room where the server writes."""

    _folders: Sequence[Path]
    _min_free_bytes: int

    async def look(self) -> str:
        """Look at each file system."""
        if not self._folders:
            return "nothing is written to disk"
        free = await _on_disk(lambda: min(shutil.disk_usage(folder).free for folder in self._folders))
        if free < self._min_free_bytes:
            raise NotWorkingError(f"{free // MIB} MiB are free; {self._min_free_bytes // MIB} MiB are wanted")
        return f"{free // MIB} MiB are free"


@attrs.frozen
class StoreCheck:
    """Where sessions are kept. One that is away for a while makes the server no less ready: calls go on, writes wait."""

    _stored: Stored | None

    async def look(self) -> str:
        """Write and read something small, or say what waits."""
        if self._stored is None:
            return "nothing is kept"
        writer = self._stored.storage.writer
        if writer.state is StoreState.FULL:
            raise NotWorkingError("the store is away, and no more can wait for it")
        try:
            await self._stored.store.check()
        except StoreUnavailableError:
            return f"degraded: the store is away, and {writer.waiting} writes wait for it"
        return "written and read"


async def _on_disk(job: Callable[[], object]) -> int:
    done = await trio.to_thread.run_sync(job, abandon_on_cancel=True, limiter=_disk)
    return done if isinstance(done, int) else 0
