"""Services: what every call of a process shares."""

from collections.abc import Callable, Mapping, Sequence

import attrs
import trio

from voice_agent.core.events import CloseRecord
from voice_agent.core.transcripts import TranscriptResult
from voice_agent.observability.metrics import Metrics
from voice_agent.observability.tracing import Tracing
from voice_agent.session.keeping import Storage
from voice_agent.settings.schema import Settings
from voice_agent.speech.engine import Engine, VoiceActivity
from voice_agent.speech.work_meter import WorkMeter


def _forget(record: CloseRecord, transcript: Sequence[TranscriptResult]) -> None:
    """Keep no record; the default of an embedded session."""


@attrs.frozen(kw_only=True)
class Services:
    """Models, settings and instruments; wired once, in ``server/assembly.py``.

    ``supervisor`` is a nursery that outlives every call; the close watchdog lives there, so that it goes on
    watching when a call's own tasks misbehave. ``on_close`` is given each call's close record and finals.
    ``tracing`` is by default what the program has set up with OpenTelemetry for itself, if anything.
    ``work_meters`` say how busy each stage of the speech models is, by its name.
    ``settings_version`` counts the replacements of the settings. ``storage`` keeps what callers are told; None keeps nothing.
    """

    settings: Settings
    settings_version: int = 1
    engine: Engine
    voice_activity: VoiceActivity
    metrics: Metrics
    supervisor: trio.Nursery
    storage: Storage | None = None
    tracing: Tracing = attrs.field(factory=Tracing.of_program)
    work_meters: Mapping[str, WorkMeter] = attrs.field(factory=dict)
    on_close: Callable[[CloseRecord, Sequence[TranscriptResult]], None] = _forget
