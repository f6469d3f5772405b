"""When a new call is refused because it would spoil the running ones."""

import attrs

from voice_agent.core.units import MS, SECONDS
from voice_agent.settings.declare import setting


@attrs.frozen(kw_only=True)
class AdmissionSettings:
    """When a new call gets 503 because it would spoil the running ones; docs/limits.md says how that is found out."""

    enabled: bool = setting(
        True, "Whether anybody is refused for that; without it the server takes all.", live=True
    )
    max_load: float = setting(
        0.8,
        "New calls are refused when, with one more, the speech workers would be busy for such a share of the time.",
        minimum=0.05,
        maximum=100,
        live=True,
    )
    resume_load: float = setting(
        0.7, "New calls are taken again at this share.", minimum=0.01, maximum=100, live=True
    )
    max_queue_seconds: float = setting(
        300 * MS,
        "New calls are refused when finals wait so long for a worker.",
        unit="seconds",
        minimum=0.001,
        maximum=60,
        live=True,
    )
    resume_queue_seconds: float = setting(
        100 * MS,
        "New calls are taken again at this wait.",
        unit="seconds",
        minimum=0.001,
        maximum=60,
        live=True,
    )
    max_lag_seconds: float = setting(
        100 * MS,
        "New calls are refused when the event loop is typically so late.",
        unit="seconds",
        minimum=0.001,
        maximum=60,
        live=True,
    )
    resume_lag_seconds: float = setting(
        50 * MS,
        "New calls are taken again at this lag.",
        unit="seconds",
        minimum=0.001,
        maximum=60,
        live=True,
    )
    min_refusing_seconds: float = setting(
        2 * SECONDS,
        "Refusing lasts so long at least, so that it does not flicker.",
        unit="seconds",
        minimum=0,
        maximum=600,
        live=True,
    )
    expected_call_load: float = setting(
        0.25,
        "What a call is taken to cost until calls were measured: how many seconds a second it keeps a speech worker busy.",
        unit="workers",
        minimum=0.001,
        maximum=10,
        live=True,
    )
